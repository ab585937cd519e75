"""From a request's body to a checked query; pictures are still bytes, in memory, never on disk."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from freestyle.search.server.limits import Limits
from freestyle.search.server.refusal import Refusal
from freestyle.search.server.schema import PartRequest, SearchRequest

REQUEST_BYTES = 1 << 20  # of a form's `request` field, whose pictures are files
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Received:
    """A query as it came.

    Attributes:
        request: Its values, within the limits.
        pictures: By number of a part its picture's bytes.
    """

    request: SearchRequest
    pictures: dict[int, bytes]


async def receive(headers: Headers, stream: AsyncIterator[bytes], limits: Limits) -> Received:
    """Read and check a body of either form.

    Args:
        headers: Of the request.
        stream: Its body.
        limits: What is refused.

    Raises:
        Refusal: 400, 413, 415 or 422.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length) > limits.body:
        raise too_long(limits)
    files: dict[str, bytes] = {}
    if kind == "application/json":
        chunks = [chunk async for chunk in _bounded(stream, limits)]
        text = b"".join(chunks)
    elif kind == "multipart/form-data":
        text, files = await _form(headers, _bounded(stream, limits), limits)
    else:
        raise Refusal(
            415, "a search is application/json or multipart/form-data: set Content-Type", "type"
        )
    if text.count("," if isinstance(text, str) else b",") > most_commas(limits):
        raise Refusal(413, "the query has too many values: send fewer parts", "parts")
    request = parse(text)
    check(request, limits)
    pictures = {}
    for number, part in enumerate(request.parts):
        if part.image is not None:
            pictures[number] = from_base64(part.image, number)
        elif part.file is not None:
            if part.file not in files:
                raise Refusal(422, f"part {number + 1} names a file that the form has not", "file")
            pictures[number] = files[part.file]
    return Received(request, pictures)


def most_commas(limits: Limits) -> int:
    """Of a query's JSON: more are refused before it is parsed.

    A picture in base64 has none, so this bounds the values in a body of any length. Millions of
    them would take the parser seconds, and the complaints about each gigabytes.
    """
    part = limits.text + 300  # its other strings, its keys, a data: URL
    return limits.parts * part + limits.conditions * (limits.condition + 1) + 100


def parse(text: bytes | str) -> SearchRequest:
    """JSON to values of the right types.

    Raises:
        Refusal: 400 where it is no JSON, 413 where a list is too long, 422 where it is no query.
    """
    try:
        return SearchRequest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise Refusal(400, "the body is no JSON: see /openapi.json", "json") from None
        # Names of fields are ours, save unknown ones, which are not repeated.
        known = {*SearchRequest.model_fields, *PartRequest.model_fields}
        where = [str(p) for p in first["loc"] if isinstance(p, int) or p in known]
        what = complaint(first)
        status = 413 if first["type"] == "too_long" else 422
        raise Refusal(status, f"{'.'.join(where) or 'the query'}: {what}"[:300], "value") from None


def complaint(error: Mapping[str, Any]) -> str:
    """What a user reads of one of pydantic's errors, with what to do where that is ours to say."""
    if error["type"] == "extra_forbidden":
        inside = len(error["loc"]) > 1  # in a part
        fields = (PartRequest if inside else SearchRequest).model_fields
        return f"a field is unknown: use {', '.join(fields)}"
    if error["type"] == "string_pattern_mismatch":
        return "it is no photo's id: take one from a result"
    text = error["msg"].rstrip(".")
    return text[:1].lower() + text[1:]


def check(request: SearchRequest, limits: Limits) -> None:
    """Refuse what is out of the limits.

    Raises:
        Refusal: 413 or 422.
    """
    if len(request.parts) > limits.parts:
        raise Refusal(413, f"a query has at most {limits.parts} parts: send fewer", "parts")
    if request.top > limits.top:
        raise Refusal(422, f"top is at most {limits.top}: ask for fewer photos", "value")
    if (request.rerank or 0) > limits.rerank:
        raise Refusal(422, f"rerank is at most {limits.rerank}: ask for fewer", "value")
    if len(request.where) > limits.conditions:
        raise Refusal(413, f"where has at most {limits.conditions} conditions: send fewer", "parts")
    if any(len(condition) > limits.condition for condition in request.where):
        sentence = f"a condition has at most {limits.condition} characters: shorten it"
        raise Refusal(413, sentence, "text")
    for number, part in enumerate(request.parts, 1):
        given = (part.text, part.image, part.file, part.photo)
        if sum(value is not None for value in given) != 1:
            sentence = f"part {number} needs exactly one of text, image, file, photo"
            raise Refusal(422, sentence, "value")
        if part.text is not None and not part.text.strip():
            raise Refusal(422, f"the text of part {number} is empty: leave the part out", "value")
        if len(part.text or "") > limits.text:
            sentence = f"a text has at most {limits.text} characters: shorten part {number}"
            raise Refusal(413, sentence, "text")
        if part.weight > limits.weight:
            sentence = f"a weight is at most {limits.weight:g}: lower that of part {number}"
            raise Refusal(422, sentence, "value")
    if not any(part.weight for part in request.parts):
        raise Refusal(422, "all weights are 0: raise one", "value")


def from_base64(text: str, number: int) -> bytes:
    """The bytes of a picture in JSON, plain base64 or a data: URL.

    Raises:
        Refusal: 422 if it is neither.
    """
    start = found.end() if (found := _DATA_URL.match(text[:80])) else 0
    try:
        return base64.b64decode(text[start:], validate=True)
    except (binascii.Error, ValueError):
        sentence = f"the image of part {number + 1} is neither base64 nor a data: URL of an image"
        raise Refusal(422, sentence, "base64") from None


def too_long(limits: Limits) -> Refusal:
    """413 for the whole body."""
    return Refusal(413, f"a request has at most {limits.body:,} bytes: shrink the picture", "body")


async def _bounded(stream: AsyncIterator[bytes], limits: Limits) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in stream:
        size += len(chunk)
        if size > limits.body:
            raise too_long(limits)
        if chunk:
            yield chunk


async def _form(
    headers: Headers, stream: AsyncIterator[bytes], limits: Limits
) -> tuple[str, dict[str, bytes]]:
    """The `request` field and the files by field name; file names are not looked at."""
    parser = MultiPartParser(
        headers, stream, max_files=limits.parts, max_fields=1, max_part_size=REQUEST_BYTES
    )
    parser.spool_max_size = limits.body + 1  # never a temporary file
    try:
        form = await parser.parse()
    except Refusal:
        raise
    except MultiPartException as error:
        if error.message.startswith(("Too many", "Part exceeded")):
            sentence = f"a form has one field, request, and at most {limits.parts} files"
            raise Refusal(413, sentence, "parts") from None
        raise Refusal(400, "the form is malformed: send multipart/form-data", "form") from None
    except (ValueError, LookupError, TypeError, AttributeError):  # of a parser fed with nonsense
        raise Refusal(400, "the form is malformed: send multipart/form-data", "form") from None
    text: str | None = None
    files: dict[str, bytes] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name in files:
                raise Refusal(422, "two files have the same field name: rename one", "file")
            files[name] = await value.read()
        elif name == "request":
            text = value
        else:
            raise Refusal(422, "a form has one field, request, and files", "form")
    await form.close()
    if text is None:
        raise Refusal(422, "the form has no field request with the JSON of the query", "form")
    return text, files
