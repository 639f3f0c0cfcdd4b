"""Whether MongoDB holds every message in the end."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pymongo.database import Database

from imserver.constants import MSGS_PER_BLOCK
from imserver.storage import msg_blocks
from imserver.storage.clients import Document

POLL_SECONDS = 0.02
STORED_SECONDS = 120.0
#: Conversations in one look.
LOOKED_AT_ONCE = 200


def wait_until_stored(database: Database[Document], stored: Mapping[str, int]) -> int:
    """Wait until MongoDB holds as many messages of each conversation as it should; returns how many are missing.

    The last slots are looked at first, which costs little. Of blocks that are written together the last may be there
    before the others, so the counting that follows is repeated until it is right.
    """
    collection = database[msg_blocks.COLLECTION]
    last_slots = [
        {"doc_id": msg_blocks.doc_id(conversation_id, seq), f"msgs.{(seq - 1) % MSGS_PER_BLOCK}.msg.seq": seq}
        for conversation_id, seq in stored.items()
        if seq
    ]
    deadline = time.monotonic() + STORED_SECONDS
    for start in range(0, len(last_slots), LOOKED_AT_ONCE):
        some = last_slots[start : start + LOOKED_AT_ONCE]
        while collection.count_documents({"$or": some}) < len(some) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    while (missing := count_missing(database, stored)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return missing


def count_missing(database: Database[Document], stored: Mapping[str, int]) -> int:
    """Messages that MongoDB does not hold, or holds too many of."""
    full = {"$filter": {"input": "$msgs", "as": "slot", "cond": {"$gt": ["$$slot.msg", None]}}}
    rows = database[msg_blocks.COLLECTION].aggregate(
        [
            {"$match": {"conversation_id": {"$in": list(stored)}}},
            {"$group": {"_id": "$conversation_id", "count": {"$sum": {"$size": full}}}},
        ]
    )
    found: dict[str, int] = {row["_id"]: row["count"] for row in rows}
    return sum(abs(count - found.get(conversation_id, 0)) for conversation_id, count in stored.items())
