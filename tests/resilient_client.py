"""A client that behaves as the real SDKs do when the network or the server fails. It asserts nothing.

It reconnects, asks for the newest seqs (1001) and pulls what it lacks (1002), also when a push does not continue what it
has. A message is sent again under its own client_msg_id until it is acknowledged, and only then the next one: so the
order in which a user wrote is kept through every failure.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, NamedTuple, Self

import websockets

from imserver.constants import MsgStatus
from imserver.protocol.gen import sdkws_pb2
from tests.client import Client, RequestRefused, text_message, text_of

BACKOFF_FIRST_SECONDS = 0.05
BACKOFF_MOST_SECONDS = 0.5
#: As in the SDKs: an answer that takes longer will not come.
ANSWER_SECONDS = 10
#: The SDKs wait for pushes as long as the connection lives.
CONNECTION_SECONDS = 3600
PULL_MSGS = 100

_LOST = (OSError, websockets.WebSocketException, TimeoutError, EOFError)


class Received(NamedTuple):
    """A message as this client has it."""

    seq: int
    client_msg_id: str
    text: str


class ResilientClient:
    """One user on one platform, through as many connections as it takes."""

    def __init__(self, gateway_url: str, user_id: str, token: str, **options: Any) -> None:
        self.user_id = user_id
        #: Each conversation's messages, in the order they became this client's.
        self.received: dict[str, list[Received]] = defaultdict(list)
        #: What was said, in order; and of it what the server has acknowledged.
        self.said: list[sdkws_pb2.MsgData] = []
        self.acknowledged: list[str] = []
        self.connections = 0
        self.resends = 0
        #: Pushes of messages that were there already, and messages that had to be pulled.
        self.repeats = 0
        self.pulled = 0
        #: Seqs that a pull answered with a placeholder.
        self.holes: list[tuple[str, int]] = []
        self._address = (gateway_url, user_id, token)
        self._options = options
        self._outbox: deque[sdkws_pb2.MsgData] = deque()
        self._changed = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._life = asyncio.create_task(self._live())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)

    def say(self, receiver: str, text: str) -> None:
        """Write a message; it is sent as soon as those before it are acknowledged."""
        msg = text_message(self.user_id, receiver, text)
        self.said.append(msg)
        self._outbox.append(msg)
        self._changed.set()

    def texts(self, conversation_id: str) -> list[str]:
        return [item.text for item in self.received[conversation_id]]

    async def until(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait for a condition on what this client has; raises TimeoutError that says ``what`` was waited for."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"{self.user_id} waited {seconds} s for {what}; {self.describe()}") from None

    def describe(self) -> str:
        """For messages of failures."""
        received = {conversation: len(items) for conversation, items in self.received.items()}
        return (
            f"said {len(self.said)}, acknowledged {len(self.acknowledged)}, received {received},"
            f" connections {self.connections}, resends {self.resends}, pulled {self.pulled}, repeats {self.repeats}"
        )

    # -- connections

    async def _live(self) -> None:
        failures = 0
        while True:
            client = Client(*self._address, **self._options)
            try:
                await client.connect()
                self.connections += 1
                failures = 0
                await self._use(client)
            except _LOST:
                pass
            finally:
                await client.close()
            # The back-off of a client, not the waiting of a test.
            await asyncio.sleep(min(BACKOFF_FIRST_SECONDS * 2**failures, BACKOFF_MOST_SECONDS))
            failures += 1

    async def _use(self, client: Client) -> None:
        """Until the connection ends, or fails to answer."""
        parts: list[Coroutine[Any, Any, Any]] = [
            client.socket.wait_closed(),
            self._follow(client),
            self._send_outbox(client),
        ]
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            error = task.exception()
            if error is not None and not isinstance(error, (*_LOST, RequestRefused)):
                raise error

    # -- receiving

    async def _follow(self, client: Client) -> None:
        for conversation_id, max_seq in (await client.max_seqs()).items():
            await self._catch_up(client, conversation_id, max_seq)
        while True:
            await client.until(lambda: client.pushes, CONNECTION_SECONDS)
            push = sdkws_pb2.PushMessages.FromString(client.pushes.pop(0).data)
            for conversation_id, entry in push.msgs.items():
                for msg in entry.Msgs:
                    await self._take_push(client, conversation_id, msg)

    async def _take_push(self, client: Client, conversation_id: str, msg: sdkws_pb2.MsgData) -> None:
        synced = self._synced(conversation_id)
        if msg.seq <= synced:
            self.repeats += 1
        elif msg.seq == synced + 1:
            self._keep(conversation_id, msg)
        else:
            await self._catch_up(client, conversation_id, msg.seq)

    async def _catch_up(self, client: Client, conversation_id: str, max_seq: int) -> None:
        while (synced := self._synced(conversation_id)) < max_seq:
            end = min(max_seq, synced + PULL_MSGS)
            for msg in await client.pull(conversation_id, synced + 1, end):
                self.pulled += 1
                self._keep(conversation_id, msg)

    def _synced(self, conversation_id: str) -> int:
        items = self.received[conversation_id]
        return items[-1].seq if items else 0

    def _keep(self, conversation_id: str, msg: sdkws_pb2.MsgData) -> None:
        if msg.status == MsgStatus.DELETED and not msg.clientMsgID:
            self.holes.append((conversation_id, msg.seq))
        text = text_of(msg) if msg.content else ""
        self.received[conversation_id].append(Received(msg.seq, msg.clientMsgID, text))
        self._changed.set()

    # -- sending

    async def _send_outbox(self, client: Client) -> None:
        attempts = 0
        while True:
            while not self._outbox:
                self._changed.clear()
                await self._changed.wait()
            msg = self._outbox[0]
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await client.send_msg(msg)
            except RequestRefused:
                # Busy, or a store is away: the connection is good, and the message is for later.
                self.resends += 1
                attempts += 1
                await asyncio.sleep(min(BACKOFF_FIRST_SECONDS * 2**attempts, BACKOFF_MOST_SECONDS))
                continue
            except _LOST:
                self.resends += 1
                raise
            attempts = 0
            self._outbox.popleft()
            self.acknowledged.append(msg.clientMsgID)
            self._changed.set()
