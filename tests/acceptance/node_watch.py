"""Looks at several gateway nodes from outside: who gets what when, what goes over the channel layer, what is counted."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from channels.layers import get_channel_layer

from imserver.conf import get_config
from imserver.protocol.gen.sdkws_pb2 import MsgData, PushMessages
from imserver.protocol.push_event import PUSH_EVENT, unpack
from imserver.storage import keys
from tests.acceptance.test_health_and_metrics import Figures
from tests.acceptance.test_kills import SECONDS, until
from tests.client import Client
from tests.resilient_client import ResilientClient
from tests.stack import Stack

#: What a message goes through until everybody who is to hear of it has been told.
LOGS_TO_THE_USER = (keys.TO_REDIS, keys.TO_PUSH, keys.TO_OFFLINE_PUSH)
#: Longer than there is between two messages that are published together.
SILENCE_SECONDS = 0.2


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


class Watcher(Client):
    """Notes when the messages of one conversation come."""

    watched = ""

    def watch(self, conversation_id: str) -> None:
        self.watched = conversation_id
        self.came_at: list[float] = []

    @property
    def client_msg_ids(self) -> list[str]:
        return [msg.clientMsgID for msg in self.msgs[self.watched]]

    def _handle(self, frame: bytes) -> None:
        now = time.perf_counter()
        super()._handle(frame)
        if self.watched:
            self.came_at += [now] * (len(self.msgs[self.watched]) - len(self.came_at))


class RoamingClient(ResilientClient):
    """Goes on to the next node when its connection ends, as behind a load balancer."""

    def __init__(self, gateway_urls: Sequence[str], first: int, user_id: str, token: str, **options: Any) -> None:
        # With the handshake's answer: a connection counts when the node has said that it takes it.
        super().__init__(gateway_urls[first], user_id, token, wants_result=True, **options)
        self.close_codes: list[int | None] = []
        self.away_seconds: list[float] = []
        self._left_at = 0.0
        self._nodes = itertools.cycle([*gateway_urls[first + 1 :], *gateway_urls[: first + 1]])

    async def _use(self, client: Client) -> None:
        if self.close_codes:
            self.away_seconds.append(time.monotonic() - self._left_at)
        try:
            await super()._use(client)
        finally:
            self._left_at = time.monotonic()
            self.close_codes.append(client.socket.close_code)
            self._address = (next(self._nodes), *self._address[1:])


@dataclass(frozen=True, slots=True)
class Heard:
    """A message in an event to a node."""

    client_msg_id: str
    node: str
    user_ids: frozenset[str]


class NodeListener:
    """Hears what is published to any node. Meanwhile a publish to a dead node reaches somebody: us."""

    def __init__(self, stack: Stack) -> None:
        self._inbox: Any = stack.redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._inbox.psubscribe(f"{stack.prefix}gateway.*")
        self._inbox.get_message(timeout=5)
        self.events = 0

    def heard(self) -> list[Heard]:
        """All until now."""
        found = []
        while (message := self._inbox.get_message(timeout=SILENCE_SECONDS)) is not None:
            event = get_channel_layer().deserialize(message["data"])
            if event["type"] != PUSH_EVENT:
                continue
            self.events += 1
            node = message["channel"].decode()
            for _operation_id, payload, user_ids in unpack(event):
                for entry in PushMessages.FromString(payload).msgs.values():
                    found += [Heard(msg.clientMsgID, node, frozenset(user_ids)) for msg in entry.Msgs]
        return found

    def close(self) -> None:
        self._inbox.close()


def nodes_of(stack: Stack, *user_ids: str) -> set[str]:
    """Where they are connected, by the routing table."""
    records = [record for user_id in user_ids for record in _records_of(stack, user_id)]
    return {orjson.loads(record)["node"] for record in records}


def _records_of(stack: Stack, user_id: str) -> Any:
    return stack.redis.hvals(f"{stack.prefix}ROUTE:{user_id}")


def counted(stack: Stack, name: str, **labels: str) -> float:
    return Figures(stack.web_url).get(name, **labels)


def offline_pushes(stack: Stack) -> float:
    return counted(stack, "im_offline_push_total", vendor="dummy", result="ok")


def offline_pushed_to(stack: Stack, server_msg_id: str) -> set[str]:
    """Whom a vendor without device tokens was asked to push a message to."""
    (key,) = stack.redis.scan_iter(match=f"{stack.prefix}OFFLINE_PUSHED:*:{server_msg_id}", count=1000)
    names: Any = stack.redis.hkeys(key)
    return {name.decode() for name in names}


async def until_quiet(stack: Stack) -> None:
    """Everything said so far was handed to the nodes and, where it had to be, to the vendor; and it is counted."""
    names = [
        f"{stack.prefix}log:{name}:{{{shard:02d}}}" for name in LOGS_TO_THE_USER for shard in range(get_config().shards)
    ]

    def is_quiet() -> bool:
        pipe = stack.redis.pipeline(transaction=False)
        for name in names:
            pipe.xlen(name)
        return not any(pipe.execute())

    await until(is_quiet, "the logs to be empty")


async def send_and_wait(sender: Client, msg: MsgData, receivers: list[Watcher]) -> list[float]:
    """How many seconds it took to each of those who watch the conversation; the next one is sent after that."""
    wanted = [len(client.came_at) + 1 for client in receivers]
    sent_at = time.perf_counter()
    await sender.send_msg(msg)
    for client, count in zip(receivers, wanted, strict=True):
        await client.until(lambda client=client, count=count: len(client.came_at) >= count, SECONDS)
    return [client.came_at[count - 1] - sent_at for client, count in zip(receivers, wanted, strict=True)]


async def until_pushed_to(client: Client, count: int) -> None:
    await client.until(lambda: len(pushed_to(client)) >= count, SECONDS)


def pushed_to(client: Client) -> list[str]:
    return [msg.clientMsgID for msgs in client.msgs.values() for msg in msgs]
