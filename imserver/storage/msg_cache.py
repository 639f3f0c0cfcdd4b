"""Recent messages in Redis: one hash a block of 100, seq -> serialized MsgData (without its seq field).

Written by commit.lua only; read here. What is missing is read from MongoDB and put back.
"""

from __future__ import annotations

import redis.asyncio

from imserver.conf import get_config
from imserver.constants import MSGS_PER_BLOCK
from imserver.protocol.conversations import shard_of
from imserver.storage import keys


class MsgCache:
    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._config = get_config()

    def _block_key(self, conversation_id: str, block: int) -> str:
        prefix = keys.msg_cache_prefix(shard_of(conversation_id, self._config.shards), conversation_id)
        return f"{prefix}{block}"

    async def get(self, wanted: dict[str, list[int]]) -> dict[str, dict[int, bytes]]:
        """Serialized messages by conversation and seq, in one round trip; what is not cached is missing."""
        pipe = self._client.pipeline(transaction=False)
        asked: list[tuple[str, list[int]]] = []
        for conversation_id, seqs in wanted.items():
            blocks: dict[int, list[int]] = {}
            for seq in seqs:
                blocks.setdefault((seq - 1) // MSGS_PER_BLOCK, []).append(seq)
            for block, block_seqs in blocks.items():
                pipe.hmget(self._block_key(conversation_id, block), [str(seq) for seq in block_seqs])
                asked.append((conversation_id, block_seqs))
        found: dict[str, dict[int, bytes]] = {conversation_id: {} for conversation_id in wanted}
        if not asked:
            return found
        for (conversation_id, seqs), values in zip(asked, await pipe.execute(), strict=True):
            found[conversation_id].update(
                {seq: value for seq, value in zip(seqs, values, strict=True) if value is not None}
            )
        return found

    async def put(self, conversation_id: str, msgs: dict[int, bytes]) -> None:
        """Put messages back that were read from MongoDB. Never overwrites: the cache may know better by now."""
        pipe = self._client.pipeline(transaction=False)
        touched = set()
        for seq, msg in msgs.items():
            key = self._block_key(conversation_id, (seq - 1) // MSGS_PER_BLOCK)
            pipe.hsetnx(key, str(seq), msg)
            touched.add(key)
        for key in touched:
            pipe.expire(key, self._config.cache_ttl_seconds)
        if touched:
            await pipe.execute()
