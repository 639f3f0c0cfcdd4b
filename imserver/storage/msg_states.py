"""What users do to stored messages: revoke, delete, read. Kept beside the message in its slot (see msg_blocks.py).

A message that was read may be on its way to MongoDB still. So a block that is not there yet is made here, with empty slots:
persist finds it and sets only ``msg``, and what was done to the message before stays. All of it may run twice.
"""

from __future__ import annotations

from typing import Any

from pymongo import InsertOne, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from imserver.constants import MSGS_PER_BLOCK
from imserver.storage.clients import Document
from imserver.storage.msg_blocks import COLLECTION, DUPLICATE_KEY, doc_id, empty_block
from imserver.storage.msg_cache import by_block


class MsgStates:
    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._collection = database[COLLECTION]

    async def delete_for(self, user_id: str, conversation_id: str, seqs: list[int]) -> None:
        """Hide messages from one user."""
        await self._update(conversation_id, seqs, "$addToSet", "del_list", user_id)

    async def delete(self, conversation_id: str, seqs: list[int]) -> None:
        """Delete messages for everybody. The mark counts; a message that persist brings later is as deleted."""
        await self._update(conversation_id, seqs, "$set", "is_deleted", True)
        await self._collection.bulk_write(
            [
                UpdateOne(
                    {"doc_id": f"{conversation_id}:{block}"},
                    {"$set": {"msgs.$[slot].msg.content": ""}},
                    array_filters=[{"slot.is_deleted": True, "slot.msg.seq": {"$in": block_seqs}}],
                )
                for block, block_seqs in by_block(seqs).items()
            ],
            ordered=False,
        )

    async def set_read(self, conversation_id: str, seqs: list[int]) -> None:
        """Messages of a single chat were read by whom they were for."""
        await self._update(conversation_id, seqs, "$set", "is_read", True)

    async def revoke(self, conversation_id: str, seq: int, revocation: Document) -> bool:
        """Take a stored message back; False when that was done before, or there is none. Of two at once one succeeds."""
        result = await self._collection.update_one(
            {"doc_id": doc_id(conversation_id, seq)},
            {"$set": {"msgs.$[slot].revoke": revocation}},
            array_filters=[{"slot.msg.seq": seq, "slot.revoke": None}],
        )
        return result.modified_count == 1

    async def _update(self, conversation_id: str, seqs: list[int], operator: str, name: str, value: Any) -> None:
        blocks = by_block(seqs)
        if not blocks:
            return
        operations = [
            UpdateOne(
                {"doc_id": f"{conversation_id}:{block}"},
                {operator: {f"msgs.{(seq - 1) % MSGS_PER_BLOCK}.{name}": value for seq in block_seqs}},
            )
            for block, block_seqs in blocks.items()
        ]
        result = await self._collection.bulk_write(operations, ordered=False)
        if result.matched_count < len(operations):
            await self._ensure_blocks(conversation_id, list(blocks))
            await self._collection.bulk_write(operations, ordered=False)

    async def _ensure_blocks(self, conversation_id: str, blocks: list[int]) -> None:
        """Make the blocks that are missing."""
        operations: list[InsertOne[Document]] = [InsertOne(empty_block(conversation_id, block)) for block in blocks]
        try:
            await self._collection.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            if any(failure["code"] != DUPLICATE_KEY for failure in error.details["writeErrors"]):
                raise
