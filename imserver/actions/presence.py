"""Connections of a user on all nodes: kicking them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from hashlib import sha256

from channels.layers import get_channel_layer

from imserver.actions.login_policy import must_leave
from imserver.conf import get_config
from imserver.constants import Platform
from imserver.errors import ArgsError
from imserver.storage.clients import get_async_redis
from imserver.storage.routes import Route, Routes
from imserver.storage.tokens import Tokens

#: Handler of gateway/node.py that sends 2002 and closes.
KICK_EVENT = "connections.kick"
#: One request may ask for the online status of so many users.
MOST_USERS_ASKED = 1000


def token_digest(token: str) -> str:
    """Names a token in routes without giving it away."""
    return sha256(token.encode()).hexdigest()[:16]


async def get_online_platforms(user_ids: list[str]) -> dict[str, list[int]]:
    """Platforms on which each user is connected; an empty list is offline. Raises ArgsError."""
    wanted = list(dict.fromkeys(user_ids))
    if len(wanted) > MOST_USERS_ASKED:
        raise ArgsError(f"online status of more than {MOST_USERS_ASKED} users asked for at once")
    if not wanted:
        return {}
    found = await Routes(get_async_redis()).get_many(wanted)
    return {user_id: sorted({route.platform_id for route in found[user_id]}) for user_id in wanted}


async def kick(user_id: str, applies: Callable[[Route], bool]) -> int:
    """Send 2002 to the user's connections that ``applies`` names, and close them; returns how many."""
    routes = [route for route in await Routes(get_async_redis()).get(user_id) if applies(route)]
    await _kick_routes(routes)
    return len(routes)


async def kick_for_login(user_id: str, platform_id: int, token: str, others: Iterable[Route]) -> int:
    """Apply the multi-login policy for a connection that was just registered; returns how many connections had to go.

    Connections with the same token never kick each other. Admins are outside the policies.
    """
    policy, digest = get_config().multi_login_policy, token_digest(token)
    if platform_id == Platform.ADMIN:
        return 0
    losers = [
        route for route in others if route.token_digest != digest and must_leave(policy, platform_id, route.platform_id)
    ]
    if not losers:
        return 0
    tokens = Tokens(get_async_redis())
    lost = {(route.platform_id, route.token_digest) for route in losers}
    for platform, states in (await tokens.get_all(user_id)).items():
        await tokens.kick(user_id, platform, [item for item in states if (platform, token_digest(item)) in lost])
    await _kick_routes(losers)
    return len(losers)


async def _kick_routes(routes: list[Route]) -> None:
    by_node: dict[str, list[str]] = defaultdict(list)
    for route in routes:
        by_node[route.node].append(route.connection_id)
    layer = get_channel_layer()
    for node, connection_ids in by_node.items():
        await layer.send(node, {"type": KICK_EVENT, "connections": connection_ids})
