"""This node's connections, and how frames reach them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from gateway import close
from gateway.close import CloseReason
from gateway.codecs import gzip_compressor
from gateway.codecs.base import Codec, Response
from imserver import metrics
from imserver.actions.send import MAX_OPERATION_ID_CHARS
from imserver.clock import now_ms

logger = logging.getLogger(__name__)

_ANSWERS_SENT = metrics.FRAMES_SENT.labels("answer")
_PUSHES_SENT = metrics.FRAMES_SENT.labels("push")

AsgiSend = Callable[[dict[str, Any]], Awaitable[None]]


class Connection:
    """One accepted socket.

    Frames are written by one task at a time, in the order they were queued, so writes never interleave; the queue is
    bounded, and a reader that lets it fill up is cut off: it gets everything by pull when it comes back.
    """

    __slots__ = (
        "_closing",
        "_deferred",
        "_limit",
        "_queue",
        "_send",
        "_unanswered",
        "_writer",
        "codec",
        "id",
        "is_background",
        "is_compressed",
        "platform_id",
        "since_ms",
        "token",
        "user_id",
    )

    def __init__(
        self,
        send: AsgiSend,
        *,
        user_id: str,
        platform_id: int,
        token: str,
        codec: Codec,
        is_compressed: bool,
        queue_limit: int,
    ) -> None:
        self.id = secrets.token_hex(8)
        self.user_id = user_id
        self.platform_id = platform_id
        self.token = token
        self.codec = codec
        self.is_compressed = is_compressed
        self.is_background = False
        self.since_ms = now_ms()
        self._send = send
        self._limit = queue_limit
        self._queue: deque[dict[str, Any]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._closing = False
        self._unanswered: Counter[str] = Counter()
        self._deferred: deque[tuple[str, bytes]] = deque()

    @property
    def encoding(self) -> tuple[str, bool]:
        """Connections with the same encoding take the same bytes."""
        return self.codec.name, self.is_compressed

    def encode(self, response: Response) -> bytes:
        frame = self.codec.encode_response(response)
        return gzip_compressor.compress(frame) if self.is_compressed else frame

    # -- answers and pushes

    def expect_answer(self, operation_id: str) -> None:
        """A send is on its way to the log: its own push must not overtake its answer."""
        self._unanswered[operation_id[:MAX_OPERATION_ID_CHARS]] += 1

    def answer(self, response: Response, *, expected: bool = False) -> None:
        """Write an answer; then the pushes that waited for it."""
        self._enqueue(self.encode(response))
        _ANSWERS_SENT.inc()
        if expected:
            operation_id = response.operation_id[:MAX_OPERATION_ID_CHARS]
            self._unanswered[operation_id] -= 1
            if self._unanswered[operation_id] <= 0:
                del self._unanswered[operation_id]
            while self._deferred and self._deferred[0][0] not in self._unanswered:
                self._enqueue(self._deferred.popleft()[1])

    def push(self, operation_id: str, frame: bytes) -> None:
        """Write a push, or keep it (and all behind it) until the answer of the same operation is out."""
        _PUSHES_SENT.inc()
        if self._deferred or operation_id in self._unanswered:
            self._deferred.append((operation_id, frame))
            if len(self._deferred) > self._limit:
                self.close(close.SLOW_READER)
        else:
            self._enqueue(frame)

    def push_now(self, frame: bytes) -> None:
        """Write a frame that waits for no answer: the connection is about to be closed."""
        _PUSHES_SENT.inc()
        self._enqueue(frame)

    def send_text(self, text: str) -> None:
        self._enqueue_event({"type": "websocket.send", "text": text})

    def close(self, reason: CloseReason) -> None:
        """Close after what is queued was written; a slow reader's queue is dropped."""
        if self._closing:
            return
        self._closing = True
        metrics.CLOSED.labels(reason.reason).inc()
        if reason is close.SLOW_READER:
            self._queue.clear()
        self._queue.append({"type": "websocket.close", "code": reason.code, "reason": reason.reason})
        self._start_writer()

    def _enqueue(self, frame: bytes) -> None:
        if self.codec.is_text and not self.is_compressed:
            self._enqueue_event({"type": "websocket.send", "text": frame.decode()})
        else:
            self._enqueue_event({"type": "websocket.send", "bytes": frame})

    def _enqueue_event(self, event: dict[str, Any]) -> None:
        if self._closing:
            return
        if len(self._queue) >= self._limit:
            logger.warning("slow reader cut off", extra={"action": "slow_reader", "user_id": self.user_id})
            self.close(close.SLOW_READER)
            return
        self._queue.append(event)
        self._start_writer()

    def _start_writer(self) -> None:
        # A task only while there is something to write: an idle connection costs none.
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._queue:
                await self._send(self._queue.popleft())
        except Exception as error:  # noqa: BLE001  (servers raise what they like on a closed socket; the disconnect event follows)
            self._queue.clear()
            self._closing = True
            logger.info("write failed", extra={"action": "write", "user_id": self.user_id, "error": repr(error)})
            await self._close_broken()
        finally:
            self._writer = None

    async def _close_broken(self) -> None:
        """An open socket that no longer gets anything is worse than a closed one: its client would never come back."""
        reason = close.INTERNAL_ERROR
        try:
            await self._send({"type": "websocket.close", "code": reason.code, "reason": reason.reason})
        except Exception as error:  # noqa: BLE001  (it is closed already: that is what we wanted)
            logger.debug("already closed", extra={"user_id": self.user_id, "error": repr(error)})

    async def drained(self) -> None:
        """Wait until everything that is queued was handed to the server."""
        while self._writer is not None:
            await asyncio.wait([self._writer])


class ConnectionTable:
    """Connections of this node by user."""

    def __init__(self) -> None:
        self._by_user: dict[str, dict[str, Connection]] = defaultdict(dict)
        self._by_id: dict[str, Connection] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def user_count(self) -> int:
        return len(self._by_user)

    def add(self, connection: Connection) -> None:
        self._by_user[connection.user_id][connection.id] = connection
        self._by_id[connection.id] = connection

    def remove(self, connection: Connection) -> None:
        self._by_id.pop(connection.id, None)
        of_user = self._by_user.get(connection.user_id)
        if of_user is not None:
            of_user.pop(connection.id, None)
            if not of_user:
                del self._by_user[connection.user_id]

    def get(self, connection_id: str) -> Connection | None:
        return self._by_id.get(connection_id)

    def of_users(self, user_ids: Iterable[str]) -> list[Connection]:
        return [connection for user_id in user_ids for connection in self._by_user.get(user_id, {}).values()]

    def all(self) -> list[Connection]:
        return list(self._by_id.values())
