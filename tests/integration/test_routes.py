"""Who is connected where: design.md section 6."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from imserver.conf import Config
from imserver.storage import keys, webhooks
from imserver.storage import routes as storage
from imserver.storage.clients import close_async_clients, get_async_redis
from imserver.storage.route_finder import RouteFinder
from imserver.storage.routes import Cause, Leaving, Route, Routes, token_digest
from tasks.maintenance import forget_dead_nodes
from tests.factories import reconfigure, unique


@pytest.fixture
async def routes(redis_client: redis.Redis) -> AsyncIterator[Routes]:
    yield Routes(get_async_redis())
    await close_async_clients()


def route(node: str = "n1", platform_id: int = 1, token: str = "", **fields: Any) -> Route:
    return Route(
        connection_id=unique("conn"),
        node=node,
        platform_id=platform_id,
        token_digest=token_digest(token),
        since_ms=5,
        **fields,
    )


def die(client: redis.Redis, node: str) -> None:
    """The node's heartbeat ran out."""
    client.delete(keys.node(node))


async def test_a_registered_connection_is_found_as_it_was_given(routes: Routes) -> None:
    await routes.beat("n1", 1)
    mine = route(platform_id=5, is_background=True)

    change = await routes.register("a", mine)

    assert (change.is_changed, change.kicked) == (True, [])

    assert await routes.get("a") == [mine]
    assert await routes.get("b") == []


async def test_who_has_to_leave_is_told_once_and_gone_at_once(routes: Routes) -> None:
    await routes.beat("n1", 1)
    await routes.beat("n2", 1)
    phone, web, foreign = route("n2"), route("n2", 5), route()
    await routes.register("a", phone)
    await routes.register("a", web)
    await routes.register("b", foreign)
    new = route("n1", token="t2")

    assert (await routes.register("a", new, leaving=Leaving((1,)))).kicked == [phone]
    assert (await routes.register("a", new, leaving=Leaving((1,)))).kicked == []

    assert sorted(one.connection_id for one in await routes.get("a")) == sorted([web.connection_id, new.connection_id])
    assert await routes.get("b") == [foreign]


