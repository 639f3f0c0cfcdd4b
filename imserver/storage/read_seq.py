"""How far a user has read a conversation. Only moves forward.

Redis holds the value; MongoDB ``seq_user`` {user_id, conversation_id, read_seq} gets the last one soon after.
"""

from __future__ import annotations

import redis
import redis.asyncio
from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.database import Database

from imserver.conf import get_config
from imserver.protocol.conversations import shard_of
from imserver.storage import keys
from imserver.storage.clients import Document, as_text
from imserver.storage.scripts import get_script

COLLECTION = "seq_user"


def dirty_field(conversation_id: str, user_id: str) -> str:
    return f"{conversation_id}\n{user_id}"


class ReadSeqs:
    """The side of the actions."""

    def __init__(self, client: redis.asyncio.Redis, database: AsyncDatabase[Document]) -> None:
        self._client = client
        self._collection = database[COLLECTION]
        self._shards = get_config().shards

    async def get(self, user_id: str, conversation_ids: list[str]) -> dict[str, int]:
        """Read seq of each conversation, 0 where there is none. Falls back to MongoDB for what Redis has not."""
        if not conversation_ids:
            return {}
        values = await self._client.mget([self._key(item, user_id) for item in conversation_ids])
        found = {item: int(value) for item, value in zip(conversation_ids, values, strict=True) if value is not None}
        missing = [item for item in conversation_ids if item not in found]
        if missing:
            cursor = self._collection.find(
                {"user_id": user_id, "conversation_id": {"$in": missing}}, {"conversation_id": 1, "read_seq": 1}
            )
            async for document in cursor:
                found[document["conversation_id"]] = int(document["read_seq"])
        return {item: found.get(item, 0) for item in conversation_ids}

    async def forward(self, user_id: str, conversation_id: str, seq: int) -> int:
        """Move it to ``seq`` if that is ahead; returns the value before. May run twice."""
        shard = shard_of(conversation_id, self._shards)
        script_keys = [self._key(conversation_id, user_id), keys.read_dirty(shard)]
        args = [seq, dirty_field(conversation_id, user_id)]
        return int(await get_script("forward_read").run_async(self._client, script_keys, args))

    def _key(self, conversation_id: str, user_id: str) -> str:
        return keys.read_seq(shard_of(conversation_id, self._shards), conversation_id, user_id)


def flush(client: redis.Redis, database: Database[Document]) -> int:
    """Write the read seqs that changed since the last flush to MongoDB: the last value each; returns how many.

    A flush that died half-way left READ_FLUSHING behind; it is written first. ``$max`` makes repeats harmless.
    """
    written = 0
    for shard in range(get_config().shards):
        flushing = keys.read_flushing(shard)
        written += _write(client, database, flushing)
        if client.exists(keys.read_dirty(shard)):
            client.rename(keys.read_dirty(shard), flushing)
            written += _write(client, database, flushing)
    return written


def _write(client: redis.Redis, database: Database[Document], key: str) -> int:
    values = client.hgetall(key)
    operations = []
    for field, seq in values.items():
        conversation_id, _, user_id = as_text(field).partition("\n")
        operations.append(
            UpdateOne(
                {"user_id": user_id, "conversation_id": conversation_id},
                {"$max": {"read_seq": int(seq)}},
                upsert=True,
            )
        )
    if operations:
        database[COLLECTION].bulk_write(operations, ordered=False)
        client.delete(key)
    return len(operations)
