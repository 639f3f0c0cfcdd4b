"""Small things that users keep on the server, favourites mostly: MongoDB ``user_command``, one document each."""

from __future__ import annotations

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from imserver.clock import now_ms
from imserver.errors import DuplicateKey
from imserver.storage.clients import Document

COLLECTION = "user_command"


class UserCommands:
    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._collection = database[COLLECTION]

    async def count(self, user_id: str) -> int:
        return await self._collection.count_documents({"user_id": user_id})

    async def add(self, user_id: str, kind: int, uuid: str, value: str, ex: str) -> None:
        """Raises DuplicateKey."""
        row = {"user_id": user_id, "type": kind, "uuid": uuid, "value": value, "ex": ex, "create_time": now_ms()}
        try:
            await self._collection.insert_one(row)
        except DuplicateKeyError as error:
            raise DuplicateKey(f"there is a command {uuid!r} of type {kind}") from error

    async def update(self, user_id: str, kind: int, uuid: str, changes: Document) -> bool:
        """False: there is none."""
        where = {"user_id": user_id, "type": kind, "uuid": uuid}
        return (await self._collection.update_one(where, {"$set": changes})).matched_count == 1

    async def delete(self, user_id: str, kind: int, uuid: str) -> bool:
        """False: there is none."""
        where = {"user_id": user_id, "type": kind, "uuid": uuid}
        return (await self._collection.delete_one(where)).deleted_count == 1

    async def find(self, user_id: str, kind: int | None = None) -> list[Document]:
        """Of a type or of all, the oldest first."""
        where = {"user_id": user_id, **({} if kind is None else {"type": kind})}
        return [row async for row in self._collection.find(where, {"_id": 0}).sort("create_time", 1)]
