"""What strangers may send: each number is one request, the same every time.

A case is the bytes for the socket, so that nothing between here and the server tidies it up.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import struct
import zipfile
import zlib
from dataclasses import dataclass

from gallery import COLOURS, draw, encode
from PIL import Image

WORDS = (
    "red", "green sea", "", " ", "\u0000", "\u202e evil", "𝕬" * 50, "é" * 400, "\ud800", "🙈👨‍👩‍👧",
    "' OR 1=1; --", "../../etc/passwd", "<script>alert(1)</script>", "%s%n{0}${x}", "a" * 5000,
)  # fmt: skip
NUMBERS = (0, -0.0, 1, -1, 1e-300, 1e300, 2**63, -(2**70), 10**400, 0.1, True, None, "1", [], {})
CONSTANTS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "0x10",
    "01",
    "1.",
    "+1",
    "1" * 5000,
)
PATHS = (
    "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/", "....//....//", "/etc/passwd",
    "%00", "%0d%0aX:1", "\\..\\..\\windows", "C:%5c", "~root", "%c0%ae%c0%ae/", "%ff%fe",
    "a" * 3000, "file:///etc/passwd", "http://127.0.0.1/", ";id", "?id=1", "index.html/", ".",
    "..", "",
)  # fmt: skip
HEADERS = (
    "Content-Type: application/json; charset=utf-16", "Content-Type: multipart/form-data",
    "Content-Type: multipart/form-data; boundary=", "Content-Type: image/png",
    "Content-Type: multipart/form-data; boundary=" + "b" * 300, "Content-Type: \u00ff",
    "Content-Encoding: gzip", "Transfer-Encoding: gzip, chunked", "Host: evil.example",
    "Host: localhost@evil.example", "Host: ", "Origin: https://evil.example", "Origin: null",
    "Authorization: Bearer " + "x" * 4000, "X-Forwarded-For: 1.2.3.4, ' OR 1=1",
    "X-Forwarded-Host: evil.example", "Range: bytes=-1,-2,0-999999999999",
    "Cookie: " + "a=b;" * 900,
    "If-None-Match: " + '"x",' * 500, "Upgrade: websocket\r\nConnection: Upgrade", "Expect: x",
    "Connection: close, keep-alive", "X-HTTP-Method-Override: DELETE", "A: b\r\n c: d",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes:
        family: What it tries.
        data: For the socket.
        good: Whether it must be answered with 200.
        answered: Whether it must be answered at all: what is no HTTP need not be.
    """

    family: str
    data: bytes
    good: bool = False
    answered: bool = True


def make_case(number: int, seed: int = 0) -> Case:
    """The case of a number."""
    rng = random.Random(f"{seed} {number}")
    family = FAMILIES[number % len(FAMILIES)]
    return family(rng)


# -- building ----------------------------------------------------------------------------------


def post(body: bytes, kind: str = "application/json", *extra: str) -> bytes:
    lines = ["POST /search HTTP/1.1", *extra]
    if not any(line.lower().startswith("host:") for line in extra):
        lines.append("Host: localhost")
    if not any(line.lower().startswith("content-type:") for line in extra):
        lines.append(f"Content-Type: {kind}")
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


def get(path: str, *extra: str, method: str = "GET") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *extra]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"


