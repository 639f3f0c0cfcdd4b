"""Applications to join a group: MongoDB ``group_request``, one an applicant and group, the last one counts."""

from __future__ import annotations

from collections.abc import Iterable

from pymongo.asynchronous.database import AsyncDatabase

from imserver.clock import now_ms
from imserver.constants import HandleResult
from imserver.storage.clients import Document

COLLECTION = "group_request"


class GroupRequests:
    """The side of the actions."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._collection = database[COLLECTION]

    async def put(
        self, group_id: str, user_id: str, *, req_msg: str, join_source: int, inviter_user_id: str, ex: str = ""
    ) -> Document:
        """A pending application, in the place of an earlier one; returns its row. May run twice."""
        row: Document = {
            "handle_result": int(HandleResult.PENDING),
            "req_msg": req_msg,
            "handle_msg": "",
            "req_time": now_ms(),
            "handle_user_id": "",
            "handle_time": 0,
            "join_source": join_source,
            "inviter_user_id": inviter_user_id,
            "ex": ex,
        }
        where = {"group_id": group_id, "user_id": user_id}
        await self._collection.update_one(where, {"$set": row}, upsert=True)
        return {**where, **row}

    async def find(self, group_id: str, user_id: str) -> Document | None:
        return await self._collection.find_one({"group_id": group_id, "user_id": user_id}, {"_id": 0})

    async def handle(self, group_id: str, user_id: str, *, result: int, handle_msg: str, handle_user_id: str) -> bool:
        """Answer a pending application; False when somebody has answered it."""
        where = {"group_id": group_id, "user_id": user_id, "handle_result": int(HandleResult.PENDING)}
        answer = {
            "handle_result": result,
            "handle_msg": handle_msg,
            "handle_user_id": handle_user_id,
            "handle_time": now_ms(),
        }
        return (await self._collection.update_one(where, {"$set": answer})).matched_count == 1

    async def page(self, where: Document, *, skip: int, limit: int) -> tuple[int, list[Document]]:
        """(how many, rows of the page), newest first."""
        total = await self._collection.count_documents(where)
        cursor = self._collection.find(where, {"_id": 0}).sort([("req_time", -1), ("group_id", 1), ("user_id", 1)])
        return total, [row async for row in cursor.skip(skip).limit(limit)]

    async def count(self, where: Document) -> int:
        return await self._collection.count_documents(where)


def to_groups(group_ids: Iterable[str], handle_results: Iterable[int] = ()) -> Document:
    """Filter: applications to these groups, with these results (all when there are none)."""
    return {"group_id": {"$in": list(group_ids)}, **_with_results(handle_results)}


def of_user(user_id: str, group_ids: Iterable[str] = (), handle_results: Iterable[int] = ()) -> Document:
    """Filter: a user's own applications, to these groups when some are given."""
    wanted = list(group_ids)
    groups = {"group_id": {"$in": wanted}} if wanted else {}
    return {"user_id": user_id, **groups, **_with_results(handle_results)}


def unhandled_since(group_ids: Iterable[str], time_ms: int) -> Document:
    """Filter: pending applications to these groups that came after a time."""
    return {**to_groups(group_ids, [int(HandleResult.PENDING)]), "req_time": {"$gt": time_ms}}


def _with_results(handle_results: Iterable[int]) -> Document:
    wanted = list(handle_results)
    return {"handle_result": {"$in": wanted}} if wanted else {}
