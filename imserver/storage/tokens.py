"""Token states in Redis: a hash for each user and platform, token -> state (``0 <ms>``: normal until then)."""

from __future__ import annotations

import redis.asyncio
from redis.asyncio.lock import Lock

from imserver.clock import now_ms
from imserver.conf import get_config
from imserver.constants import Platform, TokenState
from imserver.storage import keys
from imserver.storage.clients import as_text
from imserver.storage.routes import token_digest
from imserver.storage.scripts import get_script

#: Issuing a token takes some Redis calls; who is silent longer is dead.
LOCK_SECONDS = 5


def _state(value: bytes | str) -> TokenState | None:
    """None when the token's time of grace is over: it is as good as forgotten."""
    state, _, until = as_text(value).partition(" ")
    try:
        if until and int(until) <= now_ms():
            return None
        return TokenState(int(state))
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
            int(platform): {
                token.decode(): state for token, value in values.items() if (state := _state(value)) is not None
            }
            for platform, values in zip(Platform, await pipe.execute(), strict=True)
            if values
        }

    async def get_digests(self, user_ids: list[str]) -> dict[str, dict[tuple[int, str], str]]:
        """Of each user: (platform, digest as routes have it) -> token. One round trip."""
        pipe = self._client.pipeline(transaction=False)
        for user_id in user_ids:
            for platform in Platform:
                pipe.hkeys(keys.tokens(user_id, platform))
        answers = iter(await pipe.execute() if user_ids else ())
        return {
            user_id: {
                (int(platform), token_digest(as_text(token))): as_text(token)
                for platform in Platform
                for token in next(answers)
            }
            for user_id in user_ids
        }

    async def add(self, user_id: str, platform_id: int, token: str) -> None:
        key = keys.tokens(user_id, platform_id)
        pipe = self._client.pipeline(transaction=False)
        pipe.hset(key, token, int(TokenState.NORMAL))
        pipe.expire(key, self._lifetime_seconds)
        await pipe.execute()

    async def replace(self, user_id: str, platform_id: int, token: str, grace_seconds: int) -> None:
        """Add a token; the user's others on the platform count for this long yet. Who is in its grace keeps its end."""
        now = now_ms()
        await get_script("replace_token").run_async(
            self._client,
            [keys.tokens(user_id, platform_id)],
            [token, now, now + grace_seconds * 1000, self._lifetime_seconds],
        )

    async def kick(self, user_id: str, platform_id: int, tokens: list[str]) -> None:
        """Mark tokens kicked; they answer 1506 from now on."""
        if tokens:
            key = keys.tokens(user_id, platform_id)
            await self._client.hset(key, mapping=dict.fromkeys(tokens, int(TokenState.KICKED)))

    async def forget(self, user_id: str, platform_id: int, tokens: list[str]) -> None:
        """Remove tokens that expired."""
        if tokens:
            await self._client.hdel(keys.tokens(user_id, platform_id), *tokens)
