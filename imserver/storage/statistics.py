"""Figures for a dashboard: who was made when, who said how much. MongoDB only; reads a lot, so for app admins now and then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from imserver.storage import groups, msg_blocks, users
from imserver.storage.clients import Document

#: Counting messages reads every block; it may take this long, and no longer.
MOST_MS = 20_000

USERS, GROUPS = users.COLLECTION, groups.GROUPS


@dataclass(frozen=True, slots=True)
class Made:
    """How many there are; how many there were before a time; how many were made on each day since."""

    total: int
    before: int
    by_day: dict[str, int]


@dataclass(frozen=True, slots=True)
class Spoken:
    """Messages of a time: all of them, of how many senders or groups, by day, and those of a page's senders or groups."""

    msg_count: int
    speaker_count: int
    by_day: dict[str, int]
    page: list[tuple[str, int]]


def _day(field: str) -> Document:
    return {"$dateToString": {"format": "%Y-%m-%d", "date": {"$toDate": f"${field}"}}}


class Statistics:
    """Times are Unix milliseconds, the end not included; days are UTC."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._database = database

    async def made(self, collection: str, start_ms: int, end_ms: int) -> Made:
        """Of users or groups, by their ``create_time``."""
        rows = self._database[collection]
        pipeline: list[Document] = [
            {"$match": {"create_time": {"$gte": start_ms, "$lt": end_ms}}},
            {"$group": {"_id": _day("create_time"), "n": {"$sum": 1}}},
            {"$sort": {"_id": 1}},
        ]
        by_day = {item["_id"]: int(item["n"]) async for item in await rows.aggregate(pipeline)}
        before = await rows.count_documents({"create_time": {"$lt": start_ms}})
        return Made(await rows.count_documents({}), before, by_day)

    async def spoken(
        self, by: str, kinds: str, start_ms: int, end_ms: int, *, is_ascending: bool, skip: int, limit: int
    ) -> Spoken:
        """Messages by ``send_id`` or ``group_id``, of conversations whose id begins with one of the kinds (``si|sg``)."""
        within = {"$gte": start_ms, "$lt": end_ms}
        pipeline: list[Document] = [
            {"$match": {"conversation_id": {"$regex": f"^({kinds})_"}, "msgs.msg.send_time": within}},
            {"$unwind": "$msgs"},
            {"$match": {"msgs.msg.send_time": within}},
            {"$project": {"_id": 0, "who": f"$msgs.msg.{by}", "day": _day("msgs.msg.send_time")}},
            {
                "$facet": {
                    "days": [{"$group": {"_id": "$day", "n": {"$sum": 1}}}, {"$sort": {"_id": 1}}],
                    "all": [{"$group": {"_id": "$who", "n": {"$sum": 1}}}, {"$count": "n"}],
                    "page": [
                        {"$group": {"_id": "$who", "n": {"$sum": 1}}},
                        {"$sort": {"n": 1 if is_ascending else -1, "_id": 1}},
                        {"$skip": skip},
                        {"$limit": limit},
                    ],
                }
            },
        ]
        cursor = await self._database[msg_blocks.COLLECTION].aggregate(pipeline, maxTimeMS=MOST_MS, allowDiskUse=True)
        found: dict[str, Any] = await anext(cursor)
        by_day = {item["_id"]: int(item["n"]) for item in found["days"]}
        speakers = int(found["all"][0]["n"]) if found["all"] else 0
        return Spoken(sum(by_day.values()), speakers, by_day, [(item["_id"], int(item["n"])) for item in found["page"]])
