"""Recent messages in Redis: one hash a block of 100, seq -> serialized MsgData (without its seq field).

commit.lua writes what is new. What is missing is read from MongoDB and put back. What users do to a message (revoke, delete,
read) is told to the cache as well, and must never be undone by a reader that looked into MongoDB before:

- An empty value is a marker: look in the store. It is set before MongoDB is changed, stays until the block expires, and is
  never overwritten. So a revoked or deleted message does not come out of the cache again, whoever is killed when.
- Every change counts the block's field ``v``. A reader takes ``v`` in its first look and puts back only while it is the same.

Both renew the block's expiry, so they outlive every reader that is under way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import redis.asyncio

from imserver.conf import get_config
from imserver.constants import MSGS_PER_BLOCK
from imserver.protocol.conversations import shard_of
from imserver.protocol.slots import READ_SUFFIX
from imserver.storage import keys
from imserver.storage.scripts import get_script

#: Value of a message that has to be looked up in the store.
MARKER = b""
#: Field of a block's hash that counts changes.
VERSION = "v"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the cache found; ``marked`` and ``versions`` are for ``put``."""

    msgs: dict[str, dict[int, bytes]]
    marked: dict[str, set[int]] = field(default_factory=dict)
    versions: dict[tuple[str, int], bytes] = field(default_factory=dict)


class MsgCache:
    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._config = get_config()

    def _block_key(self, conversation_id: str, block: int) -> str:
        prefix = keys.msg_cache_prefix(shard_of(conversation_id, self._config.shards), conversation_id)
        return f"{prefix}{block}"

    async def get(self, wanted: dict[str, list[int]]) -> dict[str, dict[int, bytes]]:
        """Serialized messages by conversation and seq; what is not cached is missing."""
        return (await self.look(wanted)).msgs

    async def look(self, wanted: dict[str, list[int]]) -> Look:
        """The cached messages of ``wanted``, in one round trip."""
        found = Look({conversation_id: {} for conversation_id in wanted})
        pipe = self._client.pipeline(transaction=False)
        asked: list[tuple[str, int, list[int]]] = []
        for conversation_id, seqs in wanted.items():
            for block, block_seqs in by_block(seqs).items():
                pipe.hmget(self._block_key(conversation_id, block), [VERSION, *(str(seq) for seq in block_seqs)])
                asked.append((conversation_id, block, block_seqs))
        if not asked:
            return found
        for (conversation_id, block, seqs), (version, *values) in zip(asked, await pipe.execute(), strict=True):
            found.versions[conversation_id, block] = version or b""
            for seq, value in zip(seqs, values, strict=True):
                if value:
                    found.msgs[conversation_id][seq] = value
                elif value == MARKER:
                    found.marked.setdefault(conversation_id, set()).add(seq)
        return found

    async def put(self, conversation_id: str, msgs: dict[int, bytes], look: Look | None = None) -> None:
        """Put messages back that were read from MongoDB after ``look``. Never overwrites: the cache may know better by now."""
        calls: list[tuple[list[Any], list[Any]]] = []
        for block, seqs in by_block(msgs).items():
            version = look.versions.get((conversation_id, block), b"") if look else b""
            args: list[Any] = [version, self._config.cache_ttl_seconds]
            for seq in seqs:
                args += (seq, msgs[seq])
            calls.append(([self._block_key(conversation_id, block)], args))
        await self._run("put_unchanged", calls)

    async def mark(self, conversation_id: str, seqs: list[int]) -> None:
        """From now on these messages are looked up in the store. To be called before the store is changed."""
        await self._change(conversation_id, seqs, "set", MARKER)

    async def set_read(self, conversation_id: str, seqs: list[int]) -> None:
        """Say of these messages, where they are cached, that they were read. To be called after the store was changed."""
        await self._change(conversation_id, seqs, "append", READ_SUFFIX)

    async def _change(self, conversation_id: str, seqs: list[int], how: str, argument: bytes) -> None:
        calls: list[tuple[list[Any], list[Any]]] = [
            (
                [self._block_key(conversation_id, block)],
                [self._config.cache_ttl_seconds, how, argument, *block_seqs],
            )
            for block, block_seqs in by_block(seqs).items()
        ]
        await self._run("change_cached", calls)

    async def _run(self, script: str, calls: list[tuple[list[Any], list[Any]]]) -> None:
        if not calls:
            return
        for result in await get_script(script).run_many_async(self._client, calls):
            if isinstance(result, Exception):
                raise result


def by_block(seqs: list[int] | dict[int, Any]) -> dict[int, list[int]]:
    blocks: dict[int, list[int]] = {}
    for seq in seqs:
        blocks.setdefault((seq - 1) // MSGS_PER_BLOCK, []).append(seq)
    return blocks
