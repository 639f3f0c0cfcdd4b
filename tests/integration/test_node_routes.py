"""A gateway node and its entries in the routing table: what comes and goes at the same time, and what Redis lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from typing import Any

import pytest
import redis
from channels.layers import get_channel_layer
from pymongo.database import Database

from gateway import node as node_module
from gateway.codecs.registry import get_codec
from gateway.connections import Connection
from gateway.node import Node
from imserver.actions import presence
from imserver.constants import PushResult
from imserver.protocol.gen.sdkws_pb2 import SubUserOnlineStatusTips
from imserver.storage import keys
from imserver.storage.clients import Document, close_async_clients, get_async_redis
from imserver.storage.routes import Route, Routes

SECONDS = 10


@pytest.fixture
async def node(redis_client: redis.Redis, database: Database[Document]) -> AsyncIterator[Node]:
    running = Node()
    await Routes(get_async_redis()).beat(running.name, 0)
    yield running
    await running.subscriptions.close()
    await close_async_clients()


def connection(user_id: str, token: str = "t", platform_id: int = 1, **options: Any) -> Connection:
    async def send(_event: dict[str, Any]) -> None:
        pass

    return Connection(
        send,
        user_id=user_id,
        platform_id=platform_id,
        token=token,
        codec=get_codec("go"),
        is_compressed=False,
        queue_frames=10,
        queue_bytes=1 << 20,
        **options,
    )


def ids(client: redis.Redis, user_id: str) -> set[str]:
    found: Any = client.hkeys(keys.route(user_id))
    return {item.decode() for item in found}


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def beat(node: Node) -> None:
    """What a heartbeat does for the routing table."""
    known = await Routes(get_async_redis()).beat(node.name, len(node.connections))
    if not known:
        node._unverified, node._is_restoring = node.connections.all(), True
    await node._verify()


async def test_what_redis_lost_is_put_back_at_the_next_heartbeat(node: Node, redis_client: redis.Redis) -> None:
    here = [connection(f"u{number}") for number in range(450)]
    await asyncio.gather(*(node.join(item, "op") for item in here))
    for key in redis_client.scan_iter(match=keys.route("*")):
        redis_client.delete(key)
    redis_client.delete(keys.node(node.name), keys.nodes())

    await beat(node)

    assert all(ids(redis_client, item.user_id) == {item.id} for item in here)
    assert not node._is_restoring


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_connection_that_left_while_it_was_put_back_does_not_stay(
    node: Node, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, is_answered: bool
) -> None:
    stays, leaves = connection("a"), connection("b")
    await node.join(stays, "op")
    await node.join(leaves, "op")
    redis_client.delete(keys.route("a"), keys.route("b"), keys.node(node.name))
    restore = presence.restore

    async def restore_after_leaving(routes: list[tuple[str, Route, str]], name: str, **options: Any) -> Any:
        # The removal overtakes: it finds nothing yet.
        await node.leave(leaves)
        changes = await restore(routes, name, **options)
        if not is_answered:
            raise redis.ConnectionError("the answer is lost")
        return changes

    with monkeypatch.context() as patch:
        patch.setattr(presence, "restore", restore_after_leaving)
        with nullcontext() if is_answered else pytest.raises(redis.ConnectionError):
            await beat(node)
    if not is_answered:
        await beat(node)

    assert ids(redis_client, "a") == {stays.id}
    assert ids(redis_client, "b") == set()


async def test_a_connection_that_is_cut_off_while_it_joins_leaves_nothing(
    node: Node, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, may_go_on, is_there = connection("a"), asyncio.Event(), asyncio.Event()
    join = presence.join

    async def slow_join(*args: Any) -> Any:
        is_there.set()
        await may_go_on.wait()
        return await join(*args)

    monkeypatch.setattr(presence, "join", slow_join)
    joining = asyncio.ensure_future(node.join(mine, "op"))
    await is_there.wait()
    joining.cancel()
    await node.leave(mine)
    removed = asyncio.Event()
    remove = node._remove_route

    async def remove_and_tell(item: Connection) -> None:
        await remove(item)
        removed.set()

    monkeypatch.setattr(node, "_remove_route", remove_and_tell)
    may_go_on.set()
    async with asyncio.timeout(5):
        await removed.wait()

    assert ids(redis_client, "a") == set()


@pytest.mark.parametrize("error", [redis.ConnectionError("away"), RuntimeError("the transport is closed")])
async def test_a_route_that_could_not_be_removed_is_removed_later(
    node: Node, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    mine = connection("a")
    await node.join(mine, "op")

    async def away(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(presence, "leave", away)
        await node.leave(mine)
    assert ids(redis_client, "a") == {mine.id}
    await beat(node)

    assert ids(redis_client, "a") == set()


@pytest.mark.parametrize("error", [redis.ConnectionError("away"), RuntimeError("the transport is closed")])
async def test_the_heartbeat_goes_on_whatever_went_wrong_in_it(
    node: Node, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    node._heartbeat_seconds = 0.05
    await node.start()
    await node.until_running()
    await until(lambda: node.is_running)

    async def fail(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Routes, "beat", fail)
        await until(lambda: not node.is_running)

    await until(lambda: node.is_running)
    await node.drain()


async def test_who_was_kicked_without_the_nodes_hearing_of_it_is_closed_within_a_round(
    node: Node, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "BEATS_A_ROUND", 3)
    here = [connection(f"u{number}") for number in range(9)]
    for item in here:
        redis_client.hset(keys.tokens(item.user_id, 1), "t", 0)
        await node.join(item, "op")
    await Routes(get_async_redis()).kick_platform("u4", 1)

    for _ in range(3):
        await beat(node)

    assert [item.user_id for item in here if item.is_closing] == ["u4"]
    assert ids(redis_client, "u4") == set()


async def test_idle_connections_cost_a_few_calls_a_heartbeat(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    here = [connection(f"u{number}") for number in range(300)]
    await asyncio.gather(*(node.join(item, "op") for item in here))
    await beat(node)
    calls: list[str] = []
    evalsha: Any = redis.asyncio.Redis.evalsha

    def count(self: Any, sha: str, *args: Any) -> Any:
        calls.append(sha)
        return evalsha(self, sha, *args)

    # The server's own count has the calls of everybody who uses it.
    monkeypatch.setattr(redis.asyncio.Redis, "evalsha", count)
    await beat(node)

    assert len(calls) == len(here) // node_module.BEATS_A_ROUND


async def test_connecting_is_one_round_trip(
    node: Node, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.join(connection("a", "t1"), "op")
    sent: list[Any] = []
    execute: Any = redis.asyncio.Redis.execute_command

    async def count(self: Any, *args: Any, **options: Any) -> Any:
        sent.append(args[0])
        return await execute(self, *args, **options)

    monkeypatch.setattr(redis.asyncio.Redis, "execute_command", count)
    await node.join(connection("a", "t2", 2), "op")

    assert sent == ["EVALSHA"]


async def test_changes_that_come_together_leave_in_few_frames(node: Node, redis_client: redis.Redis) -> None:
    mine, user_ids = connection("a"), [f"u{number}" for number in range(600)]
    node.connections.add(mine)
    assert await node.subscriptions.change(mine, user_ids, []) == {user_id: [] for user_id in user_ids}

    pipe = redis_client.pipeline(transaction=False)
    for user_id in user_ids:
        pipe.publish(keys.status_channel(user_id), "1,5")
    pipe.execute()
    for _ in range(500):
        if told(mine).keys() == set(user_ids):
            break
        await asyncio.sleep(0.01)

    assert told(mine).keys() == set(user_ids)
    assert set(map(tuple, told(mine).values())) == {(1, 5)}
    assert not mine.is_closing
    node.subscriptions.drop(mine)
    await node.subscriptions.tidy()
    assert node.subscriptions._known == {}


async def test_who_seemed_offline_while_the_node_was_unknown_is_online_again(
    node: Node, redis_client: redis.Redis
) -> None:
    phone, watcher = connection("b", platform_id=2), connection("a")
    await node.join(phone, "op")
    node.connections.add(watcher)
    assert await node.subscriptions.change(watcher, ["b"], []) == {"b": [2]}
    # As after an outage of Redis that was longer than a heartbeat lasts: the route is there and counts for nothing.
    redis_client.delete(keys.node(node.name))
    node.subscriptions._read_soon()
    await until(lambda: told(watcher) == {"b": []})

    await beat(node)

    await until(lambda: told(watcher) == {"b": [2]})


async def test_news_that_are_missed_while_everybody_is_read_are_read_as_well(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = connection("a")
    node.connections.add(watcher)
    await node.subscriptions.change(watcher, ["b"], [])
    reads, may_go_on = 0, asyncio.Event()

    async def get_online_platforms(user_ids: list[str]) -> dict[str, list[int]]:
        nonlocal reads
        reads += 1
        is_first = reads == 1
        await may_go_on.wait()
        return {user_id: [] if is_first else [2] for user_id in user_ids}

    monkeypatch.setattr(presence, "get_online_platforms", get_online_platforms)
    node.subscriptions._read_soon()
    await until(lambda: reads)
    node.subscriptions._read_soon()
    may_go_on.set()

    await until(lambda: told(watcher) == {"b": [2]})


async def test_who_is_watched_again_while_it_is_unfollowed_is_followed_also_when_that_fails(
    node: Node, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = connection("a")
    node.connections.add(watcher)
    await node.subscriptions.change(watcher, ["b", "c"], [])
    await node.subscriptions.change(watcher, [], ["b"])
    feed: Any = node.subscriptions._feed
    unfollow = feed.unfollow

    async def unfollow_late(user_ids: set[str]) -> None:
        await node.subscriptions.change(watcher, ["b"], [])
        await unfollow(user_ids)
        raise redis.ConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr(feed, "unfollow", unfollow_late)
        with pytest.raises(redis.ConnectionError):
            await node.subscriptions.tidy()
    await node.subscriptions.tidy()
    redis_client.publish(keys.status_channel("b"), "5")

    await until(lambda: told(watcher) == {"b": [5]})


def told(item: Connection) -> dict[str, list[int]]:
    """What is queued of users' status."""
    frames = [item.codec.decode_response(event["bytes"]) for event in item._queue]
    return {
        one.userID: list(one.onlinePlatformIDs)
        for frame in frames
        for one in SubUserOnlineStatusTips.FromString(frame.data).subscribers
    }