def form(request: str, pictures: dict[str, bytes], name: str = "x.png") -> tuple[bytes, str]:
    """Body and content type."""
    boundary = "------------------------d74496d66958873e"
    pieces = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="request"\r\n\r\n{request}\r\n'
    ]
    body = pieces[0].encode("utf-8", "surrogatepass")
    for field, data in pictures.items():
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
            "Content-Type: image/png\r\n\r\n"
        )
        body += head.encode("utf-8", "surrogatepass") + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def picture(rng: random.Random) -> bytes:
    kind = rng.choice(("JPEG", "PNG", "WEBP", "GIF", "BMP"))
    return encode(draw(rng.choice(list(COLOURS)), rng.randrange(5), rng.randrange(1, 90)), kind)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Flip, cut, double, splice."""
    data = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        if not data:
            return b""
        place, length = rng.randrange(len(data)), rng.randrange(1, 40)
        match rng.randrange(5):
            case 0:
                data[place] = rng.randrange(256)
            case 1:
                del data[place:]
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = data[place : place + length] * rng.randrange(1, 9)
            case 4:
                data[place : place + length] = rng.randbytes(length)
    return bytes(data)


def send_picture(rng: random.Random, data: bytes, family: str) -> Case:
    if rng.random() < 0.3:
        part = {"image": base64.b64encode(data).decode()}
        return Case(family, post(json.dumps({"parts": [part]}).encode()))
    name = rng.choice(("x.png", "../../x", "x.php\x00.png", "é🙈" * 20, "a" * 2000, 'q"; name="b'))
    body, kind = form(json.dumps({"parts": [{"file": "a"}]}), {"a": data}, name)
    return Case(family, post(body, kind))


# -- families ----------------------------------------------------------------------------------


def good(rng: random.Random) -> Case:
    parts: list[dict] = [{"text": rng.choice(("red", "green sea", "🙈", "ünï"))}]
    pictures = {}
    if rng.random() < 0.5:
        parts.append({"file": "a", "weight": rng.random() + 0.1})
        pictures["a"] = picture(rng)
    request = json.dumps({"parts": parts, "top": rng.randrange(1, 50)})
    if pictures:
        body, kind = form(request, pictures)
        return Case("good", post(body, kind), good=True)
    return Case("good", post(request.encode()), good=True)


def values(rng: random.Random) -> Case:
    """JSON of the right shape with odd values, and of wrong shapes."""
    part: dict = {rng.choice(("text", "image", "photo", "file", "path")): rng.choice(WORDS)}
    for key in ("weight", "exclude", "name", "__proto__"):
        if rng.random() < 0.4:
            part[key] = rng.choice((*NUMBERS, *WORDS))
    request: dict = {"parts": [part] * rng.choice((0, 1, 1, 1, 2, 9, 300))}
    for key in ("top", "rerank", "where", "parts", "fields"):
        if rng.random() < 0.3:
            request[key] = rng.choice((*NUMBERS, list(WORDS[:3]), [part]))
    text = json.dumps(request, ensure_ascii=rng.random() < 0.5)
    return Case("values", post(text.encode("utf-8", "surrogatepass")))


def conditions(rng: random.Random) -> Case:
    columns = ("folder", "date", "width", "caption", "origin", "nothing", "1", "", "'")
    signs = ("=", ">=", "under", "contains", "in", "==", "LIKE", ";", "")
    where = [
        f"{rng.choice(columns)} {rng.choice(signs)} {rng.choice((*WORDS, *CONSTANTS))}"
        for _ in range(rng.randrange(1, 4))
    ]
    text = json.dumps({"parts": [{"text": "red"}], "where": where})
    return Case("conditions", post(text.encode()))


def constants(rng: random.Random) -> Case:
    key = rng.choice(("weight", "top", "rerank"))
    inner = f'"{key}": {rng.choice(CONSTANTS)}'
    text = '{"parts": [{"text": "red"%s}]%s}'
    text = text % ((f", {inner}", "") if key == "weight" else ("", f", {inner}"))
    return Case("constants", post(text.encode()))


def huge(rng: random.Random) -> Case:
    size = rng.choice((1000, 20_000, 300_000))
    body = rng.choice(
        (
            b"[" * size,
            b'{"parts":' * (size // 9),
            b'{"parts": [' + b'{"text": "a"},' * (size // 14) + b'{"text": "a"}]}',
            b'{"parts": [{"text": "' + b"a" * size + b'"}]}',
            b'{"parts": [{"image": "' + b"A" * size + b'"}]}',
            b"{" + b",".join(b'"%d": 0' % i for i in range(size // 10)) + b"}",
            b'{"parts": [{"text": "red"}], "top": ' + b"9" * size + b"}",
            b'{"parts": [{"text": "' + b"\\u0000" * (size // 6) + b'"}]}',
            b" " * size,
        )
    )
    return Case("huge", post(body))


def broken_json(rng: random.Random) -> Case:
    text = json.dumps({"parts": [{"text": "red", "weight": 1.5}], "top": 5, "where": []})
    return Case("broken json", post(mutate(rng, text.encode())))


def broken_form(rng: random.Random) -> Case:
    body, kind = form('{"parts": [{"file": "a"}]}', {"a": picture(rng)})
    match rng.randrange(6):
        case 0:
            body = mutate(rng, body)
        case 1:
            kind = rng.choice(("multipart/form-data", kind + "x", kind.replace("=", ""), kind[:40]))
        case 2:
            kind = f"multipart/form-data; boundary={rng.choice(WORDS[1:8])}"
        case 3:
            boundary = kind.partition("=")[2].encode()
            junk = b"--%s\r\nContent-Disposition: form-data; name=%s\r\n\r\n\r\n"
            name = rng.choice((b"a", b'"request"', b'"\xff\xfe"', b'"' + b"n" * 3000 + b'"'))
            body = junk % (boundary, name) * rng.randrange(1, 400) + body
        case 4:
            header = rng.choice((b"A: " + b"b" * 9000, b"A: b\r\n" * 300, b"\x00: \xff", b":"))
            body = body.replace(b"Content-Type: image/png", header)
        case 5:
            end = rng.choice((b"", b"--", b"\r\n\r\n", b"\r" * 50_000, b"--x--" * 9000))
            body = body[: rng.randrange(len(body))] + end
    return Case("broken form", post(body, kind))


def broken_picture(rng: random.Random) -> Case:
    return send_picture(rng, mutate(rng, picture(rng)), "broken picture")


def polyglot(rng: random.Random) -> Case:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../evil", b"x" * 100)
    tails = (b"<html><script>alert(1)</script>", b"<?php system('id'); ?>", archive.getvalue(),
             b"%PDF-1.7", b"\x7fELF" + bytes(64), b"GIF89a/*", b"\xff\xd8\xff\xe0")  # fmt: skip
    first, second = picture(rng), rng.choice((*tails, picture(rng)))
    data = rng.choice((first + second, second + first, first[:20] + second, second[:12] + first))
    return send_picture(rng, data, "polyglot")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(rng: random.Random) -> Case:
    w, h = rng.choice(((60_000, 60_000), (2**31 - 1, 1), (1, 2**31 - 1), (0, 0), (7000, 7000)))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 6, 0, 0, 0))
    rows = chunk(b"IDAT", ZEROS)
    short = struct.pack("<HH", min(w, 65535), min(h, 65535))
    jpeg = bytearray(encode(draw("red", 0, 16), "JPEG"))
    frame = jpeg.find(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", min(h, 65535), min(w, 65535))
    vp8x = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\xff" * 2
    tiff = b"II*\x00\x08\x00\x00\x00" + struct.pack("<HHHII", 1, 256, 4, 1, 2**31) + bytes(4)
    bitmap = struct.pack("<2sIIIIiiHHIIiiII", b"BM", 99, 0, 54, 40, w % 2**31, h % 2**31, 1, 24,
                         0, 0, 0, 0, 0, 0)  # fmt: skip
    data = rng.choice(
        (
            png + rows + chunk(b"IEND", b""),
            png + chunk(b"zTXt", b"a\x00\x00" + ZEROS) + rows,
            png + chunk(b"iCCP", b"a\x00\x00" + ZEROS) + rows,
            png + chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + rows,
            png + struct.pack(">I", 2**31 - 1) + b"IDAT" + b"x",
            b"GIF89a" + short + b"\x80\x00\x00" + bytes(6) + b"," + bytes(4) + short + b"\x00\x02",
            b"RIFF" + struct.pack("<I", 30) + b"WEBP" + vp8x,
            bytes(jpeg),
            tiff,
            bitmap + bytes(100),
            gzip.compress(bytes(1 << 20)),
            FRAMES,
            b"",
        )
    )
    return send_picture(rng, data, "bomb")


def path(rng: random.Random) -> Case:
    start = rng.choice(("/image/", "/thumbnail/", "/static/", "/", "/search/", "/metrics/"))
    target = start + "".join(rng.choice(PATHS) for _ in range(rng.randrange(1, 3)))
    target = target.replace(" ", "%20")
    method = rng.choice(("GET", "GET", "GET", "HEAD", "PUT", "DELETE", "TRACE", "OPTIONS", "X"))
    return Case("path", get(target, method=method))


def header(rng: random.Random) -> Case:
    extra = rng.sample(HEADERS, rng.randrange(1, 4))
    if rng.random() < 0.5:
        return Case("header", get(rng.choice(("/", "/info", "/healthz", "/metrics")), *extra))
    body = b'{"parts": [{"text": "red"}]}'
    return Case("header", post(body, "application/json", *extra))


def raw(rng: random.Random) -> Case:
    whole = post(b'{"parts": [{"text": "red"}]}')
    data = rng.choice(
        (
            rng.randbytes(rng.randrange(1, 2000)),
            mutate(rng, whole),
            whole[: rng.randrange(1, len(whole))],
            whole.replace(b"Content-Length: 28", b"Transfer-Encoding: chunked"),
            whole.replace(b"Content-Length: 28", b"Content-Length: 28\r\nContent-Length: 29"),
            whole.replace(b"Content-Length: 28", b"Content-Length: 99999999999999999999"),
            whole * 3,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(60),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            get("/" + "a" * 40_000),
        )
    )
    return Case("raw", data, answered=False)


def _frames() -> bytes:
    images = [Image.new("L", (40, 40), shade) for shade in range(200)]
    return encode(images[0], "GIF", save_all=True, append_images=images[1:])


ZEROS = zlib.compress(bytes(8 << 20), 9)
FRAMES = _frames()
FAMILIES = (
    good, values, conditions, constants, broken_json, broken_form, broken_picture, broken_picture,
    polyglot, bomb, path, path, header, raw, huge,
)  # fmt: skip
