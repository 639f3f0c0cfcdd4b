"""What uvicorn leaves open: time-outs for clients that do not finish their request, do not read, or never go away; a bound
on what one read may put into memory; and one look at all connections a second instead of timers for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState

from imserver.conf import get_config
from imserver.constants import SLOW_READER_CODE
from imserver.server_limits import (
    CHECK_SECONDS,
    CLOSE_SECONDS,
    PING_INTERVAL_SECONDS,
    PING_TIMEOUT_SECONDS,
    WRITE_NOW_EXTENSION,
)

if TYPE_CHECKING:
    from websockets.http11 import Request

logger = logging.getLogger(__name__)

Hook = Callable[[], Awaitable[None]]

#: How old the date may be that answers over HTTP carry.
DATE_SECONDS = 1.0
#: A read may bring 256 KiB of tiny frames, each of which costs a hundred times its size; they are taken apart in portions.
PARSE_BYTES = 16_384
#: Small messages of one client that wait to be handled, then nothing more is read. Stopping for each one, as uvicorn does,
#: costs two system calls a message.
MOST_UNHANDLED = 8
#: Connections that are looked at without letting anybody else run.
CHECKED_AT_ONCE = 1000


class _Closing:
    """Aborts a socket that was closed and whose peer does not take the last bytes."""

    transport: asyncio.Transport
    _closing_since = 0.0

    def is_closing(self, now: float) -> bool:
        if not self.transport.is_closing():
            return False
        self._closing_since = self._closing_since or now
        if now - self._closing_since > CLOSE_SECONDS:
            self.transport.abort()
        return True


class HttpProtocol(_Closing, H11Protocol):
    """A request must be complete within HANDSHAKE_SECONDS; a body, once it has begun, must come on."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waiting_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            self._waiting_since = self.loop.time()
        elif state is not h11.IDLE:
            self._waiting_since = 0.0
        elif not self._waiting_since:
            self._waiting_since = self.loop.time()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The next request may have begun to arrive before this answer was done.
        has_begun = self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]
        if has_begun or self.conn.their_state is h11.SEND_BODY:
            self._waiting_since = self.loop.time()

    def check(self, now: float) -> None:
        if self.is_closing(now) or not self._waiting_since or self.flow.read_paused:
            return
        if now - self._waiting_since > get_config().handshake_seconds:
            logger.info("request not finished in time", extra={"action": "handshake"})
            self.transport.abort()


