"""HTTP under Daphne: bodies that are too long are refused before they are kept, and answers wait for slow readers.

Daphne keeps the whole of a request before anybody sees it, and what a reader has not taken yet. Knows nothing of Daphne itself:
the protocol of daphne_protocol.py is made of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from imserver.objects.base import MOST_BODY_BYTES

Send = Callable[[dict[str, Any]], Awaitable[None]]


class PacedRequest:
    """Goes before Twisted's request among the bases."""

    channel: Any
    producer: Any
    _received = 0
    _is_refused = False
    _can_write: asyncio.Event | None = None

    # -- the body

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        is_too_long = (length or 0) > MOST_BODY_BYTES
        super().gotLength(0 if is_too_long else length)  # type: ignore[misc]
        if is_too_long:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        self._received += len(data)
        if self._is_refused:
            return
        if self._received > MOST_BODY_BYTES:
            self._refuse()
        else:
            super().handleContentChunk(data)  # type: ignore[misc]

    def _refuse(self) -> None:
        self._is_refused = True
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        self.channel.transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Length: 0\r\nAccess-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n"
            % (status, status.phrase.encode())
        )
        self.channel.loseConnection()

    def process(self) -> Any:
        return None if self._is_refused else super().process()  # type: ignore[misc]

    # -- the answer

    def handle_reply(self, message: dict[str, Any]) -> None:
        is_first_part = message["type"] == "http.response.body" and message.get("more_body") and not self._can_write
        if is_first_part and self.channel is not None:
            self._can_write = asyncio.Event()
            self._can_write.set()
            self.registerProducer(self, True)  # type: ignore[attr-defined]
        super().handle_reply(message)  # type: ignore[misc]

    async def until_taken(self) -> None:
        """Wait while the reader is behind."""
        if self._can_write is not None:
            await self._can_write.wait()

    def pauseProducing(self) -> None:  # noqa: N802
        if self._can_write is not None:
            self._can_write.clear()

    def resumeProducing(self) -> None:  # noqa: N802
        if self._can_write is not None:
            self._can_write.set()

    def stopProducing(self) -> None:  # noqa: N802
        self.resumeProducing()

    def finish(self) -> None:
        if self.producer is self and self.channel is not None:
            self.unregisterProducer()
        super().finish()  # type: ignore[misc]

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        self.resumeProducing()
        super().connectionLost(reason)  # type: ignore[misc]


def paced(request: PacedRequest, send: Send) -> Send:
    """The application's side: an answer in parts goes on when the reader has room for it."""

    async def send_paced(message: dict[str, Any]) -> None:
        await send(message)
        await request.until_taken()

    return send_paced
