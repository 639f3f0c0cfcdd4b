"""Users: MongoDB ``user``."""

from __future__ import annotations

from collections.abc import Iterable

from bson import ObjectId
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from imserver.clock import now_ms
from imserver.errors import RegisteredAlready
from imserver.storage.clients import Document

COLLECTION = "user"


def new_user(
    user_id: str, nickname: str, face_url: str = "", ex: str = "", level: int = 0, receive_option: int = 0
) -> Document:
    """A level of 0 is none, and as good as AppManagerLevel.ORDINARY."""
    return {
        "user_id": user_id,
        "nickname": nickname,
        "face_url": face_url,
        "ex": ex,
        "create_time": now_ms(),
        "app_manger_level": int(level),
        "global_recv_msg_opt": receive_option,
    }


class Users:
    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._collection = database[COLLECTION]

    async def find(self, user_ids: Iterable[str]) -> list[Document]:
        """The users that exist, in the order asked."""
        wanted = list(dict.fromkeys(user_ids))
        documents = {
            document["user_id"]: document
            async for document in self._collection.find({"user_id": {"$in": wanted}}, {"_id": 0})
        }
        return [documents[user_id] for user_id in wanted if user_id in documents]

    async def exists(self, user_id: str) -> bool:
        return await self._collection.find_one({"user_id": user_id}, {"_id": 1}) is not None

    async def find_existing(self, user_ids: list[str]) -> list[str]:
        cursor = self._collection.find({"user_id": {"$in": user_ids}}, {"user_id": 1})
        return [document["user_id"] async for document in cursor]

    async def update(self, user_id: str, changes: Document, *, only_if: Document | None = None) -> bool:
        """False: no such user, or not one of whom ``only_if`` holds."""
        result = await self._collection.update_one({"user_id": user_id, **(only_if or {})}, {"$set": changes})
        return result.matched_count == 1

    async def change(self, user_id: str, changes: Document) -> Document | None:
        """Set fields; returns the user as it was before, None: no such user."""
        return await self._collection.find_one_and_update({"user_id": user_id}, {"$set": changes}, {"_id": 0})

    async def ids_after(self, user_id: str, limit: int) -> list[str]:
        """The ids that follow an id ("": from the first), in order: a walk over all users, whoever registers meanwhile."""
        cursor = self._collection.find({"user_id": {"$gt": user_id}}, {"user_id": 1}).sort("user_id", 1).limit(limit)
        return [document["user_id"] async for document in cursor]

    async def page(self, where: Document, *, skip: int, limit: int) -> tuple[int, list[Document]]:
        """(how many there are, those of the page), in the order of their ids."""
        total = await self._collection.count_documents(where)
        cursor = self._collection.find(where, {"_id": 0}).sort("user_id", 1).skip(skip).limit(limit)
        return total, [document async for document in cursor]

    async def newest(self, count: int) -> list[Document]:
        cursor = self._collection.find({}, {"_id": 0}).sort("create_time", -1).limit(count)
        return [document async for document in cursor]

    async def add(self, users: list[Document]) -> None:
        """Insert users. The unique index decides between two at once.

        Raises:
            RegisteredAlready: one of them exists, so none was added.
        """
        documents = [{"_id": ObjectId(), **user} for user in users]
        try:
            await self._collection.insert_many(documents)
        except BulkWriteError as error:
            await self._collection.delete_many({"_id": {"$in": [document["_id"] for document in documents]}})
            raise RegisteredAlready("a user id is registered already") from error