class WebSocketProtocol(_Closing, WebSocketsSansIOProtocol):
    """Anything that comes shows that the client lives; who is silent is pinged."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._heard_at = self.loop.time()
        self._pinged_at = 0.0
        self._unparsed = b""
        self._unsent_pong = b""
        self._stalled_bytes = -1
        self._stalled_at = 0.0

    # -- reading

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        if self._unparsed or len(data) > PARSE_BYTES:
            self._unparsed += data
            self._parse()
        else:
            super().data_received(data)

    def _parse(self) -> None:
        while self._unparsed and not self.read_paused and not self.transport.is_closing():
            portion, self._unparsed = self._unparsed[:PARSE_BYTES], self._unparsed[PARSE_BYTES:]
            super().data_received(portion)

    async def receive(self) -> Any:
        event = await super().receive()
        if self._unparsed:
            self._parse()
        return event

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.handshake_initiated and not self.close_sent:
            cast("dict[str, Any]", self.scope["extensions"])[WRITE_NOW_EXTENSION] = self.write_now

    def send_receive_event_to_app(self) -> None:
        is_large = sum(map(len, self.frames)) > PARSE_BYTES
        is_paused, self.read_paused = self.read_paused, True
        super().send_receive_event_to_app()
        self.read_paused = is_paused
        # After a close everything is read and dropped, until the client's own close comes.
        if not is_paused and not self.close_sent and (is_large or self.queue.qsize() >= MOST_UNHANDLED):
            self.read_paused = True
            self.transport.pause_reading()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            # Who pings without reading must not fill our memory with pongs; the protocol asks for the last one only.
            self._unsent_pong = b"".join(self.conn.data_to_send())

    # -- writing

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            # Answered, if with a refusal. uvicorn sees that only when the connection is lost, and until then takes the
            # application's end for an error.
            self.handshake_complete = True

    def write_now(self, frame: bytes, *, is_text: bool) -> bool:
        """What ``send`` does with a frame, without a task to wait in; false when it would have to wait, or fails."""
        if (
            not self.writable.is_set()
            or not self.handshake_complete
            or self.close_sent
            or self.disconnected
            or self.initial_response is not None
        ):
            return False
        try:
            if is_text:
                self.conn.send_text(frame)
            else:
                self.conn.send_binary(frame)
        except InvalidState:
            return False
        self.transport.write(b"".join(self.conn.data_to_send()))
        return True

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unsent_pong and not self.transport.is_closing():
            self.transport.write(self._unsent_pong)
        self._unsent_pong = b""
        self._stalled_bytes = -1

    def connection_lost(self, exc: Exception | None) -> None:
        self._unparsed = b""
        super().connection_lost(exc)

    # -- looked at once a second

    def check(self, now: float) -> None:
        if self.is_closing(now):
            return
        if self._unparsed:
            self._parse()  # left over when the application closed: the client's own close is behind it
        if not self.writable.is_set():
            self._check_progress(now)
        elif self.read_paused or not self.handshake_complete:
            self._heard_at = now
        elif now - self._heard_at < PING_INTERVAL_SECONDS:
            self._pinged_at = 0.0
        elif not self._pinged_at:
            self._pinged_at = now
            if not self.close_sent:
                self.conn.send_ping(b"")
                self.transport.write(b"".join(self.conn.data_to_send()))
        elif now - self._pinged_at > PING_TIMEOUT_SECONDS:
            self.keepalive_timeout()

    def _check_progress(self, now: float) -> None:
        left = self.transport.get_write_buffer_size()
        if left != self._stalled_bytes:
            self._stalled_bytes, self._stalled_at = left, now
        elif now - self._stalled_at > get_config().send_stall_seconds:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": SLOW_READER_CODE})
            self.transport.abort()


class Server(uvicorn.Server):
    """Looks after its connections; runs ``on_stop`` between the signal and uvicorn's own shutdown."""

    def __init__(self, config: uvicorn.Config, on_stop: Hook | None) -> None:
        super().__init__(config)
        self._on_stop = on_stop
        self._stopping: asyncio.Task[None] | None = None
        self._exit_asked = asyncio.Event()
        self._checking: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._checking = self._loop.create_task(self._check())

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            connections = cast("set[HttpProtocol | WebSocketProtocol]", self.server_state.connections)
            for number, protocol in enumerate(list(connections), start=1):
                protocol.check(self._loop.time())
                if number % CHECKED_AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def main_loop(self) -> None:
        """Ten looks a second at whether to end would be a third of what an idle gateway costs."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._exit_asked.wait(), DATE_SECONDS)

    async def shutdown(self, sockets: Any = None) -> None:
        await super().shutdown(sockets)
        if self._checking is not None:
            self._checking.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._on_stop is None or self._stopping is not None or not self.started:
            self._exit(sig, frame)
        else:
            self._loop.call_soon_threadsafe(self._stop_soon, self._on_stop, sig, frame)

    def _exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self.started:
            self._loop.call_soon_threadsafe(self._exit_asked.set)

    def _stop_soon(self, hook: Hook, sig: int, frame: FrameType | None) -> None:
        async def stop() -> None:
            # Nobody new, from now on; those who are here are told to go one after the other.
            for listener in self.servers:
                listener.close()
            try:
                await hook()
            finally:
                self._exit(sig, frame)

        self._stopping = self._stopping or self._loop.create_task(stop())
