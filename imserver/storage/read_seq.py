"""How far a user has read a conversation. Only moves forward.

Redis holds the value; MongoDB ``seq_user`` {user_id, conversation_id, read_seq} gets the last one soon after.
"""

from __future__ import annotations

import pymongo
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
#: A look-up of one document while messages wait.
SEED_SECONDS = 0.3


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
        if not await self._client.exists(self._key(conversation_id, user_id)):
            # Redis lost it, or never had it: without the stored value this could be a step back.
            known = (await self.get(user_id, [conversation_id]))[conversation_id]
            await self._client.set(self._key(conversation_id, user_id), known, nx=True)
        script_keys = [self._key(conversation_id, user_id), keys.read_dirty(shard)]
        args = [seq, dirty_field(conversation_id, user_id)]
        return int(await get_script("forward_read").run_async(self._client, script_keys, args))

    def _key(self, conversation_id: str, user_id: str) -> str:
        return keys.read_seq(shard_of(conversation_id, self._shards), conversation_id, user_id)


class ReadSeqWriter:
    """The side of the tasks."""

    def __init__(self, client: redis.Redis, database: Database[Document]) -> None:
        self._client = client
        self._collection = database[COLLECTION]
        self._shards = get_config().shards

    def seed(self, conversation_id: str, user_id: str) -> None:
        """Put the stored value into Redis where it has none, before something moves it."""
        key = keys.read_seq(shard_of(conversation_id, self._shards), conversation_id, user_id)
        if not self._client.exists(key):
            at = {"user_id": user_id, "conversation_id": conversation_id}
            with pymongo.timeout(SEED_SECONDS):
                stored = self._collection.find_one(at, {"read_seq": 1})
            self._client.set(key, int(stored["read_seq"]) if stored else 0, nx=True)

    def forward_over_gap(self, conversation_id: str, used: int, start: int) -> None:
        """Seqs between ``used`` and ``start`` will never be: users who had read up to ``used`` have read up to ``start``."""
        shard = shard_of(conversation_id, self._shards)
        for document in self._collection.find({"conversation_id": conversation_id, "read_seq": {"$gte": used}}):
            user_id = document["user_id"]
            script_keys = [keys.read_seq(shard, conversation_id, user_id), keys.read_dirty(shard)]
            get_script("forward_read").run(self._client, script_keys, [start, dirty_field(conversation_id, user_id)])


def flush(client: redis.Redis, database: Database[Document]) -> int:
    """Write the read seqs that changed since the last flush to MongoDB: the last value each; returns how many.

    May run twice, also at once: ``$max`` makes repeats harmless, and a field leaves READ_DIRTY only with the value written.
    """
    written = 0
    for shard in range(get_config().shards):
        key = keys.read_dirty(shard)
        values = client.hgetall(key)
        if not values:
            continue
        operations = []
        for field, seq in values.items():
            conversation_id, _, user_id = as_text(field).partition("\n")
            at = {"user_id": user_id, "conversation_id": conversation_id}
            operations.append(UpdateOne(at, {"$max": {"read_seq": int(seq)}}, upsert=True))
        database[COLLECTION].bulk_write(operations, ordered=False)
        get_script("clean_read_dirty").run(client, [key], [part for item in values.items() for part in item])
        written += len(operations)
    return written
