"""Friends and blacklists: MongoDB ``friend`` {owner_user_id, friend_user_id, …} and ``black`` {owner_user_id, block_user_id, …}.

Both are lists of one owner: that b stands in a's list says nothing of b's. Writers call ``user_facts.forget`` with the owner.
"""

from __future__ import annotations

from collections.abc import Iterable

from pymongo.asynchronous.database import AsyncDatabase

from imserver.clock import now_ms
from imserver.constants import FriendSource
from imserver.storage.clients import Document

FRIENDS = "friend"
BLACKS = "black"


def new_friend(owner_user_id: str, friend_user_id: str, add_source: int = FriendSource.IMPORT) -> Document:
    return {
        "owner_user_id": owner_user_id,
        "friend_user_id": friend_user_id,
        "remark": "",
        "create_time": now_ms(),
        "add_source": int(add_source),
        "operator_user_id": owner_user_id,
        "ex": "",
        "is_pinned": False,
    }


def new_black(owner_user_id: str, block_user_id: str, ex: str = "") -> Document:
    return {
        "owner_user_id": owner_user_id,
        "block_user_id": block_user_id,
        "create_time": now_ms(),
        "add_source": 0,
        "operator_user_id": owner_user_id,
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

    async def blocked_ids(self, owner_user_ids: Iterable[str]) -> dict[str, frozenset[str]]:
        """Whom each owner has blocked; owners who blocked nobody are missing."""
        found: dict[str, set[str]] = {}
        cursor = self._blacks.find(
            {"owner_user_id": {"$in": list(owner_user_ids)}}, {"_id": 0, "owner_user_id": 1, "block_user_id": 1}
        )
        async for row in cursor:
            found.setdefault(row["owner_user_id"], set()).add(row["block_user_id"])
        return {owner: frozenset(blocked) for owner, blocked in found.items()}
