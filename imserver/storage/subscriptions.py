"""Whose status a user asked for over REST: a set in Redis. What a connection subscribes lives with the connection."""

from __future__ import annotations

from typing import Any

import redis.asyncio

from imserver.storage import keys
from imserver.storage.clients import as_text
from imserver.storage.scripts import get_script


class TooManySubscribed(Exception):
    """Nothing was added."""


class Subscriptions:
    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def add(self, user_id: str, user_ids: list[str], most: int) -> None:
        """Raises TooManySubscribed when there would be more than ``most``. May run twice."""
        args: list[Any] = [most, keys.SUBSCRIBED_TTL_SECONDS, *user_ids]
        if not await get_script("subscribe_users").run_async(self._client, [keys.subscribed(user_id)], args):
            raise TooManySubscribed

    async def remove(self, user_id: str, user_ids: list[str]) -> None:
        if user_ids:
            await self._client.srem(keys.subscribed(user_id), *user_ids)

    async def get(self, user_id: str) -> list[str]:
        return [as_text(member) for member in await self._client.smembers(keys.subscribed(user_id))]
