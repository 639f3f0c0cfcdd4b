"""Friends and blacklists: MongoDB ``friend`` {owner_user_id, friend_user_id, …} and ``black`` {owner_user_id, block_user_id, …}.

Both are lists of one owner: that b stands in a's list says nothing of b's. Writers call ``user_facts.forget`` with the owner.
What changes blacklists is in ``storage/blacks.py``.
"""

from __future__ import annotations

from collections.abc import Iterable

from pymongo import ASCENDING, DESCENDING
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from imserver.clock import now_ms
from imserver.constants import FriendSource
from imserver.storage.clients import Document
from imserver.storage.msg_blocks import DUPLICATE_KEY

FRIENDS = "friend"
BLACKS = "black"

#: Order of a friend list, on every page and in the list of all ids: who was added last stands last, as clients append it.
FRIEND_ORDER = [("is_pinned", DESCENDING), ("create_time", ASCENDING), ("friend_user_id", ASCENDING)]
#: Item of a friend list's version log that is no friend (a user id has no colon): the order of the list.
ORDER_ITEM = ":order"


def new_friend(
    owner_user_id: str, friend_user_id: str, add_source: int = FriendSource.IMPORT, operator_user_id: str = ""
) -> Document:
    return {
        "owner_user_id": owner_user_id,
        "friend_user_id": friend_user_id,
        "remark": "",
        "create_time": now_ms(),
        "add_source": int(add_source),
        "operator_user_id": operator_user_id or owner_user_id,
        "ex": "",
        "is_pinned": False,
    }


def new_black(owner_user_id: str, block_user_id: str, ex: str = "", operator_user_id: str = "") -> Document:
    return {
        "owner_user_id": owner_user_id,
        "block_user_id": block_user_id,
        "create_time": now_ms(),
        "add_source": 0,
        "operator_user_id": operator_user_id or owner_user_id,
        "ex": ex,
    }


class Friends:
    """The side of the actions."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._friends = database[FRIENDS]
        self._blacks = database[BLACKS]

    async def is_friend(self, owner_user_id: str, user_id: str) -> bool:
        """Is the user in the owner's list?"""
        found = await self._friends.find_one({"owner_user_id": owner_user_id, "friend_user_id": user_id}, {"_id": 1})
        return found is not None

    async def find_friends(self, owner_user_id: str, user_ids: Iterable[str]) -> list[Document]:
        """The owner's rows of these users, in the order asked."""
        wanted = list(dict.fromkeys(user_ids))
        cursor = self._friends.find({"owner_user_id": owner_user_id, "friend_user_id": {"$in": wanted}}, {"_id": 0})
        found = {row["friend_user_id"]: row async for row in cursor}
        return [found[user_id] for user_id in wanted if user_id in found]

    async def page(self, owner_user_id: str, *, skip: int, limit: int) -> tuple[int, list[Document]]:
        """(how many, rows of the page) of a friend list."""
        where = {"owner_user_id": owner_user_id}
        cursor = self._friends.find(where, {"_id": 0}).sort(FRIEND_ORDER).skip(skip).limit(limit)
        return await self._friends.count_documents(where), [row async for row in cursor]

    async def friend_ids(self, owner_user_id: str) -> list[str]:
        """Ids of the whole list in its order, from the index alone."""
        cursor = self._friends.find({"owner_user_id": owner_user_id}, {"friend_user_id": 1, "_id": 0})
        return [row["friend_user_id"] async for row in cursor.sort(FRIEND_ORDER)]

    async def owners_having(self, user_id: str) -> list[str]:
        """Who has the user in the own list, in no order; from the index alone."""
        cursor = self._friends.find({"friend_user_id": user_id}, {"owner_user_id": 1, "_id": 0})
        return [row["owner_user_id"] async for row in cursor]

    async def add(self, rows: list[Document]) -> list[Document]:
        """Add who is not in the list yet; returns the rows that were added. May run twice."""
        try:
            await self._friends.insert_many([dict(row) for row in rows], ordered=False)
        except BulkWriteError as error:
            problems = (error.details or {}).get("writeErrors", [])
            if any(problem["code"] != DUPLICATE_KEY for problem in problems):
                raise
            refused = {problem["index"] for problem in problems}
            return [row for at, row in enumerate(rows) if at not in refused]
        return rows

    async def remove(self, owner_user_id: str, friend_user_id: str) -> bool:
        """False when the user was not in the list."""
        where = {"owner_user_id": owner_user_id, "friend_user_id": friend_user_id}
        return (await self._friends.delete_one(where)).deleted_count == 1

    async def update(self, owner_user_id: str, friend_user_ids: list[str], changes: Document) -> None:
        """Change fields of the owner's rows; who is in the list no more stays out. May run twice."""
        where = {"owner_user_id": owner_user_id, "friend_user_id": {"$in": friend_user_ids}}
        await self._friends.update_many(where, {"$set": changes})

    async def blocked_ids(self, owner_user_ids: Iterable[str]) -> dict[str, frozenset[str]]:
        """Whom each owner has blocked; owners who blocked nobody are missing."""
        found: dict[str, set[str]] = {}
        cursor = self._blacks.find(
            {"owner_user_id": {"$in": list(owner_user_ids)}}, {"_id": 0, "owner_user_id": 1, "block_user_id": 1}
        )
        async for row in cursor:
            found.setdefault(row["owner_user_id"], set()).add(row["block_user_id"])
        return {owner: frozenset(blocked) for owner, blocked in found.items()}
