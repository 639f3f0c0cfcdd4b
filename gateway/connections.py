"""This node's connections, and how frames reach them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from gateway import close
from gateway.close import CloseReason
from gateway.codecs import gzip_compressor
from gateway.codecs.base import Codec, Response
from imserver import metrics
from imserver.actions.outgoing import MAX_OPERATION_ID_CHARS
from imserver.clock import now_ms

logger = logging.getLogger(__name__)

_ANSWERS_SENT = metrics.FRAMES_SENT.labels("answer")
_PUSHES_SENT = metrics.FRAMES_SENT.labels("push")

#: Share of the queue that may be full before its owner's own requests wait: they are answered into it.
CROWDED_SHARE = 0.25

#: Frames that one turn of the event loop queues; far fewer than a connection's queue holds.
FRAMES_PER_TURN = 32

AsgiSend = Callable[[dict[str, Any]], Awaitable[None]]


class WriteNow(Protocol):
    """Of servers that have it: writes a frame at once, or says that it cannot."""

    def __call__(self, frame: bytes, *, is_text: bool) -> bool: ...


class Connection:
    """One socket. What is queued before it is accepted waits for ``start``.

    Frames are written at once where the server can, and else by one task at a time, in the order they were queued, so
    writes never interleave. The queue is bounded in frames and bytes, and a reader that lets it fill up is cut off: it
    gets everything by pull when it comes back. A server holds up the writer while the client does not read, and cuts off
    one that has stopped altogether.
    """

    __slots__ = (
        "_answered",
        "_closing",
        "_deferred",
        "_is_accepted",
        "_most_bytes",
        "_most_frames",
        "_queue",
        "_queued_bytes",
        "_relieved",
        "_send",
        "_unanswered",
        "_write_now",
        "_writer",
        "codec",
        "has_synced",
        "id",
        "is_background",
        "is_compressed",
        "is_handling",
        "platform_id",
        "shows_repeats",
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
        queue_frames: int,
        queue_bytes: int,
        shows_repeats: bool = False,
        write_now: WriteNow | None = None,
    ) -> None:
        self.id = secrets.token_hex(8)
        self.user_id = user_id
        self.platform_id = platform_id
        self.token = token
        self.codec = codec
        self.is_compressed = is_compressed
        self.is_background = False
        #: Its client shows a message once more when it is pushed once more.
        self.shows_repeats = shows_repeats
        #: Its client has asked where its conversations end.
        self.has_synced = False
        self.since_ms = now_ms()
        self._send = send
        self._write_now = write_now
        self._most_frames = queue_frames
        self._most_bytes = queue_bytes
        self._queue: deque[dict[str, Any]] = deque()
        #: Of frames that are queued, deferred or being written.
        self._queued_bytes = 0
        self._is_accepted = False
        self._writer: asyncio.Task[None] | None = None
        self._closing = False
        #: Set when the last answer is out; there while the node goes away and requests are not answered.
        self._answered: asyncio.Event | None = None
        #: A request is being handled whose answer is not queued yet.
        self.is_handling = False
        self._unanswered: Counter[str] = Counter()
        self._deferred: deque[tuple[str, bytes]] = deque()
        #: There while somebody waits for the queue to empty.
        self._relieved: asyncio.Event | None = None

    @property
    def is_closing(self) -> bool:
        """Nothing more is taken; what was queued may still be written."""
        return self._closing

    @property
    def encoding(self) -> tuple[str, bool]:
        """Connections with the same encoding take the same bytes."""
        return self.codec.name, self.is_compressed

    def encode(self, response: Response) -> bytes:
        frame = self.codec.encode_response(response)
        return gzip_compressor.compress(frame) if self.is_compressed else frame

    def start(self) -> None:
        """The server has accepted the socket: write what has been queued."""
        self._is_accepted = True
        if self._queue:
            self._start_writer()

    @property
    def is_leaving(self) -> bool:
        """It takes no more requests."""
        return self._closing or self._answered is not None

    @property
    def is_crowded(self) -> bool:
        """Much of what was written is not read yet."""
        return (
            len(self._queue) + len(self._deferred) > self._most_frames * CROWDED_SHARE
            or self._queued_bytes > self._most_bytes * CROWDED_SHARE
        )

    async def relief(self) -> None:
        """Wait until enough was read, or the connection ends. So who sends without reading is held up, and not cut off."""
        while self.is_crowded and not self._closing:
            self._relieved = self._relieved or asyncio.Event()
            await self._relieved.wait()

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
                frame = self._deferred.popleft()[1]
                self._queued_bytes -= len(frame)
                self._enqueue(frame)
            if not self.is_crowded:
                self._relieve()
        self._close_if_answered()

    def handled(self) -> None:
        """The request that was being handled is through."""
        self.is_handling = False
        self._close_if_answered()

    def push(self, operation_id: str, frame: bytes) -> None:
        """Write a push, or keep it (and all behind it) until the answer of the same operation is out."""
        _PUSHES_SENT.inc()
        if self._deferred or operation_id in self._unanswered:
            self._deferred.append((operation_id, frame))
            self._queued_bytes += len(frame)
            if len(self._deferred) > self._most_frames or self._queued_bytes > self._most_bytes:
                self._cut_off()
        else:
            self._enqueue(frame)

    def push_now(self, frame: bytes) -> None:
        """Write a frame that waits for no answer: the connection is about to be closed."""
        _PUSHES_SENT.inc()
        self._enqueue(frame)

    def send_text(self, text: str) -> None:
        self._enqueue_event({"type": "websocket.send", "text": text})

    def close(self, reason: CloseReason) -> None:
        """Close after what is queued was written; a slow reader's queue is dropped.

        When the node goes away, requests that have begun are answered first, and no further ones are taken.
        """
        if self._closing:
            return
        if reason is close.RESTART and (self._unanswered or self.is_handling):
            self._answered = self._answered or asyncio.Event()
            return
        self._closing = True
        self._relieve()
        metrics.CLOSED.labels(reason.reason).inc()
        if reason is close.SLOW_READER:
            self._queue.clear()
        self._deferred.clear()
        self._queue.append({"type": "websocket.close", "code": reason.code, "reason": reason.reason})
        self._start_writer()

    def _close_if_answered(self) -> None:
        if self._answered is not None and not self._unanswered and not self.is_handling:
            self._end_waiting()
            self.close(close.RESTART)

    def _relieve(self) -> None:
        if self._relieved is not None:
            self._relieved.set()
            self._relieved = None

    def _end_waiting(self) -> None:
        if self._answered is not None:
            self._answered.set()

    def _cut_off(self) -> None:
        logger.warning("slow reader cut off", extra={"action": "slow_reader", "user_id": self.user_id})
        self.close(close.SLOW_READER)

    def lost(self, code: int | None) -> None:
        """The socket is gone; the server says with ``SLOW_READER`` that it had to abort it."""
        if code == close.SLOW_READER.code and not self._closing:
            self._cut_off()
        self._closing = True
        self._queue.clear()
        self._deferred.clear()
        self._unanswered.clear()
        self._relieve()
        self._end_waiting()

    def _enqueue(self, frame: bytes) -> None:
        is_text = self.codec.is_text and not self.is_compressed
        # Usually nothing is in the way, and a task for each frame would cost more than the frame.
        if self._is_free and self._is_written(frame, is_text=is_text):
            return
        if is_text:
            self._enqueue_event({"type": "websocket.send", "text": frame.decode()})
        else:
            self._enqueue_event({"type": "websocket.send", "bytes": frame})

    @property
    def _is_free(self) -> bool:
        """Nothing waits that a frame would overtake."""
        return self._writer is None and self._is_accepted and not self._queue and not self._closing

    def _is_written(self, frame: bytes, *, is_text: bool) -> bool:
        if self._write_now is None:
            return False
        try:
            return self._write_now(frame, is_text=is_text)
        except Exception as error:  # noqa: BLE001  (as in _write; whoever pushes to others as well must not stumble over it)
            self._fail(error)
            self._writer = asyncio.get_running_loop().create_task(self._end_broken())
            return True

    def _enqueue_event(self, event: dict[str, Any]) -> None:
        if self._closing:
            return
        size = _size(event)
        # A single frame may be larger than the limit: an answer is as long as what was asked for.
        if len(self._queue) >= self._most_frames or (
            self._queued_bytes and self._queued_bytes + size > self._most_bytes
        ):
            self._cut_off()
            return
        self._queue.append(event)
        self._queued_bytes += size
        self._start_writer()

    def _start_writer(self) -> None:
        # A task only while there is something to write: an idle connection costs none.
        if self._writer is None and self._is_accepted:
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._queue:
                event = self._queue.popleft()
                await self._send(event)
                self._queued_bytes -= _size(event)
                if self._relieved is not None and not self.is_crowded:
                    self._relieve()
        except Exception as error:  # noqa: BLE001  (servers raise what they like on a closed socket; the disconnect event follows)
            self._fail(error)
            await self._close_broken()
        finally:
            self._writer = None

    def _fail(self, error: Exception) -> None:
        self._queue.clear()
        self._closing = True
        self._relieve()
        logger.info("write failed", extra={"action": "write", "user_id": self.user_id, "error": repr(error)})

    async def _end_broken(self) -> None:
        try:
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
        """Wait until requests that have begun are answered, and everything that is queued was handed to the server."""
        if self._answered is not None:
            await self._answered.wait()
        while self._writer is not None:
            await asyncio.wait([self._writer])


def _size(event: dict[str, Any]) -> int:
    return len(event.get("bytes") or event.get("text") or b"")


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

    def count_of_user(self, user_id: str) -> int:
        return len(self._by_user.get(user_id, ()))

    def get(self, connection_id: str) -> Connection | None:
        return self._by_id.get(connection_id)

    def of_users(self, user_ids: Iterable[str]) -> list[Connection]:
        return [connection for user_id in user_ids for connection in self._by_user.get(user_id, {}).values()]

    def all(self) -> list[Connection]:
        return list(self._by_id.values())
