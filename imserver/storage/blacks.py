"""Blacklists, the part that changes and lists them: MongoDB ``black``, see ``storage/friends.py``."""

from __future__ import annotations

from collections.abc import Iterable

from pymongo import ASCENDING
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from imserver.errors import DuplicateKey
from imserver.storage.clients import Document
from imserver.storage.friends import BLACKS

#: Order of a blacklist on every page: who was blocked last stands last.
BLACK_ORDER = [("create_time", ASCENDING), ("block_user_id", ASCENDING)]


def blacks_of(user_id: str) -> str:
    """Name of a user's blacklist in the version log."""
    return f"black:{user_id}"


class Blacks:
    """The side of the actions."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._blacks = database[BLACKS]

    async def add(self, row: Document) -> None:
        """The unique index decides between two at once. Raises DuplicateKey."""
        try:
            await self._blacks.insert_one(dict(row))
        except DuplicateKeyError as error:
            raise DuplicateKey(f"{row['block_user_id']} is blocked already") from error

    async def remove(self, owner_user_id: str, block_user_id: str) -> bool:
        """False when the user was not blocked."""
        where = {"owner_user_id": owner_user_id, "block_user_id": block_user_id}
        return (await self._blacks.delete_one(where)).deleted_count == 1

    async def has(self, owner_user_id: str, block_user_id: str) -> bool:
        where = {"owner_user_id": owner_user_id, "block_user_id": block_user_id}
        return await self._blacks.find_one(where, {"_id": 1}) is not None

    async def find(self, owner_user_id: str, user_ids: Iterable[str]) -> list[Document]:
        """The owner's rows of these users, in the order asked."""
        wanted = list(dict.fromkeys(user_ids))
        cursor = self._blacks.find({"owner_user_id": owner_user_id, "block_user_id": {"$in": wanted}}, {"_id": 0})
        found = {row["block_user_id"]: row async for row in cursor}
        return [found[user_id] for user_id in wanted if user_id in found]

    async def page(self, owner_user_id: str, *, skip: int, limit: int) -> tuple[int, list[Document]]:
        """(how many, rows of the page)."""
        where = {"owner_user_id": owner_user_id}
        cursor = self._blacks.find(where, {"_id": 0}).sort(BLACK_ORDER).skip(skip).limit(limit)
        return await self._blacks.count_documents(where), [row async for row in cursor]