async def test_of_a_platforms_connections_one_that_takes_a_message_is_enough() -> None:
    node = Node()
    results: dict[tuple[str, int], PushResult] = {}
    gone, takes = connection("a"), connection("a")
    in_background, phone, pad = connection("b"), connection("b"), connection("b", platform_id=9)
    for item in (gone, takes, in_background, phone, pad):
        node.connections.add(item)
    gone.lost(None)
    in_background.is_background = True

    node.push("op", b"", ["a", "b"], results)
    assert results == {("a", 1): PushResult.OK, ("b", 1): PushResult.OK, ("b", 9): PushResult.OK}

    # Who misses one message of a batch is not reached, whatever came before and after.
    takes.lost(None)
    phone.is_background = True
    node.push("op", b"", ["a", "b"], results)
    phone.is_background = False
    node.push("op", b"", ["a", "b"], results)
    assert results == {("a", 1): PushResult.FAILED, ("b", 1): PushResult.IOS_BACKGROUND, ("b", 9): PushResult.OK}


async def test_a_new_node_is_heard_as_soon_as_its_subscription_is_there(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = get_channel_layer()
    receive, send = layer.receive, layer.send
    calls, may_subscribe = [], asyncio.Event()

    async def receive_later(channel: str) -> Any:
        await may_subscribe.wait()
        return await receive(channel)

    async def send_counted(channel: str, event: dict[str, Any]) -> None:
        calls.append(event)
        await send(channel, event)
        if len(calls) == 3:
            assert not node.is_running
            may_subscribe.set()

    monkeypatch.setattr(layer, "receive", receive_later)
    monkeypatch.setattr(layer, "send", send_counted)
    node._heartbeat_seconds = 3600
    await node.start()
    await node.until_running()

    assert node.is_running
    await node.drain()
