"""Looking through stored messages, for operators: by sender, receiver, kind and day; and by age."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from imserver.protocol.conversations import GROUP_PREFIX, SINGLE_PREFIX
from imserver.storage.clients import Document
from imserver.storage.msg_blocks import COLLECTION

#: What people, and app servers in their names, said to each other.
IN_CHATS = {"$regex": f"^({SINGLE_PREFIX}|{GROUP_PREFIX})"}


class MsgHistory:
    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._collection = database[COLLECTION]

    async def search(self, where: Document, *, skip: int, limit: int) -> tuple[int, list[Document]]:
        """(how many messages of chats there are, slots of the page), the newest first; no notifications, and nothing that is
        deleted for everybody.

        Looks through all blocks: slow when there are many.

        Args:
            where: conditions on a slot, as ``{"msg.send_id": …}``.
        """
        slot = {"msg.seq": {"$gte": 1}, "is_deleted": {"$ne": True}, **where}
        found: list[Document] = [
            {"$match": {"conversation_id": IN_CHATS, "msgs": {"$elemMatch": slot}}},
            {"$project": {"_id": 0, "msgs": 1}},
            {"$unwind": "$msgs"},
            {"$replaceRoot": {"newRoot": "$msgs"}},
            {"$match": slot},
        ]
        counts = await (await self._collection.aggregate([*found, {"$count": "total"}])).to_list()
        order = {"$sort": {"msg.send_time": -1, "msg.seq": -1}}
        page: list[Document] = [order, {"$skip": skip}, {"$limit": limit}]
        cursor = await self._collection.aggregate([*found, *page], allowDiskUse=True)
        return (counts[0]["total"] if counts else 0), await cursor.to_list()

    async def blocks_before(self, conversation_id: str, time_ms: int) -> AsyncIterator[tuple[list[int], int]]:
        """Of each block: seqs of the messages that were sent before a time, and the first seq that was not (0: none).

        In order; ends with the first block that has none of the former.
        """
        fields: Any = {"msgs.msg.seq": 1, "msgs.msg.send_time": 1}
        async for block in self._collection.find({"conversation_id": conversation_id}, fields).sort("block", 1):
            times = {slot["msg"]["seq"]: slot["msg"]["send_time"] for slot in block["msgs"] if slot.get("msg")}
            seqs = [seq for seq, sent in times.items() if sent < time_ms]
            if times and not seqs:
                return
            yield seqs, min((seq for seq, sent in times.items() if sent >= time_ms), default=0)
