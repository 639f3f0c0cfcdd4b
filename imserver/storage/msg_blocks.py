"""Messages for good: 100 a MongoDB document, ``doc_id`` = ``<conversation>:<block>``, slot = (seq - 1) % 100.

The writer may run twice over the same messages: a slot is addressed by its seq, and only ``msg`` is set, so what
users did to a message since (revoke, delete, read) stays.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from pymongo import InsertOne, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from imserver.constants import MSGS_PER_BLOCK
from imserver.storage.clients import Document

COLLECTION = "msg"
DUPLICATE_KEY = 11000


#: The document would be too large, or nested too deep: MongoDB says so every time.
PERMANENT_CODES = frozenset({10334, 17280, 17419, 17420})


class WriteFailed(Exception):
    """MongoDB refused some writes. Holds their codes and not the driver's error, whose text is the messages' content."""

    def __init__(self, codes: set[int]) -> None:
        super().__init__(f"MongoDB refused writes with codes {sorted(codes)}")
        # Without a code it is the write concern that was not fulfilled: a secondary lags.
        self.is_permanent = bool(codes) and codes <= PERMANENT_CODES


class SeqsNotContiguous(ValueError):
    """Messages of one batch must have contiguous seqs."""


@dataclass(frozen=True, slots=True)
class StoredMsgs:
    """Consecutive messages of one conversation as documents (see protocol/documents.py)."""

    conversation_id: str
    first_seq: int
    msgs: list[Document]


def doc_id(conversation_id: str, seq: int) -> str:
    return f"{conversation_id}:{(seq - 1) // MSGS_PER_BLOCK}"


def empty_block(conversation_id: str, block: int) -> Document:
    return {
        "doc_id": f"{conversation_id}:{block}",
        "conversation_id": conversation_id,
        "block": block,
        "msgs": [{"msg": None, "revoke": None, "del_list": [], "is_read": False} for _ in range(MSGS_PER_BLOCK)],
    }


def _with_msgs(conversation_id: str) -> Document:
    """Blocks of a conversation that hold a message: one may have been made for a state only (msg_states.py)."""
    return {"conversation_id": conversation_id, "msgs.msg.seq": {"$gte": 1}}


class MsgBlockWriter:
    """The writing side, used by the persist stage only."""

    def __init__(self, database: Database[Document]) -> None:
        self._collection = database[COLLECTION]

    def write(self, batches: list[StoredMsgs]) -> int:
        """Write all messages in as few calls as may be; returns how many documents were created.

        Raises:
            SeqsNotContiguous: a message's seq is not its predecessor's plus one; nothing was written.
            pymongo.errors.PyMongoError: MongoDB did not take (all of) it; run it again.
        """
        blocks = self._by_block(batches)
        # A block whose first slot is among the messages is almost surely new; the others almost surely exist.
        new = {key for key, slots in blocks.items() if 0 in slots}
        missing = self._insert({key: blocks[key] for key in new})
        created = len(new) - len(missing)
        updates = {key: blocks[key] for key in (blocks.keys() - new) | missing}
        while (absent := self._update(updates)) is not None:
            # Somebody may create a document between our update and our insert, or our look: all are updated again.
            lost = self._insert({key: blocks[key] for key in absent})
            created += len(absent) - len(lost)
        return created

    def last_seq(self, conversation_id: str) -> int:
        """The greatest seq that has a message, 0 when there is none."""
        newest = self._collection.find_one(
            _with_msgs(conversation_id), projection={"msgs.msg.seq": 1}, sort=[("block", -1)]
        )
        return _last_seq(newest)

    @staticmethod
    def _by_block(batches: list[StoredMsgs]) -> dict[tuple[str, int], dict[int, Document]]:
        blocks: dict[tuple[str, int], dict[int, Document]] = defaultdict(dict)
        for batch in batches:
            for offset, msg in enumerate(batch.msgs):
                seq = batch.first_seq + offset
                if msg["seq"] != seq:
                    raise SeqsNotContiguous(f"{batch.conversation_id}: expected seq {seq}, got {msg['seq']}")
                block, slot = divmod(seq - 1, MSGS_PER_BLOCK)
                blocks[batch.conversation_id, block][slot] = msg
        return blocks

    def _insert(self, blocks: dict[tuple[str, int], dict[int, Document]]) -> set[tuple[str, int]]:
        """Create documents; returns those that were there already."""
        if not blocks:
            return set()
        order = list(blocks)
        operations: list[InsertOne[Document]] = []
        for conversation_id, block in order:
            document = empty_block(conversation_id, block)
            for slot, msg in blocks[conversation_id, block].items():
                document["msgs"][slot]["msg"] = msg
            operations.append(InsertOne(document))
        try:
            self._collection.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            failures = error.details["writeErrors"]
            others = {failure["code"] for failure in failures} - {DUPLICATE_KEY}
            if others or not failures or error.details["writeConcernErrors"]:
                raise WriteFailed(others) from None
            return {order[failure["index"]] for failure in failures}
        return set()

    def _update(self, blocks: dict[tuple[str, int], dict[int, Document]]) -> set[tuple[str, int]] | None:
        """Set slots of existing documents; None when all were there, else the blocks that have no document now."""
        if not blocks:
            return None
        operations = [
            UpdateOne(
                {"doc_id": f"{conversation_id}:{block}"},
                {"$set": {f"msgs.{slot}.msg": msg for slot, msg in slots.items()}},
            )
            for (conversation_id, block), slots in blocks.items()
        ]
        try:
            result = self._collection.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            raise WriteFailed({failure["code"] for failure in error.details["writeErrors"]}) from None
        if result.matched_count == len(operations):
            return None
        wanted = {f"{conversation_id}:{block}": (conversation_id, block) for conversation_id, block in blocks}
        found = {
            document["doc_id"] for document in self._collection.find({"doc_id": {"$in": list(wanted)}}, {"doc_id": 1})
        }
        return {key for name, key in wanted.items() if name not in found}


def _last_seq(newest: Document | None) -> int:
    if newest is None:
        return 0
    return max((slot["msg"]["seq"] for slot in newest["msgs"] if slot.get("msg")), default=0)


class MsgBlockReader:
    """The reading side, used by actions and the admin."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._collection = database[COLLECTION]

    async def get_slots(self, wanted: dict[str, list[int]]) -> dict[str, dict[int, Document]]:
        """Slots by conversation and seq; seqs without a message are missing from the answer."""
        by_doc: dict[str, tuple[str, list[int]]] = {}
        for conversation_id, seqs in wanted.items():
            for seq in seqs:
                by_doc.setdefault(doc_id(conversation_id, seq), (conversation_id, []))[1].append(seq)
        found: dict[str, dict[int, Document]] = {conversation_id: {} for conversation_id in wanted}
        cursor = self._collection.find({"doc_id": {"$in": list(by_doc)}}, {"doc_id": 1, "msgs": 1})
        async for document in cursor:
            conversation_id, seqs = by_doc[document["doc_id"]]
            slots: list[Any] = document["msgs"]
            for seq in seqs:
                slot = slots[(seq - 1) % MSGS_PER_BLOCK]
                if slot and slot.get("msg"):
                    found[conversation_id][seq] = slot
        return found

    async def last_seq(self, conversation_id: str) -> int:
        """The greatest seq that has a message, 0 when there is none."""
        newest = await self._collection.find_one(
            _with_msgs(conversation_id), projection={"msgs.msg.seq": 1}, sort=[("block", -1)]
        )
        return _last_seq(newest)
