"""/stored: what the local store's signed URLs lead to. No operationID and no token: the signature says what is allowed.

Parts come through ``PartReceiver`` and not through a view, because Django keeps a whole body before it calls one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from imserver.objects.base import MOST_BODY_BYTES
from imserver.objects.local import (
    FILE_PATH,
    FORM_PATH,
    PART_PATH,
    PartRefused,
    PartWriter,
    UploadGone,
    local_store,
)
from imserver.objects.signing import SignatureRefused, check_path
from imserver.rest.decorators import CORS_HEADERS

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 256 * 1024
_REFUSALS: dict[type[Exception], int] = {SignatureRefused: 403, UploadGone: 410, PartRefused: 400}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
#: Nothing of a file may run, wherever a browser opens it.
_HEADERS = {
    **CORS_HEADERS,
    "Access-Control-Expose-Headers": "ETag, Content-Length, Content-Range, Content-Disposition",
    "Content-Security-Policy": "sandbox; default-src 'none'; media-src 'self'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Referrer-Policy": "no-referrer",
}

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
#: Any: the frameworks' types of the three differ.
Application = Callable[[Any, Any, Any], Awaitable[None]]


def _plain(status: int, text: str, **headers: str) -> HttpResponse:
    return HttpResponse(f"{text}\n", status=status, content_type="text/plain", headers={**_HEADERS, **headers})


# -- reading


@csrf_exempt
async def read_file(request: HttpRequest, key: str) -> HttpResponseBase:
    """A file, or the range of it that is asked for."""
    if request.method == "OPTIONS":
        return HttpResponse(status=200, headers=CORS_HEADERS)
    if request.method not in ("GET", "HEAD"):
        return _plain(405, "use GET", Allow="GET, HEAD, OPTIONS")
    query = {name: str(value) for name, value in request.GET.items()}
    try:
        check_path(f"{FILE_PATH}/{key}", query)
        path = local_store().path_of(key)
        size = (await asyncio.to_thread(path.stat)).st_size
    except SignatureRefused as error:
        return _plain(403, str(error))
    except (FileNotFoundError, ValueError):
        return _plain(404, "there is no such file")
    return _present(request, path, size, query, f'"{key}"')


def _present(request: HttpRequest, path: Path, size: int, query: dict[str, str], etag: str) -> HttpResponseBase:
    kind = "inline" if query["inline"] == "1" else "attachment"
    headers = {
        **_HEADERS,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=3600, immutable",
        "Content-Disposition": f"{kind}; filename*=UTF-8''{quote(query['name'], safe='')}",
        "ETag": etag,
    }
    if etag in request.headers.get("If-None-Match", ""):
        return HttpResponse(status=304, headers=headers)
    begin, end, status = 0, size, 200
    if request.headers.get("If-Range", etag) == etag and (asked := _RANGE.fullmatch(request.headers.get("Range", ""))):
        begin, end = _bounds(asked[1], asked[2], size)
        if begin >= end:
            return _plain(416, "no such range", **{"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        status = 206
    headers["Content-Length"] = str(end - begin)
    if request.method == "HEAD":
        return HttpResponse(status=status, content_type=query["type"], headers=headers)
    chunks = _read(path, begin, end)
    return StreamingHttpResponse(chunks, status=status, content_type=query["type"], headers=headers)


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """First byte and the one after the last; nothing between them when the range is none."""
    if first:
        return int(first), min(int(last) + 1, size) if last else size
    return (max(size - int(last), 0), size) if last else (0, 0)


async def _read(path: Path, begin: int, end: int) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    try:
        file.seek(begin)
        left = end - begin
        while left and (chunk := await asyncio.to_thread(file.read, min(left, _CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk
    finally:
        file.close()


# -- uploading by a form


@csrf_exempt
async def take_form(request: HttpRequest, key: str) -> HttpResponse:
    """One file, in the field ``file`` of a form, of exactly the size that was announced."""
    if request.method == "OPTIONS":
        return HttpResponse(status=200, headers=CORS_HEADERS)
    if request.method != "POST":
        return _plain(405, "use POST", Allow="POST, OPTIONS")
    query = {name: str(value) for name, value in request.GET.items()}
    try:
        check_path(f"{FORM_PATH}/{key}", query)
    except SignatureRefused as error:
        return _plain(403, str(error))
    file = request.FILES.get("file")
    if not isinstance(file, UploadedFile):
        return _plain(400, "the form has no file")
    if file.size != int(query["size"]):
        return _plain(400, f"the file must have {query['size']} bytes")
    await asyncio.to_thread(local_store().take_form, key, file)
    return _plain(200, "taken")


# -- uploading a part


class PartReceiver:
    """In front of the web application: takes parts as they arrive, and refuses bodies that nobody would read."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MOST_BODY_BYTES:
            await _answer(send, 413, "the body is too large")
        elif scope["path"].startswith(f"{PART_PATH}/"):
            await _receive_part(scope, receive, send)
        else:
            await self._application(scope, _limited(receive), send)


