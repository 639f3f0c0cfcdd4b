"""Chats under load, and whether each message arrived: once, in order, numbered without a gap.

All of it runs in the generator's process (``loadgen.py``); ``workloads.py`` says when a message is sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from gateway.codecs.base import CodecError, Response
from gateway.codecs.registry import get_codec
from imserver.constants import ReqIdentifier
from imserver.protocol.conversations import single_conversation_id
from imserver.protocol.gen.sdkws_pb2 import PushMessages
from tests.benchmarks import wire
from tests.benchmarks.report import latency_of, percentile

CONNECT_SECONDS = 30.0
CONNECTS_AT_ONCE = 50
#: How long what was sent may take to arrive after the last send; what is missing then is lost.
ARRIVE_SECONDS = 60.0
PROGRESS_SECONDS = 0.5

Notify = Callable[[str, dict[str, Any]], None]


class LoadError(Exception):
    """The run cannot go on, so there is no result."""


@dataclass(frozen=True)
class Plan:
    """One run, as the generator's process is told it."""

    workload: str
    gateway_url: str
    codec: str
    #: Two (user id, token) a pair.
    pairs: list[list[list[str]]]
    seconds: float
    warmup_seconds: float
    window: int
    rate: float
    text_bytes: int


@dataclass(slots=True)
class Tally:
    """What arrived of a sequence 0, 1, 2 …; ``seq`` is the number that the server gave, from 1."""

    doubled: int = 0
    #: Arrived after a later one, or with a seq that does not belong to it.
    disordered: int = 0
    _next: int = 0
    _early: set[int] = field(default_factory=set)

    def note(self, number: int, seq: int) -> bool:
        """Whether this is the first time that ``number`` arrives."""
        expected = self._next
        if number == expected and not self._early:
            self._next = number + 1
            if seq != number + 1:
                self.disordered += 1
            return True
        if number < expected or number in self._early:
            self.doubled += 1
            return False
        # A gap is open: it is the gap's messages that come too late, so they are counted when they come.
        if number == expected or seq != number + 1:
            self.disordered += 1
        self._early.add(number)
        while self._next in self._early:
            self._early.remove(self._next)
            self._next += 1
        return True

    @property
    def distinct(self) -> int:
        return self._next + len(self._early)


class Connection(asyncio.Protocol):
    """One user's socket. ``on_response`` gets every binary frame, decoded."""

    def __init__(self, request: bytes, codec: str, on_failure: Callable[[str], None]) -> None:
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_response: Callable[[Response], None] = _ignore
        self._request = request
        self._decode = get_codec(codec).decode_response
        self._on_failure = on_failure
        self._transport: asyncio.Transport | None = None
        self._greeting = b""
        self._frames = wire.FrameReader()
        self._is_closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one in all but its bases.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.accepted.done():
            self._greeting += data
            head, found, data = self._greeting.partition(b"\r\n\r\n")
            if not found:
                return
            status = head.partition(b"\r\n")[0].decode(errors="replace")
            if " 101 " not in f"{status} ":
                self._fail(f"the gateway refused a connection: {status} {data[:200].decode(errors='replace')}")
                return
            self.accepted.set_result(None)
        try:
            for opcode, payload in self._frames.feed(data):
                if opcode == wire.BINARY:
                    self.on_response(self._decode(payload))
                else:
                    self._on_control(opcode, payload)
        except (wire.WireError, CodecError, ValueError) as error:
            self._fail(f"a frame is not understood: {error}")

    def _on_control(self, opcode: int, payload: bytes) -> None:
        if opcode == wire.PING:
            self.write(wire.client_frame(payload, wire.PONG))
        elif opcode == wire.CLOSE and not self._is_closing:
            code = int.from_bytes(payload[:2], "big")
            self._fail(f"the gateway closed a connection with {code} {payload[2:].decode(errors='replace')}")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_closing:
            self._fail(f"a connection was lost: {exc or 'closed by the gateway'}")

    def _fail(self, text: str) -> None:
        if not self.accepted.done():
            self.accepted.set_exception(LoadError(text))
        self._on_failure(text)

    def write(self, frame: bytes) -> None:
        # A broken connection is told of by connection_lost; until then nothing is to be said to it.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def close(self) -> None:
        self._is_closing = True
        if self._transport is not None:
            self.write(wire.client_frame(b"\x03\xe8", wire.CLOSE))
            self._transport.close()


