"""Seqs of a conversation: Redis hands them out from ranges that MongoDB reserves.

MongoDB ``seq``: {conversation_id, max_seq end of everything ever reserved, min_seq, reserved_from and reserved_by of the last
reservation, gaps [{from, to}]}. A seq is never handed out twice: a range that was lost with Redis is skipped and noted as a gap.
A reservation has a name, which Redis keeps until the range is stored there: who repeats it, because its maker died or heard no
answer, gets the same range. While MongoDB is away up to SEQ_OVERDRAFT
seqs are handed out beyond the reserved range (commit.lua); the next refill reserves them after the fact, and a counter that
Redis lost restarts so far above.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from time import sleep
from typing import Any

import pymongo
import redis
import redis.asyncio
from pymongo import ReturnDocument
from pymongo.database import Database
from pymongo.errors import PyMongoError

from imserver import metrics
from imserver.clock import now_ms
from imserver.conf import get_config
from imserver.protocol.conversations import GROUP_PREFIX, shard_of
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.storage import keys
from imserver.storage.clients import Document, as_text
from imserver.storage.msg_blocks import MsgBlockWriter
from imserver.storage.read_seq import ReadSeqWriter
from imserver.storage.scripts import get_script

logger = logging.getLogger(__name__)

COLLECTION = "seq"

#: A refill is one MongoDB call; who holds the lock longer is taken for dead.
LOCK_EXPIRY_MS = 2_000
RETRY_LIMIT = 10
#: A reservation is one document: what takes longer is an outage, and then there is the overdraft.
RESERVE_SECONDS = 1.0
#: Refills that follow each other within this time double the range, up to this size.
QUICK_REFILL_MS = 10_000
MOST_SEGMENT = 10_000
RETRY_WAIT_SECONDS = 0.25


class SeqUnavailable(Exception):
    """The range of a conversation could not be refilled: somebody else holds the lock and does not finish."""


@dataclass(frozen=True, slots=True)
class Refill:
    """A refill under its lock. ``reservation``: the name of what is to be reserved, also by who has the lock after us."""

    conversation_id: str
    key: str
    owner: str
    reservation: str
    size: int


class SeqAllocator:
    """Allocation for the writing side. Safe to call from any number of processes at once."""

    def __init__(self, client: redis.Redis, database: Database[Document]) -> None:
        self._client = client
        self._seqs = database[COLLECTION]
        self._blocks = MsgBlockWriter(database)
        self._read = ReadSeqWriter(client, database)
        self._config = get_config()

    def allocate(self, conversation_id: str, size: int) -> int:
        """Take ``size`` contiguous seqs and return the last one before them; size 0 only reads.

        Raises:
            ValueError: size is negative.
            SeqUnavailable: the refill lock stayed taken through all retries.
            pymongo.errors.PyMongoError: the range is exhausted and MongoDB does not answer.
        """
        return self._allocate(conversation_id, size, take=True)

    def ensure_range(self, conversation_id: str, size: int) -> None:
        """Make sure that ``size`` seqs can be taken without MongoDB.

        Raises as ``allocate``, but never waits for somebody else's refill: SeqUnavailable at once.
        """
        self._allocate(conversation_id, size, take=False)

    def _allocate(self, conversation_id: str, size: int, *, take: bool) -> int:
        if size < 0:
            raise ValueError(f"size must not be negative: {size}")
        key = keys.malloc_seq(shard_of(conversation_id, self._config.shards), conversation_id)
        for _attempt in range(RETRY_LIMIT):
            # Another one each time: it may become the name of a reservation.
            owner = secrets.token_hex(8)
            args = [size, owner, LOCK_EXPIRY_MS, now_ms(), "1" if take else "0"]
            answer, *values = get_script("malloc").run(self._client, [key], args)
            if answer == 0:
                return int(values[0]) if int(values[0]) >= 0 else self._blocks.last_seq(conversation_id)
            if answer == 2 and not take:
                break
            if answer == 2:
                sleep(RETRY_WAIT_SECONDS * (0.5 + secrets.randbelow(100) / 100))
            else:
                reservation, *numbers = values
                refill = Refill(conversation_id, key, owner, as_text(reservation), size)
                try:
                    if answer == 3:
                        self._refill_exhausted(refill, *numbers)
                    else:
                        self._refill_missing(refill)
                except PyMongoError:
                    # Whoever tries next must not wait for the lock to expire.
                    get_script("unlock_malloc").run(self._client, [key], [owner])
                    raise
        raise SeqUnavailable(f"no seqs for {conversation_id}: another process holds the refill lock")

    def _refill_exhausted(self, refill: Refill, curr: int, last: int, segment: int, refilled_ms: int) -> None:
        """The range is used up: go on from where it ended."""
        # What was handed out beyond the range while MongoDB was away is reserved now, after the fact.
        overdrawn = max(curr - last, 0)
        segment = self._segment(refill.conversation_id, segment, refilled_ms)
        start, end = self._reserve(refill, segment + refill.size + overdrawn, after=last)
        if start == last:
            before = curr
        else:
            # Another process took a range in between (Redis lost the counter meanwhile): ours ends here.
            before = start
            self._note_gap(refill.conversation_id, used=curr, start=start)
        self._store(refill, before, end, segment)

    def _refill_missing(self, refill: Refill) -> None:
        """Redis does not know the conversation: it is new, or the counter was lost or expired after long disuse."""
        segment = self._segment(refill.conversation_id, 0, 0)
        overdraft = self._config.seq_overdraft
        start, end = self._reserve(refill, segment + refill.size, after=0, skipped=overdraft)
        if start > 0:
            # Up to SEQ_OVERDRAFT seqs may have been handed out beyond what MongoDB knew of.
            start = min(start + overdraft, end)
            self._note_gap(refill.conversation_id, used=self._last_known(refill.conversation_id), start=start)
        self._store(refill, start, end, segment, is_new=True)

    def _last_known(self, conversation_id: str) -> int:
        """The greatest seq that is stored or on its way to be; 0 when there is none."""
        known = self._blocks.last_seq(conversation_id)
        log = keys.log(keys.TO_MONGO, shard_of(conversation_id, self._config.shards))
        entries: Any = self._client.xrange(log)  # rare, and the log is short unless MongoDB is away
        for _entry_id, fields in entries:
            if fields.get(b"c") == conversation_id.encode():
                known = max(known, int(fields[b"s"]) + len(LogBatch.FromString(fields[b"b"]).msgs) - 1)
        return known

    def _segment(self, conversation_id: str, last_segment: int, refilled_ms: int) -> int:
        """Size of the next range: it doubles while refills follow each other quickly."""
        config = self._config
        base = config.segment_group if conversation_id.startswith(GROUP_PREFIX) else config.segment_single
        if now_ms() - refilled_ms > QUICK_REFILL_MS:
            return base
        return min(max(last_segment, base) * 2, MOST_SEGMENT)

    def _reserve(self, refill: Refill, amount: int, *, after: int, skipped: int = 0) -> tuple[int, int]:
        """Reserve a range in MongoDB; returns (seq before the range, last seq of the range).

        May run any number of times, and MongoDB may apply it late, when nobody waits for it any more: the reservation is
        made once, and only where the range before it ended.

        Args:
            after: where everything reserved ends as far as Redis knows. When it ends further on, so does our range begin.
            skipped: seqs to reserve besides in that case.
        """
        for _attempt in range(RETRY_LIMIT):
            with pymongo.timeout(RESERVE_SECONDS):
                # There is one in any case, as it is made where there was none.
                found: Document = self._seqs.find_one_and_update(
                    {"conversation_id": refill.conversation_id},
                    _reservation(refill.reservation, amount, after),
                    upsert=True,
                    return_document=ReturnDocument.AFTER,
                    projection={"max_seq": 1, "reserved_from": 1, "reserved_by": 1},
                )  # type: ignore[assignment]
            if found["reserved_by"] == refill.reservation:
                return int(found["reserved_from"]), int(found["max_seq"])
            after, amount, skipped = int(found["max_seq"]), amount + skipped, 0
        raise SeqUnavailable(f"no seqs for {refill.conversation_id}: others reserve them all the time")

    def _store(self, refill: Refill, before: int, end: int, segment: int, *, is_new: bool = False) -> None:
        ttl = self._config.seq_key_ttl_days * 86_400
        args = [refill.owner, before, end, now_ms(), segment, ttl, "1" if is_new else "0"]
        if not get_script("refill").run(self._client, [refill.key], args):
            logger.warning(
                "seq refill lost its lock", extra={"action": "seq_refill", "conversation_id": refill.conversation_id}
            )

    def _note_gap(self, conversation_id: str, *, used: int, start: int) -> None:
        """Seqs ``used`` + 1 to ``start`` will never have a message; a pull over them is answered with placeholders."""
        if used >= start:
            return
        self._seqs.update_one(
            {"conversation_id": conversation_id}, {"$push": {"gaps": {"from": used + 1, "to": start}}}
        )
        # Who had read everything has read the gap too, or it would count as that many unread messages.
        self._read.forward_over_gap(conversation_id, used, start)
        metrics.SEQ_GAPS.inc()
        logger.warning(
            "seq range skipped",
            extra={"action": "seq_gap", "conversation_id": conversation_id, "from": used + 1, "to": start},
        )


def _reservation(name: str, amount: int, after: int) -> list[Document]:
    """The update that reserves a range, unless it was reserved before under this name, or everything ends after ``after``."""
    current: Document = {"$ifNull": ["$max_seq", 0]}
    is_due: Document = {"$and": [{"$ne": ["$reserved_by", name]}, {"$lte": [current, after]}]}

    def due(value: Any, else_value: Any) -> Document:
        return {"$cond": [is_due, value, else_value]}

    return [
        {
            "$set": {
                "max_seq": due(after + amount, current),
                "min_seq": {"$ifNull": ["$min_seq", 0]},
                "reserved_from": due(after, {"$ifNull": ["$reserved_from", 0]}),
                "reserved_by": due(name, {"$ifNull": ["$reserved_by", ""]}),
            }
        }
    ]


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
