"""Which client has just asked where its conversations end (1001): a key a token in Redis, for a few seconds."""

from __future__ import annotations

import redis.asyncio

from imserver.storage import keys
from imserver.storage.routes import token_digest


class RecentSyncs:
    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def note(self, user_id: str, token: str, at_ms: int) -> None:
        """May run twice. Raises redis.RedisError."""
        await self._client.set(keys.synced(user_id, token_digest(token)), at_ms, px=keys.RECENT_SYNC_MS)

    async def find(self, user_id: str, token: str) -> int:
        """When the last one began, in ms; 0 when that is long ago. Raises redis.RedisError."""
        return int(await self._client.get(keys.synced(user_id, token_digest(token))) or 0)
