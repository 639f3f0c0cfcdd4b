"""A node that may have missed pushes, and whose sockets stay open: everybody there is told where its conversations end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from pymongo.database import Database

from gateway import close, consumers, tails
from gateway import node as node_module
from gateway.codecs.registry import get_codec
from gateway.connections import Connection, ConnectionTable
from gateway.handshake import Handshake
from gateway.node import Node
from gateway.tails import Tails
from imserver.actions import presence, pull
from imserver.constants import ReqIdentifier
from imserver.protocol.gen.sdkws_pb2 import PushMessages
from imserver.storage import keys
from imserver.storage.clients import Document
from tests.factories import make_msg, persist, transfer
from tests.integration.test_node_routes import connection, ids, until


@pytest.fixture
async def node(redis_client: redis.Redis, database: Database[Document]) -> AsyncIterator[Node]:
    running = Node()
    running._heartbeat_seconds = 0.05
    await running.start()
    await running.until_running()
    yield running
    await running.drain()


@pytest.fixture
async def msg_that_was_missed(node: Node) -> None:
    """From a to b, who are not connected yet as far as anybody knows."""
    await asyncio.to_thread(transfer, [make_msg("a", "b", "missed", clientMsgID="m1")])
    await asyncio.to_thread(persist)


def told(item: Connection) -> list[tuple[str, int]]:
    """(client id, seq) of what is queued."""
    frames = [item.codec.decode_response(event["bytes"]) for event in item._queue]
    pushes = [PushMessages.FromString(frame.data) for frame in frames if frame.req_identifier == ReqIdentifier.PUSH_MSG]
    return [(msg.clientMsgID, msg.seq) for push in pushes for msgs in push.msgs.values() for msg in msgs.Msgs]


@pytest.mark.usefixtures("msg_that_was_missed")
async def test_after_the_subscription_broke_everybody_is_told_who_does_not_show_it_twice(
    node: Node, redis_client: redis.Redis
) -> None:
    mine, other, shows_repeats = connection("b"), connection("c"), connection("b", shows_repeats=True)
    for item in (mine, other, shows_repeats):
        node.connections.add(item)

    redis_client.client_kill_filter(_type="pubsub")

    await until(lambda: told(mine))
    assert told(mine) == [("m1", 1)]
    assert told(other) == told(shows_repeats) == []


@pytest.mark.usefixtures("msg_that_was_missed")
async def test_who_was_thought_dead_tells_everybody_once_all_its_routes_are_back(
    node: Node, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "RESTORED_A_BEAT", 1)
    here = [connection(user_id) for user_id in "abcd"]
    for item in here:
        node.connections.add(item)
    routes_then: list[set[str]] = []
    make_up = node.tails.make_up

    def make_up_and_look(since_ms: int) -> None:
        routes_then.extend(ids(redis_client, item.user_id) for item in here)
        make_up(since_ms)

    monkeypatch.setattr(node.tails, "make_up", make_up_and_look)
    redis_client.delete(keys.node(node.name), keys.nodes())

    await until(lambda: told(here[0]) and told(here[1]))
    assert [told(item) for item in here] == [[("m1", 1)], [("m1", 1)], [], []]
    assert routes_then == [{item.id} for item in here]


@pytest.mark.usefixtures("msg_that_was_missed")
async def test_a_node_that_hears_all_the_time_tells_nobody(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, heard = connection("b"), 0
    node.connections.add(mine)
    handle = node._handle

    async def count(event: dict[str, Any]) -> None:
        nonlocal heard
        await handle(event)
        heard += 1

    monkeypatch.setattr(node, "_handle", count)
    await until(lambda: heard >= 5)

    assert told(mine) == []
    assert not node.tails._tasks


# -- how it is told


@pytest.fixture
async def crowd() -> ConnectionTable:
    table = ConnectionTable()
    for number in range(50):
        for platform_id in (1, 5):
            table.add(connection(f"u{number}", platform_id=platform_id))
    return table


async def test_few_are_looked_after_at_once_and_each_user_once(
    crowd: ConnectionTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    now, most = 0, 0

    async def get_tails(user_id: str, _since_ms: int) -> list[bytes]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        looks.append(user_id)
        return [b""]

    monkeypatch.setattr(tails, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(pull, "get_tails", get_tails)
    running = Tails(crowd)

    running.make_up(1)
    running.make_up(2)

    await until(lambda: all(item._queue for item in crowd.all()))
    assert sorted(looks) == sorted({item.user_id for item in crowd.all()})
    assert most <= tails.LOOKS_AT_ONCE
    assert {len(item._queue) for item in crowd.all()} == {1}
    await running.close()


@pytest.mark.parametrize("error", [redis.ConnectionError("away"), RuntimeError("the transport is closed")])
async def test_who_could_not_be_looked_after_is_told_later(
    crowd: ConnectionTable, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    is_away = True

    async def get_tails(_user_id: str, _since_ms: int) -> list[bytes]:
        if is_away:
            raise error
        return [b""]

    monkeypatch.setattr(tails, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(tails, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(pull, "get_tails", get_tails)
    running = Tails(crowd)
    running.make_up(1)
    await asyncio.sleep(0)
    is_away = False

    await until(lambda: all(item._queue for item in crowd.all()))
    await running.close()


def handshake(sdk_type: str, sdk_version: str) -> Handshake:
    return Handshake(
        "b", "t", 1, "op", get_codec(sdk_type), is_compressed=False, wants_result=False, sdk_version=sdk_version
    )


@pytest.mark.parametrize(
    ("sdk_type", "sdk_version", "shows_repeats"),
    [("go", "3.8.3", False), ("go", "python-ws-0.1.0", True), ("js", "0.0.14", True), ("json", "", False)],
)
async def test_which_sdks_show_what_is_pushed_twice(sdk_type: str, sdk_version: str, shows_repeats: bool) -> None:
    assert handshake(sdk_type, sdk_version).shows_repeats == shows_repeats


async def test_a_node_that_hears_nothing_now_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = Node()
    sent: list[dict[str, Any]] = []

    async def accept_handshake(*_: Any) -> Handshake:
        return handshake("go", "")

    async def get_connections(_: Any) -> dict[str, list[Any]]:
        return {"b": []}

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    monkeypatch.setattr(node_module, "RESET_SECONDS", 0.01)
    monkeypatch.setattr(consumers, "get_node", lambda: deaf)
    monkeypatch.setattr(consumers, "accept_handshake", accept_handshake)
    monkeypatch.setattr(presence, "get_connections", get_connections)
    # It did hear, before.
    deaf._hears.set()
    deaf._hears.clear()

    await consumers.GatewayConsumer()({"type": "websocket"}, receive, send)

    assert sent == [{"type": "websocket.close", "code": close.RESTART.code}]
    assert len(deaf.connections) == 0
