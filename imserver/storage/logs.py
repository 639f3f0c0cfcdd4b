"""One Redis Stream a stage and shard: append, read, trim, and the lease of its one drainer.

Delivery promise: an entry is there until the script that applies its outcome removes it (at least once, in order).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from imserver import metrics
from imserver.conf import get_config
from imserver.storage import keys
from imserver.storage.lean_redis import AsyncLeanRedis, Command, LeanRedis, error_in
from imserver.storage.scripts import Script, get_script

logger = logging.getLogger(__name__)

Entry = tuple[bytes, dict[bytes, bytes]]
#: Keys and arguments of a script.
ScriptCall = tuple[list[Any], list[Any]]

#: The stages of the pipeline and the log each of them drains.
STAGE_LOGS = {
    "transfer": keys.TO_REDIS,
    "persist": keys.TO_MONGO,
    "push": keys.TO_PUSH,
    "webhook": keys.TO_WEBHOOK,
    "offline_push": keys.TO_OFFLINE_PUSH,
}
#: What a stage's trim hands entries on to.
_HANDED_ON_TO = {"persist": keys.TO_WEBHOOK, "push": keys.TO_OFFLINE_PUSH}


class LeaseLost(Exception):
    """Somebody else drains this shard now; nothing was changed."""


@dataclass(slots=True)
class Append:
    """A message on its way into a log."""

    key: str
    send_id: str
    client_msg_id: str
    msg: bytes
    operation_id: str
    answer: bytes
    #: For the metrics: ws, rest or notification.
    entrance: str = "ws"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that cannot succeed, with the fields it had."""

    reason: str
    fields: dict[bytes, bytes]


async def append(client: AsyncLeanRedis, batches: dict[int, list[Append]]) -> dict[int, list[Any] | Exception]:
    """Append messages, by shard, in one round trip.

    Returns for each shard ``[wake, outcome, ...]`` as append.lua says, or the exception of that shard's call. May run
    twice: a repeated (send_id, client_msg_id) gets the first answer and no second entry.
    """
    config = get_config()
    calls: list[tuple[list[Any], list[Any]]] = []
    for shard, messages in batches.items():
        script_keys: list[Any] = [
            keys.log(keys.TO_REDIS, shard),
            keys.lease("transfer", shard),
            keys.wake("transfer", shard),
            keys.log(keys.TO_MONGO, shard),
            keys.log(keys.TO_PUSH, shard),
        ]
        args: list[Any] = [config.log_max_entries, config.dedup_ttl_seconds, keys.WAKE_TTL_MS]
        for item in messages:
            script_keys.append(keys.dedup(shard, item.send_id, item.client_msg_id) if item.client_msg_id else "")
            args += (item.key, item.msg, item.operation_id, item.answer)
        calls.append((script_keys, args))
    script = get_script("append")
    commands: list[Command] = [script.command(*call) for call in calls]
    results = await client.round_trip(commands)
    if Script.is_missing(results):
        # The server is new: none of the calls ran.
        results = (await client.round_trip([("SCRIPT", "LOAD", script.source), *commands]))[1:]
    return dict(zip(batches, results, strict=True))


