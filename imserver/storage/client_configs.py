"""Settings that the app server gives to clients, for all or for one user: MongoDB ``client_config``, a document a key."""

from __future__ import annotations

from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from imserver.storage.clients import Document

COLLECTION = "client_config"

#: In place of a user's id: for all.
FOR_ALL = ""


class ClientConfigs:
    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._collection = database[COLLECTION]

    async def set(self, user_id: str, values: dict[str, str]) -> None:
        """May run twice."""
        operations = [
            UpdateOne({"user_id": user_id, "key": key}, {"$set": {"value": value}}, upsert=True)
            for key, value in values.items()
        ]
        if operations:
            await self._collection.bulk_write(operations, ordered=False)

    async def get_merged(self, user_id: str) -> dict[str, str]:
        """Settings for all and the user's; of the same key the user's."""
        where = {"user_id": {"$in": [FOR_ALL, user_id]}}
        # What is for all comes first, and gives way.
        cursor = self._collection.find(where, {"_id": 0, "key": 1, "value": 1}).sort("user_id", 1)
        return {row["key"]: row["value"] async for row in cursor}

    async def delete(self, user_id: str, keys: list[str]) -> None:
        await self._collection.delete_many({"user_id": user_id, "key": {"$in": keys}})

    async def page(self, where: Document, *, skip: int, limit: int) -> tuple[int, list[Document]]:
        """(how many there are, those of the page), by user and key."""
        total = await self._collection.count_documents(where)
        cursor = self._collection.find(where, {"_id": 0}).sort([("user_id", 1), ("key", 1)]).skip(skip).limit(limit)
        return total, [row async for row in cursor]
