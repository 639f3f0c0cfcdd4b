"""Seqs of a conversation: Redis hands them out from ranges that MongoDB reserves.

MongoDB ``seq``: {conversation_id, max_seq end of everything ever reserved, min_seq, gaps [{from, to}]}. A seq is never
handed out twice: a range that was lost with Redis is skipped and noted as a gap.
"""

from __future__ import annotations

import logging
import secrets
import time

import redis
import redis.asyncio
from pymongo import ReturnDocument
from pymongo.database import Database

from imserver import metrics
from imserver.clock import now_ms
from imserver.conf import get_config
from imserver.protocol.conversations import GROUP_PREFIX, shard_of
from imserver.storage import keys
from imserver.storage.clients import Document
from imserver.storage.msg_blocks import MsgBlockWriter
from imserver.storage.scripts import get_script

logger = logging.getLogger(__name__)

COLLECTION = "seq"

#: A refill is one MongoDB call; who holds the lock longer is taken for dead.
LOCK_EXPIRY_MS = 10_000
RETRY_LIMIT = 10
RETRY_WAIT_SECONDS = 0.25


class SeqUnavailable(Exception):
    """The range of a conversation could not be refilled: somebody else holds the lock and does not finish."""


class SeqAllocator:
    """Allocation for the writing side. Safe to call from any number of processes at once."""

    def __init__(self, client: redis.Redis, database: Database[Document]) -> None:
        self._client = client
        self._seqs = database[COLLECTION]
        self._blocks = MsgBlockWriter(database)
        self._shards = get_config().shards

    def allocate(self, conversation_id: str, size: int) -> int:
        """Take ``size`` contiguous seqs and return the last one before them; size 0 only reads.

        Raises:
            ValueError: size is negative.
            SeqUnavailable: the refill lock stayed taken through all retries.
            pymongo.errors.PyMongoError: the range is exhausted and MongoDB does not answer.
        """
        return self._allocate(conversation_id, size, take=True)

    def ensure_range(self, conversation_id: str, size: int) -> None:
        """Make sure that ``size`` seqs can be taken without MongoDB. Raises as ``allocate``."""
        self._allocate(conversation_id, size, take=False)

    def _allocate(self, conversation_id: str, size: int, *, take: bool) -> int:
        if size < 0:
            raise ValueError(f"size must not be negative: {size}")
        key = keys.malloc_seq(shard_of(conversation_id, self._shards), conversation_id)
        owner = secrets.token_hex(8)
        for _attempt in range(RETRY_LIMIT):
            args = [size, owner, LOCK_EXPIRY_MS, now_ms(), "1" if take else "0"]
            answer = get_script("malloc").run(self._client, [key], args)
            if answer[0] == 0:
                return int(answer[1])
            if answer[0] == 2:
                time.sleep(RETRY_WAIT_SECONDS * (0.5 + secrets.randbelow(100) / 100))
                continue
            curr, last = (int(answer[1]), int(answer[2])) if answer[0] == 3 else (None, None)
            self._refill(conversation_id, key, owner=owner, size=size, curr=curr, last=last)
        raise SeqUnavailable(f"no seqs for {conversation_id}: another process holds the refill lock")

    def _refill(
        self, conversation_id: str, key: str, owner: str, size: int, curr: int | None, last: int | None
    ) -> None:
        start, end = self._reserve(conversation_id, size)
        if curr is not None and last is not None and start == last:
            first_free = curr
        else:
            # Redis lost the counter, or another node took the range in between: what lies before ``start`` and was
            # not used will never be used. A pull over it is answered with placeholders.
            first_free = start
            used = curr if curr is not None else self._blocks.last_seq(conversation_id)
            if used < start:
                self._seqs.update_one(
                    {"conversation_id": conversation_id}, {"$push": {"gaps": {"from": used + 1, "to": start}}}
                )
                metrics.SEQ_GAPS.inc()
                logger.warning(
                    "seq range skipped",
                    extra={"action": "seq_gap", "conversation_id": conversation_id, "from": used + 1, "to": start},
                )
        if not get_script("refill").run(self._client, [key], [owner, first_free, end, now_ms()]):
            logger.warning(
                "seq refill lost its lock", extra={"action": "seq_refill", "conversation_id": conversation_id}
            )

    def _reserve(self, conversation_id: str, size: int) -> tuple[int, int]:
        """Reserve a segment plus ``size`` in MongoDB; returns (seq before the range, last seq of the range)."""
        config = get_config()
        segment = config.segment_group if conversation_id.startswith(GROUP_PREFIX) else config.segment_single
        amount = segment + size
        document = self._seqs.find_one_and_update(
            {"conversation_id": conversation_id},
            {"$inc": {"max_seq": amount}, "$setOnInsert": {"min_seq": 0}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            projection={"max_seq": 1},
        )
        if document is None:
            raise SeqUnavailable(f"MongoDB did not return the reservation of {conversation_id}")
        end = int(document["max_seq"])
        return end - amount, end


async def get_max_seqs(client: redis.asyncio.Redis, conversation_ids: list[str]) -> dict[str, tuple[int, int]]:
    """(max seq, ms of the last allocation) of each conversation that has a counter in Redis; the others are missing."""
    shards = get_config().shards
    pipe = client.pipeline(transaction=False)
    for conversation_id in conversation_ids:
        pipe.hmget(keys.malloc_seq(shard_of(conversation_id, shards), conversation_id), ["CURR", "TIME"])
    answers = await pipe.execute()
    return {
        conversation_id: (int(curr), int(time_ms or 0))
        for conversation_id, (curr, time_ms) in zip(conversation_ids, answers, strict=True)
        if curr is not None
    }
