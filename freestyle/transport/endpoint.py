"""Captions from any OpenAI-compatible endpoint: a served multimodal model, near or far."""

from __future__ import annotations

import base64
import io
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from freestyle.datasets.composed import ComposedQuery, load_picture
from freestyle.errors import UserError
from freestyle.transport.captions import Composition
from freestyle.transport.generating import (
    CaptionCache,
    compose_cached,
    parse_answer,
    read_prompts,
)

MOST_PIXELS = 768  # longest side of a picture that is sent
AGAIN = (408, 409, 425, 429)  # and every 5xx


class EndpointComposer:
    """Asks ``POST {url}/chat/completions`` once per query, with the reference picture.

    Args:
        url: Base of the endpoint, such as ``http://localhost:8000/v1``.
        model: Name of the model there.
        benchmark: Whose prompts, or a YAML file of your own.
        count: K, captions per query.
        cache: Folder of finished captions; the default cache where None.
        timeout: Seconds for one answer.
        retries: How often a slow, busy or broken answer is asked for again.
        back_off: Seconds before the first repetition; doubles, with jitter, up to a minute. A
            server's ``Retry-After`` is waited for instead.
        concurrency: Requests at a time.
        key_variable: Environment variable with the key, sent as a bearer token where it is set;
            the key itself is never read from a file or option.
        temperature: Of the sampling.
        top_p: Of the sampling.
        max_tokens: Of an answer.

    Raises:
        UserError: If a setting cannot be used.
    """

    def __init__(
        self,
        url: str,
        model: str,
        benchmark: str = "emoji",
        *,
        count: int = 5,
        cache: str | Path | None = None,
        timeout: float = 60.0,
        retries: int = 5,
        back_off: float = 1.0,
        concurrency: int = 4,
        key_variable: str = "OPENAI_API_KEY",
        temperature: float = 0.7,
        top_p: float = 0.8,
        max_tokens: int = 700,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UserError(
                f"composer.url is {url!r}: give one that begins with http:// or https://"
            )
        numbers = {"count": count, "timeout": timeout, "concurrency": concurrency}
        for name, value in numbers.items():
            if not value > 0:
                raise UserError(f"composer.{name} is {value}: use a number above 0")
        if retries < 0 or back_off < 0:
            raise UserError(
                f"composer.retries and back_off must be at least 0: {retries}, {back_off}"
            )
        self.name = f"{model} at {url}"
        self.url, self.model, self.count = url.rstrip("/"), model, int(count)
        self.prompts = read_prompts(benchmark)
        self.cache = CaptionCache(cache)
        self.timeout, self.retries, self.back_off = timeout, retries, back_off
        self.concurrency, self.key_variable = int(concurrency), key_variable
        self.sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}

    def compose(self, queries: Sequence[ComposedQuery]) -> dict[str, Composition]:
        """The captions of every query.

        Raises:
            UserError: If the endpoint does not answer, or keeps answering nonsense; what it wrote
                before is in the cache.
        """
        import httpx

        prompt = f"{self.prompts['system']}\n{self.prompts['several']}\n{self.count}{self.sampling}"
        with httpx.Client(timeout=self.timeout) as client:
            return compose_cached(
                queries,
                self.cache,
                self.model,
                prompt,
                lambda query: self._ask(client, query),
                concurrency=self.concurrency,
            )

    def _ask(self, client: Any, query: ComposedQuery) -> Composition:
        body = {"model": self.model, "messages": self._messages(query), **self.sampling}
        why = ""
        for attempt in range(self.retries + 1):
            answer, why, wait = self._once(client, body, query)
            if answer is not None:
                return answer
            if attempt < self.retries:
                own = min(60.0, self.back_off * 2**attempt) * random.uniform(0.5, 1.0)
                time.sleep(own if wait is None else wait)
        raise UserError(
            f"{self.url} gave no captions for query {query.id!r} in {self.retries + 1} tries "
            f"({why}): check the server, then run again; what it wrote is in {self.cache.folder}"
        )

    def _once(
        self, client: Any, body: dict, query: ComposedQuery
    ) -> tuple[Composition | None, str, float | None]:
        """An answer, or why there is none, and how long the server asks to wait."""
        import httpx

        key = os.environ.get(self.key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            response = client.post(f"{self.url}/chat/completions", json=body, headers=headers)
        except httpx.TimeoutException:
            return None, f"no answer within {self.timeout:g} s", None
        except httpx.HTTPError as error:
            return None, f"{type(error).__name__}: {error}", None
        status = response.status_code
        if status in AGAIN or status >= 500:
            return None, f"status {status}", _retry_after(response.headers.get("retry-after"))
        if status >= 400:
            told = " ".join(response.text.split())[:200]
            hint = f"set {self.key_variable}" if status in (401, 403) else "check url and model"
            raise UserError(
                f"{self.url} refused query {query.id!r} (status {status}: {told}): {hint}"
            )
        try:
            text = response.json()["choices"][0]["message"]["content"]
            composition = parse_answer(text, query)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            return None, f"an answer that is not what was asked for: {error}", None
        return composition, "", None

    def _messages(self, query: ComposedQuery) -> list[dict[str, Any]]:
        asked = self.prompts["several"].format(
            text=query.text, count=self.count, concept=query.concept
        )
        return [
            {"role": "system", "content": self.prompts["system"]},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": _data_url(query)}},
                    {"type": "text", "text": asked},
                ],
            },
        ]


def _data_url(query: ComposedQuery) -> str:
    image = load_picture(query.reference).convert("RGB")
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, at most a minute; None for dates and nonsense."""
    try:
        return min(60.0, max(0.0, float(value)))
    except (TypeError, ValueError):
        return None
