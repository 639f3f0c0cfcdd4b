"""Live figures of a conversation and its stored messages, for the admin. Sync: Django's admin is."""

from __future__ import annotations

from dataclasses import dataclass

import redis
from pymongo.database import Database

from imserver.conf import get_config
from imserver.protocol.conversations import shard_of
from imserver.storage import keys, msg_blocks, read_seq
from imserver.storage.clients import Document
from imserver.storage.msg_blocks import MsgBlockWriter


@dataclass(frozen=True, slots=True)
class Figures:
    max_seq: int
    read_seq: int
    last_ms: int


def get(client: redis.Redis, database: Database[Document], owner_user_id: str, conversation_id: str) -> Figures:
    """Seqs of one owner's conversation; from MongoDB what Redis does not have."""
    shard = shard_of(conversation_id, get_config().shards)
    curr, time_ms = client.hmget(keys.malloc_seq(shard, conversation_id), ["CURR", "TIME"])
    read = client.get(keys.read_seq(shard, conversation_id, owner_user_id))
    return Figures(
        max_seq=int(curr) if curr is not None else MsgBlockWriter(database).last_seq(conversation_id),
        read_seq=int(read) if read is not None else _stored_read_seq(database, owner_user_id, conversation_id),
        last_ms=int(time_ms or 0),
    )


def _stored_read_seq(database: Database[Document], user_id: str, conversation_id: str) -> int:
    stored = database[read_seq.COLLECTION].find_one(
        {"user_id": user_id, "conversation_id": conversation_id}, {"read_seq": 1}
    )
    return int(stored["read_seq"]) if stored else 0


def last_block(database: Database[Document], conversation_id: str) -> int:
    """Number of the newest block, -1 when nothing is stored."""
    newest = database[msg_blocks.COLLECTION].find_one(
        {"conversation_id": conversation_id}, {"block": 1}, sort=[("block", -1)]
    )
    return -1 if newest is None else int(newest["block"])


def block_slots(database: Database[Document], conversation_id: str, block: int) -> list[Document]:
    """Slots of a block that hold a message, newest first."""
    document = database[msg_blocks.COLLECTION].find_one({"doc_id": f"{conversation_id}:{block}"})
    if document is None:
        return []
    return [slot for slot in reversed(document["msgs"]) if slot and slot.get("msg")]
