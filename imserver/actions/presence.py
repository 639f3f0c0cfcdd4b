"""Connections of a user on all nodes: who is online where, coming and going, kicking."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable

import redis
from channels.exceptions import ChannelFull
from channels.layers import get_channel_layer

from imserver.actions.login_policy import kicks_own_tokens, platforms_that_leave
from imserver.conf import get_config
from imserver.errors import ArgsError, DatabaseUnavailable
from imserver.storage import webhooks
from imserver.storage.clients import get_async_redis, get_mongo
from imserver.storage.routes import Cause, Change, Leaving, Route, Routes
from imserver.storage.subscriptions import Subscriptions, TooManySubscribed
from imserver.storage.tokens import Tokens
from imserver.storage.webhooks import AFTER_PRESENCE
from tasks.wakeup import wake_soon

logger = logging.getLogger(__name__)

#: Handler of gateway/node.py that sends 2002 and closes.
KICK_EVENT = "connections.kick"
#: One request may ask for the online status of so many users.
MOST_USERS_ASKED = 1000
#: … and one on a connection (2005) of so many: with the longest ids the answer is what OpenIM's clients read at most, 1 MiB.
MOST_USERS_ASKED_BY_SOCKET = 10_000
#: No user has a longer id; lists of subscribed users are kept, also of ids that nobody has yet.
MAX_USER_ID_CHARS = 64
#: One connection (over REST: one user) may subscribe to the status of so many users.
MOST_SUBSCRIBED = 3000


def check_asked(user_ids: list[str], most: int = MOST_USERS_ASKED) -> list[str]:
    """Each user once, in the order asked. Raises ArgsError."""
    wanted = list(dict.fromkeys(user_ids))
    if len(wanted) > most:
        raise ArgsError(f"online status of more than {most} users asked for at once")
    if any(len(user_id) > MAX_USER_ID_CHARS for user_id in wanted):
        raise ArgsError(f"a user id is longer than {MAX_USER_ID_CHARS} characters")
    return wanted


async def get_connections(user_ids: list[str]) -> dict[str, list[Route]]:
    """Connections of each user on living nodes, the oldest first. Raises ArgsError."""
    wanted = check_asked(user_ids)
    if not wanted:
        return {}
    routes = Routes(get_async_redis())
    # One user is what every handshake asks about.
    found = await routes.get_many(wanted) if len(wanted) > 1 else {wanted[0]: await routes.get(wanted[0])}
    return {user_id: sorted(found[user_id], key=lambda route: route.since_ms) for user_id in wanted}


async def get_online_platforms(user_ids: list[str]) -> dict[str, list[int]]:
    """Platforms on which each user is connected; an empty list is offline. Raises ArgsError."""
    return {
        user_id: sorted({route.platform_id for route in routes})
        for user_id, routes in (await get_connections(user_ids)).items()
    }


async def get_connected_tokens(user_ids: list[str]) -> dict[str, dict[int, list[str]]]:
    """Users that are online: platform -> tokens of its connections. Raises ArgsError."""
    found = await get_connections(user_ids)
    online = [user_id for user_id, routes in found.items() if routes]
    tokens = await Tokens(get_async_redis()).get_digests(online)
    connected: dict[str, dict[int, list[str]]] = {}
    for user_id in online:
        by_platform = connected.setdefault(user_id, {})
        for item in found[user_id]:
            token = tokens[user_id].get((item.platform_id, item.token_digest))
            if token is not None and token not in by_platform.setdefault(item.platform_id, []):
                by_platform[item.platform_id].append(token)
    return connected


# -- subscriptions over REST: a list that is kept for the user. News of changes come to connections that ask by 2005.


async def subscribe(user_id: str, user_ids: list[str]) -> dict[str, list[int]]:
    """Add users to the list and tell how they are. Raises ArgsError; then nothing was added."""
    wanted = check_asked(user_ids)
    if not wanted:
        raise ArgsError("userIDs is empty")
    if "" in wanted:
        raise ArgsError("userIDs holds an empty id")
    try:
        await Subscriptions(get_async_redis()).add(user_id, wanted, MOST_SUBSCRIBED)
    except TooManySubscribed as error:
        raise ArgsError(f"more than {MOST_SUBSCRIBED} users subscribed") from error
    return await get_online_platforms(wanted)


async def unsubscribe(user_id: str, user_ids: list[str]) -> None:
    """Raises ArgsError. May run twice."""
    wanted = check_asked(user_ids)
    if not wanted:
        raise ArgsError("userIDs is empty")
    await Subscriptions(get_async_redis()).remove(user_id, wanted)


async def get_subscribed(user_id: str) -> dict[str, list[int]]:
    """How everybody on the list is."""
    wanted = sorted(await Subscriptions(get_async_redis()).get(user_id))
    platforms: dict[str, list[int]] = {}
    for at in range(0, len(wanted), MOST_USERS_ASKED):
        platforms |= await get_online_platforms(wanted[at : at + MOST_USERS_ASKED])
    return platforms


# -- what a node says of its connections


async def join(user_id: str, route: Route, token: str, operation_id: str) -> Change:
    """Register a connection and kick whom the multi-login policy sends away: one round trip, more only for who is kicked."""
    policy = get_config().multi_login_policy
    leaving = Leaving(platforms_that_leave(policy, route.platform_id), kicks_own_tokens(policy, route.platform_id))
    cause = await _cause(operation_id, route.node)
    change = await Routes(get_async_redis()).register(user_id, route, token, leaving, cause)
    await _follow_up([change])
    return change


async def leave(connections: list[tuple[str, str]], node: str, operation_id: str = "") -> None:
    """Connections (user id, connection id) of a node are gone. May run twice."""
    cause = await _cause(operation_id, node)
    await _follow_up(await Routes(get_async_redis()).remove_many(connections, cause))


async def restore(routes: list[tuple[str, Route, str]], node: str, *, was_unknown: bool) -> list[Change]:
    """Put back what Redis lost of a node's connections: (user id, route, token) of each. When the node was unknown, whoever
    wants to know hears that its users are online."""
    cause = await _cause(f"restore_{node[-20:]}", node)
    changes = await Routes(get_async_redis()).restore(routes, cause, was_unknown=was_unknown)
    await _follow_up(changes)
    return changes


async def set_background(user_id: str, route: Route) -> None:
    await Routes(get_async_redis()).set_background(user_id, route)


async def kick_platform(user_id: str, platform_id: int, operation_id: str = "") -> int:
    """Kick a user's tokens and connections on a platform, on all nodes; returns how many connections. May run twice."""
    change = await Routes(get_async_redis()).kick_platform(user_id, platform_id, await _cause(operation_id))
    await _follow_up([change])
    return len(change.kicked)