async def test_presence_events_are_dropped_when_their_log_is_full_and_the_change_is_made(
    routes: Routes, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconfigure(monkeypatch, shards=1, log_max_entries=2)
    told = Cause(is_hooked=True)
    await routes.beat("n1", 1)
    gone = route()

    for connection in (gone, route(), route()):
        await routes.register("a", connection, cause=told)
    change = await routes.remove("a", [gone.connection_id], cause=told)

    assert redis_client.xlen(keys.log(keys.TO_WEBHOOK, 0)) == 2
    assert (change.is_changed, change.wake_shard) == (True, None)
    assert len(await routes.get("a")) == 2


async def test_the_same_token_and_dead_nodes_connections_are_not_kicked(
    routes: Routes, redis_client: redis.Redis
) -> None:
    await routes.beat("n1", 1)
    await routes.beat("n2", 1)
    same, dead = route("n1", token="new"), route("n2", token="old")
    redis_client.hset(keys.tokens("a", 1), mapping={"new": 0, "old": 0})
    await routes.register("a", same, "new")
    await routes.register("a", dead, "old")
    die(redis_client, "n2")

    change = await routes.register("a", route("n1", token="new"), "new", Leaving((1,)))

    assert change.kicked == []
    assert redis_client.hgetall(keys.tokens("a", 1)) == {b"new": b"0", b"old": b"0"}
    assert len(await routes.get("a")) == 2
    assert not redis_client.hexists(keys.route("a"), dead.connection_id)


async def test_of_two_logins_at_once_one_stays(routes: Routes, redis_client: redis.Redis) -> None:
    await routes.beat("n1", 1)
    tokens = [f"t{number}" for number in range(8)]
    redis_client.hset(keys.tokens("a", 1), mapping=dict.fromkeys(tokens, 0))

    changes = await asyncio.gather(
        *(routes.register("a", route(token=token), token, Leaving((1,), own_tokens=True)) for token in tokens)
    )

    (left,) = await routes.get("a")
    states: Any = redis_client.hgetall(keys.tokens("a", 1))
    assert sorted(states.values()) == [b"0"] + [b"2"] * 7
    assert {token_digest(token.decode()) for token, state in states.items() if state == b"0"} == {left.token_digest}
    # Whoever came first took the others' tokens, so these were refused and kicked nobody.
    assert sum(change.is_refused for change in changes) == 7
    assert sum(len(change.kicked) for change in changes) == 0


async def test_a_token_that_was_kicked_meanwhile_gets_no_route(routes: Routes, redis_client: redis.Redis) -> None:
    await routes.beat("n1", 1)
    redis_client.hset(keys.tokens("a", 1), "old", 2)

    change = await routes.register("a", route(token="old"), "old", Leaving((1,)))

    assert change.is_refused
    assert await routes.get("a") == []


async def test_registering_again_replaces_the_record(routes: Routes) -> None:
    await routes.beat("n1", 1)
    before = route()
    after = replace(before, is_background=True)
    await routes.register("a", before)

    await routes.register("a", after)

    assert await routes.get("a") == [after]


async def test_a_removed_connection_is_gone_and_the_others_stay(routes: Routes) -> None:
    await routes.beat("n1", 1)
    first, second = route(), route()
    for one in (first, second):
        await routes.register("a", one)

    await routes.remove("a", [first.connection_id])
    await routes.remove("a", [first.connection_id, "never there"])
    await routes.remove("a", [])

    assert await routes.get("a") == [second]


def users_by_node(client: redis.Redis, user_ids: list[str]) -> dict[str, set[str]]:
    return RouteFinder(client).find(user_ids).users_by_node


async def test_routes_of_a_dead_node_do_not_count(routes: Routes, redis_client: redis.Redis) -> None:
    for node in ("n1", "n2"):
        await routes.beat(node, 1)
        await routes.register("a", route(node))
    await routes.register("b", route("n1"))
    await routes.register("c", route("never seen"))

    die(redis_client, "n1")

    assert [one.node for one in await routes.get("a")] == ["n2"]
    assert await routes.get("b") == []
    assert users_by_node(redis_client, ["a", "b", "c", "nobody"]) == {"n2": {"a"}}


async def test_nodes_are_found_for_all_users_at_once(routes: Routes, redis_client: redis.Redis) -> None:
    for node in ("n1", "n2"):
        await routes.beat(node, 1)
    for user, node in (("a", "n1"), ("a", "n1"), ("a", "n2"), ("b", "n2")):
        await routes.register(user, route(node))

    assert users_by_node(redis_client, ["a", "b", "a"]) == {"n1": {"a"}, "n2": {"a", "b"}}
    assert users_by_node(redis_client, []) == {}


async def test_a_heartbeat_expires_and_says_whether_it_was_known(
    routes: Routes, redis_client: redis.Redis, config: Config
) -> None:
    assert await routes.beat("n1", 3) is False
    assert await routes.beat("n1", 4) is True

    left: Any = redis_client.pttl(keys.node("n1"))
    assert 0 < left <= config.node_ttl_ms
    die(redis_client, "n1")
    assert await routes.beat("n1", 4) is False


async def test_dead_nodes_are_forgotten_with_their_routes(routes: Routes, redis_client: redis.Redis) -> None:
    await routes.beat("n1", 1)
    await routes.beat("n2", 2)
    living, dead = route("n2"), route("n1")
    await routes.register("a", living)
    await routes.register("a", dead)
    await routes.register("b", route("n1"))
    die(redis_client, "n1")

    assert await routes.nodes() == {"n1": None, "n2": 2}
    assert storage.forget_dead_nodes(redis_client) == (1, set())
    assert storage.forget_dead_nodes(redis_client) == (0, set())

    assert await routes.nodes() == {"n2": 2}
    assert redis_client.hkeys(keys.route("a")) == [living.connection_id.encode()]
    assert not redis_client.exists(keys.route("b"))


async def test_the_webhooks_of_who_goes_are_looked_up_only_when_a_node_is_dead(
    routes: Routes, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def note(database: object) -> frozenset[str]:
        asked.append(database)
        return frozenset()

    monkeypatch.setattr(webhooks, "enabled_after_kinds", note)
    assert forget_dead_nodes() == 0
    await routes.beat("n1", 1)
    assert forget_dead_nodes() == 0
    assert not asked

    die(redis_client, "n1")
    assert forget_dead_nodes() == 1
    assert len(asked) == 1
    assert await routes.nodes() == {}


async def test_a_node_that_was_forgotten_puts_its_connections_back(routes: Routes, redis_client: redis.Redis) -> None:
    await routes.beat("n1", 2)
    mine = [("a", route(), ""), ("b", route(), "")]
    await routes.restore(mine)
    die(redis_client, "n1")
    storage.forget_dead_nodes(redis_client)

    assert await routes.beat("n1", 2) is False, "this tells the node to put them back"
    assert [change.is_changed for change in await routes.restore(mine)] == [True, True]
    assert [change.is_changed for change in await routes.restore(mine)] == [False, False]
    assert [change.is_changed for change in await routes.restore(mine, was_unknown=True)] == [False, False]
    assert await routes.restore([]) == []

    assert await routes.get("a") == [mine[0][1]]
    assert users_by_node(redis_client, ["a", "b"]) == {"n1": {"a", "b"}}


async def test_who_was_kicked_is_not_put_back(routes: Routes, redis_client: redis.Redis) -> None:
    await routes.beat("n1", 1)
    redis_client.hset(keys.tokens("a", 1), mapping={"t": 0})
    mine = route(token="t")
    await routes.register("a", mine, "t")

    assert (await routes.kick_platform("a", 1)).kicked == [mine]
    (change,) = await routes.restore([("a", mine, "t")])

    assert change.is_refused
    assert await routes.get("a") == []


async def test_a_node_that_came_back_is_not_swept(
    routes: Routes, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await routes.beat("n1", 1)
    mine = route()
    await routes.register("a", mine)
    die(redis_client, "n1")
    forget = storage._forget_routes

    def come_back_first(client: redis.Redis, *args: Any) -> set[int]:
        redis_client.set(keys.node("n1"), 1)
        return forget(client, *args)

    monkeypatch.setattr(storage, "_forget_routes", come_back_first)
    storage.forget_dead_nodes(redis_client)

    assert await routes.get("a") == [mine]


async def test_the_background_flag_is_in_the_record_of_a_connection_that_is_there(routes: Routes) -> None:
    await routes.beat("n1", 1)
    mine = route()
    await routes.register("a", mine)

    await routes.set_background("a", replace(mine, is_background=True))
    await routes.set_background("b", replace(mine, is_background=True))

    assert [one.is_background for one in await routes.get("a")] == [True]
    assert await routes.get("b") == []


async def test_every_change_of_a_users_platforms_is_published_and_nothing_else(
    routes: Routes, redis_client: redis.Redis
) -> None:
    await routes.beat("n1", 1)
    await routes.beat("n2", 1)
    first, second, web = route("n1"), route("n2"), route("n2", 5)
    pubsub: Any = redis_client.pubsub
    with pubsub() as channel:
        channel.subscribe(keys.status_channel("a"))
        # The subscription goes its own way to the server: what is published before it arrives, nobody hears.
        assert channel.get_message(timeout=5)["type"] == "subscribe"
        await routes.register("a", first)
        await routes.register("a", second)
        await routes.register("a", web)
        await routes.register("b", route())
        await routes.set_background("a", replace(web, is_background=True))
        await routes.remove("a", [first.connection_id])
        die(redis_client, "n2")
        storage.forget_dead_nodes(redis_client)
        await routes.remove("a", [second.connection_id])
        redis_client.publish(keys.status_channel("a"), "end")

        heard: list[bytes] = []
        while not heard or heard[-1] != b"end":
            message = channel.get_message(timeout=5)
            assert message is not None
            if message["type"] == "message":
                heard.append(message["data"])
    assert heard == [b"1", b"1,5", b"", b"end"]


async def test_a_node_that_leaves_is_gone_at_once(routes: Routes, redis_client: redis.Redis) -> None:
    await routes.beat("n1", 2)
    await routes.beat("n2", 7)
    await routes.register("a", route("n1"))

    await routes.leave("n1")

    assert await routes.get("a") == []
    assert await routes.nodes() == {"n2": 7}
    assert storage.living_nodes(redis_client) == {"n2": (7, 0)}


async def test_living_nodes_tell_their_connections(routes: Routes, redis_client: redis.Redis) -> None:
    assert storage.living_nodes(redis_client) == {}
    await routes.beat("n1", 2)
    await routes.beat("n2", 0)
    await routes.beat("n3", 9)
    die(redis_client, "n3")

    assert storage.living_nodes(redis_client) == {"n1": (2, 0), "n2": (0, 0)}