class Lease:
    """The right to drain one shard of one stage; a random token that every script checks."""

    def __init__(self, stage: str, shard: int, token: str) -> None:
        self.stage = stage
        self.shard = shard
        self.token = token
        self.key = keys.lease(stage, shard)
        self.log_name = STAGE_LOGS[stage]
        self.log = keys.log(self.log_name, shard)
        #: A transfer drainer may hold the push lease of its shard too, by the same token (commit.lua).
        self.companion = [keys.lease("push", shard)] if stage == "transfer" else []
        #: Conversation keys that cannot be handled now. A stage that adds one leaves all entries of that key in the log,
        #: in order; the runner reads on behind them and forgets the set when it is time to look at them again.
        self.waiting: set[str] = set()

    @classmethod
    def acquire(cls, client: redis.Redis, stage: str, shard: int) -> Lease | None:
        """The lease, or None when somebody has it."""
        lease = cls(stage, shard, secrets.token_hex(8))
        taken = client.set(lease.key, lease.token, nx=True, px=get_config().lease_ms)
        return lease if taken else None

    def renew(self, client: redis.Redis) -> None:
        """Raises LeaseLost."""
        if not get_script("renew").run(client, [self.key, *self.companion], [self.token, get_config().lease_ms]):
            raise LeaseLost(self.key)

    def release(self, client: redis.Redis, *, force: bool = False) -> int:
        """Give it back when the log is empty, or with ``force`` in any case; the answer is that of release.lua."""
        wake_key = keys.wake(self.stage, self.shard)
        args = [self.token, "1" if force else "0", keys.WAKE_TTL_MS]
        return int(get_script("release").run(client, [self.key, self.log, wake_key, *self.companion], args))

    def trim(
        self,
        client: redis.Redis,
        last_entry_id: bytes,
        dead: Sequence[DeadLetter] = (),
        *,
        next_stage: str = "",
        hand_on: Sequence[dict[bytes, bytes]] = (),
    ) -> bool:
        """Remove the handled entries up to and with ``last_entry_id``; the given ones (by fields) go to another stage's log,
        as long as it holds fewer than LOG_MAX_ENTRIES.

        Returns whether the caller has to wake that stage. Raises LeaseLost.
        """
        call = self.trim_call(last_entry_id, dead, next_stage=next_stage, hand_on=hand_on)
        return self.is_wake_due(get_script("trim").run(client, *call))

    def trim_call(
        self,
        last_entry_id: bytes,
        dead: Sequence[DeadLetter] = (),
        *,
        next_stage: str = "",
        hand_on: Sequence[dict[bytes, bytes]] = (),
    ) -> ScriptCall:
        """Keys and arguments of ``trim``, for who sends several in one round trip; ``is_wake_due`` reads the answer."""
        args: list[Any] = [self.token, last_entry_id, keys.WAKE_TTL_MS, get_config().log_max_entries, len(dead)]
        for letter in dead:
            fields = {b"reason": letter.reason.encode(), b"origin": self.log_name.encode(), **letter.fields}
            args += (2 * len(fields), *(part for pair in fields.items() for part in pair))
        for entry in hand_on:
            args += (2 * len(entry), *(part for pair in entry.items() for part in pair))
        script_keys = [self.key, self.log, keys.log(keys.DEAD, self.shard)]
        if next_stage:
            script_keys += (
                keys.log(STAGE_LOGS[next_stage], self.shard),
                keys.lease(next_stage, self.shard),
                keys.wake(next_stage, self.shard),
            )
        return script_keys, args

    def is_wake_due(self, answer: Any) -> bool:
        """What the trim script's answer says; what it dropped is counted.

        Raises LeaseLost, and the exception that stands in an answer's place.
        """
        if isinstance(answer, Exception):
            raise answer
        outcome, dropped = answer
        if not outcome:
            raise LeaseLost(self.key)
        if dropped:
            note_dropped(_HANDED_ON_TO[self.stage], self.shard, dropped)
        return bool(outcome == 2)


def note_dropped(log_name: str, shard: int, count: int) -> None:
    """A full log did not get these entries: calls of after webhooks, or offline pushes. The messages are where they were."""
    metrics.DROPPED.labels(log_name).inc(count)
    logger.warning(
        "log is full, entries dropped",
        extra={"action": "hand_on", "log": log_name, "shard": shard, "count": count},
    )


def next_entry_id(entry_id: bytes) -> str:
    """The smallest id after ``entry_id``: trimming before it removes the entry itself too."""
    milliseconds, _, number = entry_id.decode().partition("-")
    return f"{milliseconds}-{int(number) + 1}"


#: The position before the first entry.
HEAD = b"0-0"


def read_after(
    client: LeanRedis, positions: dict[str, bytes], count: int, block_ms: int | None, first: Sequence[Command] = ()
) -> list[tuple[bytes, list[Entry]]]:
    """Up to ``count`` entries behind the position in each log (by key) that has any, waiting ``block_ms`` for the first.

    Args:
        first: sent ahead of the read, in the same round trip; what comes of it is looked at by ``_check_deferred``.
    """
    block = () if block_ms is None else ("BLOCK", block_ms)
    read = ("XREAD", "COUNT", count, *block, "STREAMS", *positions, *positions.values())
    *replies, heads = client.round_trip([*first, read])
    if isinstance(heads, Exception):
        raise heads
    _check_deferred(replies)
    return [
        (log, [(entry_id, dict(zip(fields[::2], fields[1::2], strict=True))) for entry_id, fields in entries])
        for log, entries in heads or ()
    ]


def run_deferred(client: LeanRedis, commands: Sequence[Command]) -> None:
    """Send what was to go ahead of a read that does not come."""
    _check_deferred(client.round_trip(list(commands)))


def _check_deferred(replies: list[Any]) -> None:
    """A trim that did not happen is made up for: its entries are pushed once more by the next drainer of the log."""
    error = error_in(replies)
    if error is not None:
        logger.warning("deferred command failed", extra={"action": "drain", "error": repr(error)[:300]})


def sweep(client: redis.Redis, stage: str, shards: int) -> list[int]:
    """The shards of a stage that need a wake-up: entries wait and nobody is on the way."""
    calls: list[ScriptCall] = [
        ([keys.lease(stage, shard), keys.log(STAGE_LOGS[stage], shard), keys.wake(stage, shard)], [keys.WAKE_TTL_MS])
        for shard in range(shards)
    ]
    answers = get_script("sweep").run_many(client, calls)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return [shard for shard, is_due in enumerate(answers) if is_due]


def lengths(client: redis.Redis) -> dict[tuple[str, int], int]:
    """Entries waiting in every log, dead letters included: {(log name, shard): length}."""
    names = [(name, shard) for name in (*STAGE_LOGS.values(), keys.DEAD) for shard in range(get_config().shards)]
    pipe = client.pipeline(transaction=False)
    for name, shard in names:
        pipe.xlen(keys.log(name, shard))
    return dict(zip(names, pipe.execute(), strict=True))
