"""Who is connected where: design.md section 6."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from imserver.conf import Config
from imserver.storage import keys
from imserver.storage import routes as storage
from imserver.storage.clients import close_async_clients, get_async_redis
from imserver.storage.routes import Route, Routes
from tests.factories import unique


@pytest.fixture
async def routes(redis_client: redis.Redis) -> AsyncIterator[Routes]:
    yield Routes(get_async_redis())
    await close_async_clients()


def route(node: str = "n1", platform_id: int = 1, **fields: Any) -> Route:
    return Route(
        connection_id=unique("conn"), node=node, platform_id=platform_id, token_digest="digest", since_ms=5, **fields
    )


def die(client: redis.Redis, node: str) -> None:
    """The node's heartbeat ran out."""
    client.delete(keys.node(node))


async def test_a_registered_connection_is_found_as_it_was_given(routes: Routes) -> None:
    await routes.beat("n1", 1)
    mine = route(platform_id=5, is_background=True)

    assert await routes.register("a", mine) == []

    assert await routes.get("a") == [mine]
    assert await routes.get("b") == []


async def test_registering_tells_the_users_other_connections_and_not_the_own_one(routes: Routes) -> None:
    first, second, foreign = route(), route("n2", 2), route()
    await routes.register("a", first)
    await routes.register("b", foreign)

    assert await routes.register("a", second) == [first]
    assert await routes.register("a", second) == [first]
    assert await routes.register("a", route("n3")) == [first, second]


async def test_registering_again_replaces_the_record(routes: Routes) -> None:
    await routes.beat("n1", 1)
    before = route()
    after = Route(before.connection_id, "n1", 1, "digest", 5, is_background=True)
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


async def test_routes_of_a_dead_node_do_not_count(routes: Routes, redis_client: redis.Redis) -> None:
    for node in ("n1", "n2"):
        await routes.beat(node, 1)
        await routes.register("a", route(node))
    await routes.register("b", route("n1"))
    await routes.register("c", route("never seen"))

    die(redis_client, "n1")

    assert [one.node for one in await routes.get("a")] == ["n2"]
    assert await routes.get("b") == []
    assert storage.find_nodes(redis_client, ["a", "b", "c", "nobody"]) == {"n2": {"a"}}


async def test_nodes_are_found_for_all_users_at_once(routes: Routes, redis_client: redis.Redis) -> None:
    for node in ("n1", "n2"):
        await routes.beat(node, 1)
    for user, node in (("a", "n1"), ("a", "n1"), ("a", "n2"), ("b", "n2")):
        await routes.register(user, route(node))

    assert storage.find_nodes(redis_client, ["a", "b", "a"]) == {"n1": {"a"}, "n2": {"a", "b"}}
    assert storage.find_nodes(redis_client, []) == {}


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
    assert storage.forget_dead_nodes(redis_client) == 1
    assert storage.forget_dead_nodes(redis_client) == 0

    assert await routes.nodes() == {"n2": 2}
    assert redis_client.hkeys(keys.route("a")) == [living.connection_id.encode()]
    assert not redis_client.exists(keys.route("b"))


async def test_a_node_that_was_forgotten_puts_its_connections_back(routes: Routes, redis_client: redis.Redis) -> None:
    await routes.beat("n1", 2)
    mine = [("a", route()), ("b", route())]
    await routes.register_many(mine)
    die(redis_client, "n1")
    storage.forget_dead_nodes(redis_client)

    assert await routes.beat("n1", 2) is False, "this tells the node to register again"
    await routes.register_many(mine)
    await routes.register_many([])

    assert await routes.get("a") == [mine[0][1]]
    assert storage.find_nodes(redis_client, ["a", "b"]) == {"n1": {"a", "b"}}


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
