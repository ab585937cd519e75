"""The page's files, read once: what a request names is looked up, never opened."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

WEB = Path(__file__).parents[1] / "web"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy of the page: nothing inline, no other host."""


@dataclass(frozen=True)
class PageFile:
    """One file.

    Attributes:
        body: Its bytes.
        media_type: By its extension.
        tag: Of its content, for ``ETag``.
    """

    body: bytes
    media_type: str
    tag: str


def page_files(folder: Path = WEB) -> dict[str, PageFile]:
    """By path below ``folder``, with ``/`` between, all files of known types."""
    files = {}
    for path in sorted(folder.rglob("*")):
        media_type = MEDIA_TYPES.get(path.suffix)
        if media_type and path.is_file():
            body = path.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
            files[path.relative_to(folder).as_posix()] = PageFile(body, media_type, tag)
    return files
