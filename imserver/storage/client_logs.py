"""Records of log files that clients uploaded: MongoDB ``client_log``. The files themselves are objects."""

from __future__ import annotations

import re
from typing import Any

from pymongo import DESCENDING
from pymongo.asynchronous.database import AsyncDatabase

from imserver.storage.clients import Document

COLLECTION = "client_log"

#: What a search looks for the word in.
_SEARCHED = ("user_id", "platform", "filename", "version", "system_type")


class ClientLogs:
    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._collection = database[COLLECTION]

    async def add(self, records: list[Document]) -> None:
        await self._collection.insert_many(records)

    async def find_existing(self, log_ids: list[str]) -> set[str]:
        return set(await self._collection.distinct("log_id", {"log_id": {"$in": log_ids}}))

    async def delete(self, log_ids: list[str]) -> None:
        await self._collection.delete_many({"log_id": {"$in": log_ids}})

    async def search(
        self, keyword: str, begin_ms: int, end_ms: int, skip: int, limit: int
    ) -> tuple[int, list[Document]]:
        """How many there are from one time to the other, both included, and a page of them, the newest first."""
        wanted: dict[str, Any] = {"create_time": {"$gte": begin_ms, "$lte": end_ms}}
        if keyword:
            pattern = {"$regex": re.escape(keyword), "$options": "i"}
            wanted["$or"] = [{name: pattern} for name in _SEARCHED]
        order = [("create_time", DESCENDING), ("log_id", DESCENDING)]
        cursor = self._collection.find(wanted, {"_id": 0}).sort(order).skip(skip).limit(limit)
        return await self._collection.count_documents(wanted), [document async for document in cursor]