def _ignore(_response: Response) -> None:
    """Nobody listens yet."""


class Chat:
    """One user writes to another. Message ``n`` is the n-th sent here, counted from 0."""

    def __init__(self, plan: Plan, users: list[list[str]], sender: Connection, receiver: Connection) -> None:
        (sender_id, _), (receiver_id, _) = users
        self.conversation_id = single_conversation_id(sender_id, receiver_id)
        self.on_delivered: Callable[[Chat], None] = lambda _chat: None
        #: By number: when its time counts from, and when it reached the receiver (0.0: it did not).
        self.started_at: list[float] = []
        self.delivered_at: list[float] = []
        self.late_seconds: list[float] = []
        self.answered = Tally()
        self.delivered = Tally()
        #: The sender's own connection gets each message too.
        self.echoed = Tally()
        self.refused: dict[str, int] = {}
        self._template = wire.SendTemplate.build(plan.codec, sender_id, receiver_id, plan.text_bytes)
        self._sender = sender
        sender.on_response = self._on_sender_response
        receiver.on_response = self._on_receiver_response

    def send(self, started_at: float) -> None:
        number = len(self.started_at)
        self.started_at.append(started_at)
        self.delivered_at.append(0.0)
        self._sender.write(self._template.frame(number))
        self.late_seconds.append(time.monotonic() - started_at)

    def _on_receiver_response(self, response: Response) -> None:
        for number, seq in self._pushed(response):
            if self.delivered.note(number, seq):
                self.delivered_at[number] = time.monotonic()
                self.on_delivered(self)

    def _on_sender_response(self, response: Response) -> None:
        if response.req_identifier != ReqIdentifier.SEND_MSG:
            for number, seq in self._pushed(response):
                self.echoed.note(number, seq)
        elif response.err_code:
            reason = f"{response.err_code} {response.err_msg}"
            self.refused[reason] = self.refused.get(reason, 0) + 1
        else:
            number = wire.number_of_answer(response.msg_incr)
            # Answers carry no seq, and their order is free.
            self.answered.note(number, number + 1)

    def _pushed(self, response: Response) -> list[tuple[int, int]]:
        if response.req_identifier != ReqIdentifier.PUSH_MSG:
            raise wire.WireError(f"unexpected response {response.req_identifier}")
        push = PushMessages.FromString(response.data)
        entry = push.msgs.get(self.conversation_id)
        if entry is None or len(push.msgs) != 1:
            raise wire.WireError("a push of another conversation")
        return [(wire.number_of_msg(msg), msg.seq) for msg in entry.Msgs]

    @property
    def is_settled(self) -> bool:
        sent = len(self.started_at)
        return sent == self.delivered.distinct == self.echoed.distinct == self.answered.distinct


