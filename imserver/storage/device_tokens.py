"""Device tokens of push vendors: MongoDB ``device_token``, one a user and platform. A token belongs to one user."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from imserver.clock import now_ms
from imserver.storage.clients import Document

COLLECTION = "device_token"

#: Of two users who register the same device at once, the later one gets it after this many looks at the most.
MOST_TRIES = 5


@dataclass(frozen=True, slots=True)
class DeviceToken:
    user_id: str
    platform_id: int
    token: str


class DeviceTokens:
    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._collection = database[COLLECTION]

    async def set(self, user_id: str, platform_id: int, token: str, lifetime_seconds: int) -> None:
        """Replace the token of a user and platform, and take it from whoever had it. 0 seconds: no expiry.

        May run twice. Raises pymongo.errors.PyMongoError.
        """
        owner = {"user_id": user_id, "platform_id": platform_id}
        values: Document = {"token": token, "update_time": now_ms(), "expires_at": None}
        if lifetime_seconds:
            values["expires_at"] = datetime.now(UTC) + timedelta(seconds=lifetime_seconds)
        for tries_left in reversed(range(MOST_TRIES)):
            await self._collection.delete_many({"token": token, "$nor": [owner]})
            try:
                await self._collection.update_one(owner, {"$set": values}, upsert=True)
                return
            except DuplicateKeyError:
                if not tries_left:
                    raise

    async def find(self, user_ids: Iterable[str]) -> list[DeviceToken]:
        """All tokens of the users that have not expired."""
        # The TTL index removes what expired about a minute late.
        wanted: Document = {
            "user_id": {"$in": list(user_ids)},
            "$or": [{"expires_at": None}, {"expires_at": {"$gt": datetime.now(UTC)}}],
        }
        cursor = self._collection.find(wanted, {"_id": 0, "user_id": 1, "platform_id": 1, "token": 1})
        return [DeviceToken(item["user_id"], item["platform_id"], item["token"]) async for item in cursor]

    async def forget(self, user_id: str, platform_id: int) -> bool:
        """Remove the token of a user and platform; False when there was none."""
        done = await self._collection.delete_one({"user_id": user_id, "platform_id": platform_id})
        return bool(done.deleted_count)

    async def remove_dead(self, dead: DeviceToken, since_ms: int | None) -> bool:
        """The vendor says that a token is dead (since then); one that was registered later stays."""
        wanted: dict[str, Any] = {"user_id": dead.user_id, "platform_id": dead.platform_id, "token": dead.token}
        if since_ms is not None:
            wanted["update_time"] = {"$lte": since_ms}
        return bool((await self._collection.delete_one(wanted)).deleted_count)
