"""The routes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from freestyle import __version__
from freestyle.search.server import metrics, schema
from freestyle.search.server.guard import Guard
from freestyle.search.server.limits import Limits
from freestyle.search.server.page import PageFile, page_files
from freestyle.search.server.photos import Original, not_found
from freestyle.search.server.receiving import receive
from freestyle.search.server.refusal import busy
from freestyle.search.server.service import Service

if TYPE_CHECKING:
    from freestyle.search.searcher import Searcher

PICTURE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
PICTURE_AGE = "private, max-age=3600"


def create_app(
    searcher: Searcher,
    *,
    limits: Limits | None = None,
    token: str = "",
    hosts: Iterable[str] = (),
    origins: Iterable[str] = (),
    decoders: int = 0,
    log: bool = False,
) -> FastAPI:
    """The server of one index.

    Args:
        searcher: Answers the queries; closed at the end.
        limits: What is refused; the defaults where None.
        token: That requests must bear; none where empty.
        hosts: Further names of this server; see :class:`Guard`.
        origins: Origins of other pages that may search; none by default.
        decoders: Decoding processes; by the number of cores where 0.
        log: Whether to log a line per request, without what was asked.
    """
    limits = limits or Limits()
    service = Service(searcher, limits, decoders)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await service.start()
        except Exception as error:
            service.failure = error
            raise
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="freestyle",
        version=__version__,
        description="Find a photo with words, a sketch, a picture, or all together.",
        lifespan=lifespan,
        docs_url=None,  # it would load scripts of another host
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the request's Host header
    )
    app.state.service = service
    app.state.page = page_files()
    app.state.token = bool(token)
    _add_routes(app)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_middleware(
        Guard,
        limits=limits,
        metrics=service.metrics,
        token=token,
        hosts=list(hosts),
        origins=list(origins),
        closing=lambda: service.closing,
        log=log,
    )
    if origins := list(origins):
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _add_routes(app: FastAPI) -> None:
    plain: dict[str, Any] = {"response_class": Response}
    app.get("/", include_in_schema=False, **plain)(page)
    app.get("/static/{name:path}", include_in_schema=False, **plain)(static)
    app.get("/healthz", responses={200: {"model": schema.HealthAnswer}})(health)
    app.get("/info", responses={200: {"model": schema.InfoAnswer}})(info)
    app.get("/metrics", **plain)(prometheus)
    missing = {404: schema.ERRORS[404], 503: schema.ERRORS[503]}
    for path, function, kind in (
        ("/image/{id}", image, "image/*"),
        ("/thumbnail/{id}", thumbnail, "image/webp"),
    ):
        content = {200: {"content": {kind: {}}}}
        app.get(path, responses={**content, **missing}, **plain)(function)
    app.post(
        "/search",
        responses={200: {"model": schema.SearchAnswer}, **schema.ERRORS},
        openapi_extra={"requestBody": schema.body_schema()},
    )(search)


async def search(request: Request) -> Response:
    """Find photos by texts, pictures and photos of the index, together."""
    start = time.perf_counter()
    service: Service = request.app.state.service
    received = await receive(request.headers, request.stream(), service.limits)
    work = asyncio.create_task(service.answer(received, start))
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait(
            {work, gone}, timeout=service.limits.seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if work.done():
            return _json(work.result())
        if gone.done():
            raise ClientDisconnect
        raise busy("the search took too long", "timeout")
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def image(request: Request, id: str) -> Response:
    """The photo itself, where it is at hand."""
    original = await request.app.state.service.photos.original(id)
    return _OriginalResponse(original, request.headers.get("if-none-match"))


async def thumbnail(request: Request, id: str) -> Response:
    """A small WebP of the photo."""
    body = await request.app.state.service.photos.thumbnail(id)
    headers = {"Cache-Control": PICTURE_AGE, "Content-Security-Policy": PICTURE_POLICY}
    return Response(body, media_type="image/webp", headers=headers)


async def page(request: Request) -> Response:
    """The page."""
    return _page_file(request, "index.html")


async def static(request: Request, name: str) -> Response:
    """A file of the page."""
    return _page_file(request, name)


async def health(request: Request) -> Response:
    """Whether searches are answered."""
    service: Service = request.app.state.service
    status = service.status
    values = {"status": status, "photos": service.count}
    return JSONResponse(values, 200 if status == "ok" else 503)


async def info(request: Request) -> Response:
    """What is served."""
    service: Service = request.app.state.service
    values = await service.photos.describe()
    more = {"limits": service.limits.public(), "token": request.app.state.token}
    return JSONResponse({**values, "styles": service.styles, **more})


async def prometheus(request: Request) -> Response:
    """Counts and times for Prometheus."""
    return Response(request.app.state.service.metrics.text(), media_type=metrics.CONTENT_TYPE)


class _OriginalResponse(Response):
    """Sends an original piece by piece and closes it, however that ends."""

    def __init__(self, original: Original, known_tag: str | None) -> None:
        self.original = original
        same = known_tag == original.tag
        headers = {
            "ETag": original.tag,
            "Cache-Control": PICTURE_AGE,
            "Content-Security-Policy": PICTURE_POLICY,
        }
        super().__init__(None, 304 if same else 200, headers, original.media_type)
        if not same:
            self.headers["Content-Length"] = str(original.size)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            head = {"type": "http.response.start", "status": self.status_code}
            await send({**head, "headers": self.raw_headers})
            if self.status_code == 200:
                async for piece in self.original.chunks():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.original.file.close()


def _page_file(request: Request, name: str) -> Response:
    file: PageFile | None = request.app.state.page.get(name)
    if file is None:
        raise not_found("there is no such file")
    headers = {"ETag": file.tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(values: dict[str, Any]) -> Response:
    try:
        body = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:  # a column of the user's own may hold what JSON has no word for
        body = json.dumps(_finite(values), ensure_ascii=False, separators=(",", ":"))
    return Response(body.encode("utf-8", "replace"), media_type="application/json")


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


async def _no_route(_: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    sentences = {404: "there is nothing at this path", 405: "this path has no such method"}
    sentence = sentences.get(status, "the request is malformed")
    return JSONResponse({"error": sentence}, status, headers=getattr(error, "headers", None))


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        values = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        components = values.setdefault("components", {})
        components.setdefault("schemas", {}).update(schema.component_schemas())
        if app.state.token:
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            values["security"] = [{"token": []}]
        app.openapi_schema = values
    return app.openapi_schema
