"""Who is connected where. ``ROUTE:<user>``: connection id -> record; ``NODE:<node>``: heartbeat with expiry.

A route counts only while its node lives; what a dead node left behind is swept. Every change goes through one script, which
also publishes the user's new status, tells webhooks and marks tokens: all of it happens or nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from hashlib import sha1
from typing import Any

import orjson
import redis
import redis.asyncio

from imserver.clock import now_ms
from imserver.conf import get_config
from imserver.protocol.conversations import shard_of_key
from imserver.storage import keys, logs
from imserver.storage.clients import as_text
from imserver.storage.scripts import get_script

#: Users whose connections are put back or swept in one round trip.
CHANGES_A_TRIP = 200


def token_digest(token: str) -> str:
    """Names a token in routes without giving it away. The script computes the same."""
    return sha1(token.encode(), usedforsecurity=False).hexdigest()[:16]


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


@dataclass(frozen=True, slots=True)
class Cause:
    """Who changes routes, and why.

    Attributes:
        node: the node that asks, which lives whatever its heartbeat says.
        is_hooked: the presence webhooks are to be told.
    """

    operation_id: str = ""
    node: str = ""
    is_hooked: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What came of a change. ``kicked``: routes that are removed already, whose connections are to be closed.

    Attributes:
        is_refused: the connection's token was kicked meanwhile, so it was not registered.
        wake_shard: the shard of the webhook stage that the caller has to wake.
    """

    is_changed: bool = False
    is_refused: bool = False
    wake_shard: int | None = None
    kicked: list[Route] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Leaving:
    """What the multi-login policy says of a new connection: which platforms' other connections must leave, and whether
    all other tokens of its own platform are kicked."""

    platforms: tuple[int, ...] = ()
    own_tokens: bool = False


_NO_CAUSE = Cause()
_NOBODY = Leaving()

#: Keys and arguments of change_routes.lua.
_Call = tuple[list[Any], list[Any]]


def _call(what: str, user_id: str, cause: Cause, *args: Any, token_keys: Iterable[str] = ()) -> _Call:
    shard = shard_of_key(user_id, get_config().shards)
    script_keys = [
        keys.route(user_id),
        keys.log(keys.TO_WEBHOOK, shard),
        keys.lease("webhook", shard),
        keys.wake("webhook", shard),
        *token_keys,
    ]
    common = [
        what,
        user_id,
        keys.status_channel(user_id),
        keys.node(""),
        cause.node,
        get_config().log_max_entries if cause.is_hooked else 0,
        now_ms(),
        cause.operation_id,
        keys.WAKE_TTL_MS,
    ]
    return script_keys, [*common, *args]


def _change(user_id: str, answer: list[Any]) -> Change:
    outcome, wake, dropped, *kicked = answer
    shard = shard_of_key(user_id, get_config().shards)
    if dropped:
        logs.note_dropped(keys.TO_WEBHOOK, shard, dropped)
    return Change(
        is_changed=outcome == 1,
        is_refused=outcome == -1,
        wake_shard=shard if wake else None,
        kicked=[Route.from_json(kicked[at], kicked[at + 1]) for at in range(0, len(kicked), 2)],
    )


