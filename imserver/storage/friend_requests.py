"""Applications to become friends: MongoDB ``friend_request``, one an applicant and target, the last one counts.

An agreement is noted first, which decides between two answers, and the friends are made afterwards. Until they are, the row
says ``is_unfinished``: when the process dies in between, the same answer given again goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterable

from pymongo.asynchronous.database import AsyncDatabase

from imserver.clock import now_ms
from imserver.constants import HandleResult
from imserver.storage.clients import Document

COLLECTION = "friend_request"

#: An agreement that is unfinished for longer than this is nobody's work any more.
ABANDONED_MS = 10_000


class FriendRequests:
    """The side of the actions."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._collection = database[COLLECTION]

    async def put(self, from_user_id: str, to_user_id: str, *, req_msg: str, ex: str) -> Document:
        """A pending application, in the place of an earlier one; returns its row. May run twice."""
        row: Document = {
            "handle_result": int(HandleResult.PENDING),
            "req_msg": req_msg,
            "create_time": now_ms(),
            "handler_user_id": "",
            "handle_msg": "",
            "handle_time": 0,
            "ex": ex,
            "is_unfinished": False,
        }
        where = _between(from_user_id, to_user_id)
        await self._collection.update_one(where, {"$set": row}, upsert=True)
        return {**where, **row}

    async def find(self, from_user_id: str, to_user_id: str) -> Document | None:
        return await self._collection.find_one(_between(from_user_id, to_user_id), {"_id": 0})

    async def find_both(self, user_id: str, other_id: str) -> list[Document]:
        """The applications between two users; the first user's own first."""
        found = [await self.find(user_id, other_id), await self.find(other_id, user_id)]
        return [row for row in found if row is not None]

    async def handle(
        self, from_user_id: str, to_user_id: str, *, result: int, handle_msg: str, handler_user_id: str
    ) -> bool:
        """Answer an application that is pending, or take over an abandoned agreement; False when it is answered."""
        states: list[Document] = [{"handle_result": int(HandleResult.PENDING)}]
        if result == HandleResult.AGREED:
            states.append(
                {"handle_result": result, "is_unfinished": True, "handle_time": {"$lt": now_ms() - ABANDONED_MS}}
            )
        answer = {
            "handle_result": result,
            "handle_msg": handle_msg,
            "handler_user_id": handler_user_id,
            "handle_time": now_ms(),
            "is_unfinished": result == HandleResult.AGREED,
        }
        where = {**_between(from_user_id, to_user_id), "$or": states}
        return (await self._collection.update_one(where, {"$set": answer})).matched_count == 1

    async def handle_opposite(self, from_user_id: str, to_user_id: str, *, handler_user_id: str) -> None:
        """Who become friends have agreed to what the target itself had applied for."""
        where = {**_between(to_user_id, from_user_id), "handle_result": int(HandleResult.PENDING)}
        answer = {
            "handle_result": int(HandleResult.AGREED),
            "handler_user_id": handler_user_id,
            "handle_time": now_ms(),
        }
        await self._collection.update_one(where, {"$set": answer})

    async def finish(self, user_id: str, other_id: str) -> None:
        """The two were made friends, or are not to be any more: no agreement between them is gone on with."""
        both = [_between(user_id, other_id), _between(other_id, user_id)]
        await self._collection.update_many({"$or": both, "is_unfinished": True}, {"$set": {"is_unfinished": False}})

    async def page(self, where: Document, *, skip: int, limit: int) -> tuple[int, list[Document]]:
        """(how many, rows of the page), newest first."""
        order = [("create_time", -1), ("from_user_id", 1), ("to_user_id", 1)]
        cursor = self._collection.find(where, {"_id": 0}).sort(order).skip(skip).limit(limit)
        return await self._collection.count_documents(where), [row async for row in cursor]

    async def count(self, where: Document) -> int:
        return await self._collection.count_documents(where)


def received_by(user_id: str, handle_results: Iterable[int] = ()) -> Document:
    """Filter: applications to a user, with these results (all when there are none)."""
    return {"to_user_id": user_id, **_with_results(handle_results)}


def sent_by(user_id: str, handle_results: Iterable[int] = ()) -> Document:
    """Filter: a user's own applications, with these results (all when there are none)."""
    return {"from_user_id": user_id, **_with_results(handle_results)}


def unhandled_since(user_id: str, time_ms: int) -> Document:
    """Filter: pending applications to a user that came after a time."""
    return {**received_by(user_id, [int(HandleResult.PENDING)]), "create_time": {"$gt": time_ms}}


def _between(from_user_id: str, to_user_id: str) -> Document:
    return {"from_user_id": from_user_id, "to_user_id": to_user_id}


def _with_results(handle_results: Iterable[int]) -> Document:
    wanted = list(handle_results)
    return {"handle_result": {"$in": wanted}} if wanted else {}
