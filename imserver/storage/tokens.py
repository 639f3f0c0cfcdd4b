"""Token states in Redis: a hash for each user and platform, token -> state."""

from __future__ import annotations

import redis.asyncio
from redis.asyncio.lock import Lock

from imserver.conf import get_config
from imserver.constants import Platform, TokenState
from imserver.storage import keys

#: Issuing a token takes some Redis calls; who is silent longer is dead.
LOCK_SECONDS = 5


def _state(value: bytes | str) -> TokenState:
    try:
        return TokenState(int(value))
    except ValueError:
        return TokenState.INVALID


class Tokens:
    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._lifetime_seconds = get_config().token_expire_days * 86_400

    def lock(self, user_id: str) -> Lock:
        """For who reads a user's tokens to change them: ``async with tokens.lock(user_id)``."""
        return self._client.lock(keys.token_lock(user_id), timeout=LOCK_SECONDS, blocking_timeout=LOCK_SECONDS)

    async def get_state(self, user_id: str, platform_id: int, token: str) -> TokenState | None:
        """State of a token; None when the store does not know it."""
        value = await self._client.hget(keys.tokens(user_id, platform_id), token)
        return None if value is None else _state(value)

    async def get_all(self, user_id: str) -> dict[int, dict[str, TokenState]]:
        """All known tokens of a user by platform, in no order."""
        pipe = self._client.pipeline(transaction=False)
        for platform in Platform:
            pipe.hgetall(keys.tokens(user_id, platform))
        return {
            int(platform): {token.decode(): _state(state) for token, state in values.items()}
            for platform, values in zip(Platform, await pipe.execute(), strict=True)
            if values
        }

    async def add(self, user_id: str, platform_id: int, token: str) -> None:
        key = keys.tokens(user_id, platform_id)
        pipe = self._client.pipeline(transaction=False)
        pipe.hset(key, token, int(TokenState.NORMAL))
        pipe.expire(key, self._lifetime_seconds)
        await pipe.execute()

    async def kick(self, user_id: str, platform_id: int, tokens: list[str]) -> None:
        """Mark tokens kicked; they answer 1506 from now on."""
        if tokens:
            key = keys.tokens(user_id, platform_id)
            await self._client.hset(key, mapping=dict.fromkeys(tokens, int(TokenState.KICKED)))

    async def forget(self, user_id: str, platform_id: int, tokens: list[str]) -> None:
        """Remove tokens that expired."""
        if tokens:
            await self._client.hdel(keys.tokens(user_id, platform_id), *tokens)