class Routes:
    """The side of gateway and actions."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def register(
        self, user_id: str, route: Route, token: str = "", leaving: Leaving = _NOBODY, cause: Cause = _NO_CAUSE
    ) -> Change:
        """Add a connection and remove those that have to leave for it. May run twice.

        Connections with the same token never push each other out.
        """
        token_keys = [keys.tokens(user_id, platform) for platform in (route.platform_id, *leaving.platforms)]
        args = (route.connection_id, route.to_json(), token, int(leaving.own_tokens), *leaving.platforms)
        return await self._run(user_id, _call("join", user_id, cause, *args, token_keys=token_keys))

    async def restore(
        self, routes: list[tuple[str, Route, str]], cause: Cause = _NO_CAUSE, *, was_unknown: bool = False
    ) -> list[Change]:
        """Put back what is missing of a node's connections: (user id, route, token) of each, and what came of it.

        Who was kicked does not come back. A route of a connection that closes meanwhile must be removed afterwards. When the
        node was unknown, the status of all these users is published, also of those whose routes were there.
        """
        return await self._run_many(
            [
                (
                    user_id,
                    _call(
                        "restore",
                        user_id,
                        cause,
                        route.connection_id,
                        route.to_json(),
                        token,
                        int(was_unknown),
                        token_keys=[keys.tokens(user_id, route.platform_id)],
                    ),
                )
                for user_id, route, token in routes
            ]
        )

    async def remove(self, user_id: str, connection_ids: list[str], cause: Cause = _NO_CAUSE) -> Change:
        if not connection_ids:
            return Change()
        return await self._run(user_id, _call("leave", user_id, cause, *connection_ids))

    async def remove_many(self, connections: Iterable[tuple[str, str]], cause: Cause = _NO_CAUSE) -> list[Change]:
        """(user id, connection id) of each."""
        return await self._run_many([(user_id, _call("leave", user_id, cause, gone)) for user_id, gone in connections])

    async def kick_platform(self, user_id: str, platform_id: int, cause: Cause = _NO_CAUSE) -> Change:
        """Remove a user's connections on a platform and mark all tokens of the platform kicked."""
        token_keys = [keys.tokens(user_id, platform_id)]
        return await self._run(user_id, _call("kick", user_id, cause, platform_id, token_keys=token_keys))

    async def set_background(self, user_id: str, route: Route) -> None:
        """Write a connection's record anew, if it is registered."""
        call = _call("background", user_id, _NO_CAUSE, route.connection_id, route.to_json())
        await self._run(user_id, call)

    async def _run(self, user_id: str, call: _Call) -> Change:
        return _change(user_id, await get_script("change_routes").run_async(self._client, *call))

    async def _run_many(self, calls: list[tuple[str, _Call]]) -> list[Change]:
        """Raises the first exception of any; the others were made nevertheless."""
        changes: list[Change] = []
        for at in range(0, len(calls), CHANGES_A_TRIP):
            trip = calls[at : at + CHANGES_A_TRIP]
            answers = await get_script("change_routes").run_many_async(self._client, [call for _, call in trip])
            for (user_id, _), answer in zip(trip, answers, strict=True):
                if isinstance(answer, Exception):
                    raise answer
                changes.append(_change(user_id, answer))
        return changes

    async def get(self, user_id: str) -> list[Route]:
        """Connections of a user on living nodes, in one round trip."""
        flat = await get_script("living_routes").run_async(self._client, [keys.route(user_id)], [keys.node("")])
        return [Route.from_json(flat[at], flat[at + 1]) for at in range(0, len(flat), 2)]

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


def dead_nodes(client: redis.Redis) -> set[str]:
    """The nodes whose heartbeat ran out and that are not forgotten yet."""
    names = [as_text(name) for name in client.smembers(keys.nodes())]
    beats = client.mget([keys.node(name) for name in names]) if names else []
    return {name for name, beat in zip(names, beats, strict=True) if beat is None}


def forget_dead_nodes(client: redis.Redis, *, is_hooked: bool = False) -> tuple[int, set[int]]:
    """Drop nodes whose heartbeat ran out, and every route to them; their users' new status is published.

    Returns how many nodes, and the shards of the webhook stage that the caller has to wake. May run twice: a node that was
    not swept to the end is swept again.
    """
    dead = dead_nodes(client)
    if not dead:
        return 0, set()
    cause = Cause(operation_id=f"forget_{secrets.token_hex(8)}", is_hooked=is_hooked)
    prefix = len(keys.route("").encode())
    page: list[bytes] = []
    wake: set[int] = set()
    # One cursor over the routes, never a list of all users.
    for key in client.scan_iter(match=keys.route("*"), count=1000):
        page.append(key)
        if len(page) == CHANGES_A_TRIP:
            wake |= _forget_routes(client, dead, page, prefix, cause)
            page = []
    wake |= _forget_routes(client, dead, page, prefix, cause)
    client.srem(keys.nodes(), *dead)
    client.hdel(keys.node_users(), *dead)
    return len(dead), wake


def _forget_routes(client: redis.Redis, dead: set[str], page: list[bytes], prefix: int, cause: Cause) -> set[int]:
    pipe = client.pipeline(transaction=False)
    for key in page:
        pipe.hvals(key)
    wake = set()
    for key, records in zip(page, pipe.execute() if page else (), strict=True):
        if dead.isdisjoint(orjson.loads(record)["node"] for record in records):
            continue
        # The script looks at the heartbeat again: a node that came back keeps its routes.
        user_id = as_text(key[prefix:])
        change = _change(user_id, get_script("change_routes").run(client, *_call("forget", user_id, cause)))
        if change.wake_shard is not None:
            wake.add(change.wake_shard)
    return wake


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
