"""Who is connected where. ``ROUTE:<user>``: connection id -> record; ``NODE:<node>``: heartbeat with expiry.

A route counts only while its node lives; what a dead node left behind is swept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import orjson
import redis
import redis.asyncio

from imserver.conf import get_config
from imserver.storage import keys
from imserver.storage.clients import as_text
from imserver.storage.scripts import get_script


@dataclass(frozen=True, slots=True)
class Route:
    """One connection of a user."""

    connection_id: str
    node: str
    platform_id: int
    token_digest: str
    since_ms: int
    is_background: bool = False

    def to_json(self) -> bytes:
        return orjson.dumps({key: value for key, value in asdict(self).items() if key != "connection_id"})

    @classmethod
    def from_json(cls, connection_id: bytes | str, record: bytes | str) -> Route:
        return cls(connection_id=as_text(connection_id), **orjson.loads(record))


class Routes:
    """The side of gateway and actions."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def register(self, user_id: str, route: Route) -> list[Route]:
        """Add a connection; returns the user's other connections, dead nodes' included."""
        flat = await get_script("register_route").run_async(
            self._client, [keys.route(user_id)], [route.connection_id, route.to_json()]
        )
        return [
            Route.from_json(flat[at], flat[at + 1])
            for at in range(0, len(flat), 2)
            if flat[at].decode() != route.connection_id
        ]

    async def register_many(self, routes: list[tuple[str, Route]]) -> None:
        """Put a node's connections back after Redis lost them."""
        pipe = self._client.pipeline(transaction=False)
        for user_id, route in routes:
            pipe.hset(keys.route(user_id), route.connection_id, route.to_json())
        if routes:
            await pipe.execute()

    async def remove(self, user_id: str, connection_ids: list[str]) -> None:
        if connection_ids:
            await self._client.hdel(keys.route(user_id), *connection_ids)

    async def get(self, user_id: str) -> list[Route]:
        """Connections of a user on living nodes."""
        return (await self.get_many([user_id]))[user_id]

    async def get_many(self, user_ids: list[str]) -> dict[str, list[Route]]:
        """Connections of each user on living nodes, in two round trips."""
        pipe = self._client.pipeline(transaction=False)
        for user_id in user_ids:
            pipe.hgetall(keys.route(user_id))
        found = {
            user_id: [Route.from_json(connection_id, record) for connection_id, record in records.items()]
            for user_id, records in zip(user_ids, await pipe.execute(), strict=True)
        }
        nodes = {route.node for routes in found.values() for route in routes}
        if not nodes:
            return found
        beats = await self._client.mget([keys.node(node) for node in nodes])
        alive = {node for node, beat in zip(nodes, beats, strict=True) if beat is not None}
        return {user_id: [route for route in routes if route.node in alive] for user_id, routes in found.items()}

    async def beat(self, node: str, connections: int, users: int = 0) -> bool:
        """Say that a node lives; False when Redis did not know it (first beat, or Redis lost its data)."""
        pipe = self._client.pipeline(transaction=True)
        pipe.set(keys.node(node), connections, px=get_config().node_ttl_ms, get=True)
        pipe.sadd(keys.nodes(), node)
        pipe.hset(keys.node_users(), node, str(users))
        before, is_new, _ = await pipe.execute()
        # Taken for dead meanwhile, its routes may have been swept although its heartbeat is there again.
        return before is not None and not is_new

    async def leave(self, node: str) -> None:
        pipe = self._client.pipeline(transaction=True)
        pipe.delete(keys.node(node))
        pipe.srem(keys.nodes(), node)
        pipe.hdel(keys.node_users(), node)
        await pipe.execute()

    async def nodes(self) -> dict[str, int | None]:
        """Known nodes and their connection counts; None for one whose heartbeat ran out."""
        names = sorted(as_text(name) for name in await self._client.smembers(keys.nodes()))
        if not names:
            return {}
        beats = await self._client.mget([keys.node(name) for name in names])
        return {name: None if beat is None else int(beat) for name, beat in zip(names, beats, strict=True)}


def find_nodes(client: redis.Redis, user_ids: Iterable[str]) -> dict[str, set[str]]:
    """For the push stage: living node -> users that are connected there. Two round trips, whatever the number."""
    users = list(user_ids)
    pipe = client.pipeline(transaction=False)
    for user_id in users:
        pipe.hvals(keys.route(user_id))
    by_node: dict[str, set[str]] = defaultdict(set)
    for user_id, records in zip(users, pipe.execute(), strict=True):
        for record in records:
            by_node[orjson.loads(record)["node"]].add(user_id)
    if not by_node:
        return {}
    nodes = list(by_node)
    beats = client.mget([keys.node(node) for node in nodes])
    return {node: by_node[node] for node, beat in zip(nodes, beats, strict=True) if beat is not None}


def forget_dead_nodes(client: redis.Redis) -> int:
    """Drop nodes whose heartbeat ran out, and every route to them; returns how many nodes."""
    names = [as_text(name) for name in client.smembers(keys.nodes())]
    if not names:
        return 0
    beats = client.mget([keys.node(name) for name in names])
    dead = {name for name, beat in zip(names, beats, strict=True) if beat is None}
    if not dead:
        return 0
    # One cursor over the routes, never a list of all users.
    for key in client.scan_iter(match=keys.route("*"), count=1000):
        gone = [
            connection_id
            for connection_id, record in client.hgetall(key).items()
            if orjson.loads(record)["node"] in dead
        ]
        if gone:
            client.hdel(key, *gone)
    client.srem(keys.nodes(), *dead)
    client.hdel(keys.node_users(), *dead)
    return len(dead)


def living_nodes(client: redis.Redis) -> dict[str, tuple[int, int]]:
    """Nodes with a heartbeat: (connections, users) of each."""
    names = [as_text(name) for name in client.smembers(keys.nodes())]
    if not names:
        return {}
    beats = client.mget([keys.node(name) for name in names])
    users = client.hmget(keys.node_users(), names)
    return {
        name: (int(beat), int(count or 0))
        for name, beat, count in zip(names, beats, users, strict=True)
        if beat is not None
    }