def _limited(receive: Receive) -> Receive:
    """A body without a declared length ends, as if the client had hung up, where it gets too long."""
    received = 0

    async def limited() -> dict[str, Any]:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return message if received <= MOST_BODY_BYTES else {"type": "http.disconnect"}

    return limited


class _Body:
    """A request's body, a chunk at a time."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = MOST_BODY_BYTES
        self._is_read = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises PartRefused when the client hangs up, or never ends."""
        while not self._is_read:
            message = await self._receive()
            chunk = message.get("body", b"")
            self._left -= len(chunk)
            self._is_read = not message.get("more_body", False) or self._left < 0
            if message["type"] == "http.disconnect" or self._left < 0:
                raise PartRefused("the part did not end")
            yield chunk

    async def skip(self) -> None:
        """Read what is left: who is cut off in the middle of sending does not see the answer."""
        with contextlib.suppress(PartRefused):
            async for _ in self.chunks():
                pass


async def _receive_part(scope: Scope, receive: Receive, send: Send) -> None:
    body = _Body(receive)
    status, text, etag = await _take_part(scope, body)
    await body.skip()
    await _answer(send, status, text, etag)


async def _take_part(scope: Scope, body: _Body) -> tuple[int, str, str]:
    """(status, text, ETag) of the answer."""
    if scope["method"] == "OPTIONS":
        return 200, "", ""
    if scope["method"] != "PUT":
        return 405, "use PUT", ""
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    try:
        check_path(scope["path"], query)
        upload_id, number = scope["path"].removeprefix(f"{PART_PATH}/").split("/")
        with local_store().receive_part(upload_id, int(number), int(query["size"])) as writer:
            async for chunk in body.chunks():
                await _write(writer, chunk)
            # Waits for the disk.
            await asyncio.to_thread(writer.finish)
    except (SignatureRefused, UploadGone, PartRefused) as error:
        return _REFUSALS[type(error)], str(error), ""
    except OSError as error:
        logger.error("part cannot be kept", extra={"action": "objects", "reason": error.strerror})
        return 507, "the disk refuses", ""
    return 200, "", writer.md5


async def _write(writer: PartWriter, chunk: bytes) -> None:
    # Small chunks cost less than a thread; the kernel's cache takes both.
    if len(chunk) > _CHUNK_BYTES:
        await asyncio.to_thread(writer.write, chunk)
    else:
        writer.write(chunk)


async def _answer(send: Send, status: int, text: str, etag: str = "") -> None:
    body = text.encode()
    headers = {
        **CORS_HEADERS,
        "Access-Control-Expose-Headers": "ETag",
        "Content-Type": "text/plain",
        "Content-Length": str(len(body)),
        **({"ETag": f'"{etag}"'} if etag else {}),
        # The body was not read.
        **({"Connection": "close"} if status == 413 else {}),
    }
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