class Load:
    """All chats of a run, and the stretch of time that is measured."""

    def __init__(self, plan: Plan, notify: Notify) -> None:
        self.plan = plan
        self.chats: list[Chat] = []
        self.is_sending = True
        self._notify = notify
        self._connections: list[Connection] = []
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._from = self._to = 0.0

    async def connect(self) -> None:
        """Raises LoadError."""
        url = urlsplit(self.plan.gateway_url)
        users = [user for pair in self.plan.pairs for user in pair]
        loop = asyncio.get_running_loop()
        if url.hostname is None:
            raise LoadError(f"no host in {self.plan.gateway_url}")
        host, port = url.hostname, url.port or 80

        async def connect(user_id: str, token: str) -> Connection:
            request = wire.upgrade_request(self.plan.gateway_url, user_id, token, self.plan.codec)
            _, connection = await loop.create_connection(
                lambda: Connection(request, self.plan.codec, self._fail), host, port
            )
            await asyncio.wait_for(connection.accepted, CONNECT_SECONDS)
            return connection

        for start in range(0, len(users), CONNECTS_AT_ONCE):
            some = users[start : start + CONNECTS_AT_ONCE]
            self._connections += await asyncio.gather(*(connect(*user) for user in some))
        ends = zip(self._connections[::2], self._connections[1::2], strict=True)
        self.chats = [
            Chat(self.plan, pair, sender, receiver)
            for pair, (sender, receiver) in zip(self.plan.pairs, ends, strict=True)
        ]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        if not self._failure.done():
            self._failure.cancel()

    def _fail(self, text: str) -> None:
        if not self._failure.done():
            self._failure.set_exception(LoadError(text))

    async def _sleep(self, seconds: float) -> None:
        """Raises LoadError when a connection breaks meanwhile."""
        await asyncio.wait([self._failure], timeout=seconds)
        if self._failure.done():
            self._failure.result()

    async def measure(self) -> None:
        """Warm up, then measure; ends the sending."""
        await self._sleep(self.plan.warmup_seconds)
        self._notify("measuring", {})
        self._from = time.monotonic()
        end = self._from + self.plan.seconds
        while (left := end - time.monotonic()) > 0:
            await self._sleep(min(left, PROGRESS_SECONDS))
            self._notify("progress", {"delivered": sum(chat.delivered.distinct for chat in self.chats)})
        self._to = time.monotonic()
        self.is_sending = False
        sent = {chat.conversation_id: len(chat.started_at) for chat in self.chats}
        self._notify("measured", {"at": self._to, "seconds": self._to - self._from, "sent": sent})

    async def settle(self) -> None:
        """Wait until everything sent has arrived, but not for ever."""
        deadline = time.monotonic() + ARRIVE_SECONDS
        while not all(chat.is_settled for chat in self.chats) and time.monotonic() < deadline:
            await self._sleep(0.02)

    def result(self) -> dict[str, Any]:
        """Latencies are of the messages whose time began while it was measured, all of which were waited for."""
        start, end = self._from, self._to
        moments = [
            pair for chat in self.chats for pair in zip(chat.started_at, chat.delivered_at, strict=True) if pair[1]
        ]
        latencies = [delivered - started for started, delivered in moments if start <= started < end]
        late = sorted(item for chat in self.chats for item in chat.late_seconds)
        refused: dict[str, int] = {}
        for chat in self.chats:
            for reason, count in chat.refused.items():
                refused[reason] = refused.get(reason, 0) + count
        return {
            "sent": sum(len(chat.started_at) for chat in self.chats),
            "delivered": sum(start <= delivered < end for _, delivered in moments),
            "latency": asdict(latency_of(latencies)),
            "started_late_p99_ms": round(percentile(late, 99) * 1000, 3),
            "refused": refused,
            "faults": self._faults(),
        }

    def _faults(self) -> dict[str, int]:
        faults = {
            "unanswered": 0,
            "answered twice": 0,
            "lost": 0,
            "doubled": 0,
            "disordered": 0,
            "lost to the sender": 0,
            "doubled to the sender": 0,
            "disordered to the sender": 0,
        }
        for chat in self.chats:
            sent = len(chat.started_at)
            faults["unanswered"] += sent - chat.answered.distinct
            faults["answered twice"] += chat.answered.doubled
            for tally, whose in ((chat.delivered, ""), (chat.echoed, " to the sender")):
                faults[f"lost{whose}"] += sent - tally.distinct
                faults[f"doubled{whose}"] += tally.doubled
                faults[f"disordered{whose}"] += tally.disordered
        return faults