async def _cause(operation_id: str, node: str = "") -> Cause:
    return Cause(operation_id, node, await _is_hooked())


async def _is_hooked() -> bool:
    """Whether a presence webhook is on. Usually a look into a dict."""
    cache = webhooks.find_cache(get_config().mongo_database)
    hooks = cache.recent() if cache is not None else None
    try:
        if hooks is None:
            hooks = await webhooks.get_cache(get_mongo()).get_soon()
    except DatabaseUnavailable:
        return True  # the webhook stage decides, and nothing is missed
    return AFTER_PRESENCE in hooks.after_kinds


async def _follow_up(changes: Iterable[Change]) -> None:
    """What a change leaves to do outside of Redis: wake the webhook stage, tell nodes whom to close."""
    by_node: dict[str, list[str]] = defaultdict(list)
    shards = set()
    for change in changes:
        if change.wake_shard is not None:
            shards.add(change.wake_shard)
        for route in change.kicked:
            by_node[route.node].append(route.connection_id)
    for shard in shards:
        wake_soon("webhook", shard)
    layer = get_channel_layer()
    for node, connection_ids in by_node.items():
        try:
            await layer.send(node, {"type": KICK_EVENT, "connections": connection_ids})
        except (redis.RedisError, ChannelFull, OSError) as error:
            # They are out of the routing table; their node finds that when it compares, and closes them then.
            logger.warning("node not told of a kick", extra={"action": "kick", "node": node, "error": repr(error)})
