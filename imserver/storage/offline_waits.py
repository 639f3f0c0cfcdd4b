"""Offline pushes on their way: those that wait to be tried again, and the marks of what was pushed.

A push that waits lies apart from the log, so it holds up nobody; there is no order between pushes. Only the drainer of the
shard, who holds its lease, changes what waits.

Before a vendor is called, user (or user and platform) is marked for the message. Who finds a mark does not push: neither a
batch that runs twice, nor the next worker after one that was killed between mark and answer, whose push is lost if the call
never left. What the vendor certainly did not take is unmarked. A worker that lost its lease in the middle of a call does that too,
and what it unmarks only the next owner can try again: who finds a mark that the same push got a moment ago waits.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Self

import orjson
import redis
import redis.asyncio

from imserver.clock import now_ms
from imserver.storage import keys
from imserver.storage.clients import as_text
from imserver.storage.logs import DeadLetter, Lease, LeaseLost
from imserver.storage.scripts import get_script

#: An entry with only this field says: look at what is due.
TICK = b"t"
#: Most waiting pushes that are looked at in one go.
MOST_JOBS = 200


@dataclass(slots=True)
class Job:
    """One message, for the users whose push is not done.

    Stored as a line of JSON and the serialized MsgData.
    """

    #: Of its entry in the log.
    id: str
    conversation_id: str
    msg: bytes
    operation_id: str
    user_ids: list[str]
    #: Users that were left out and texts that were changed: the webhook is not asked twice.
    is_decided: bool = False
    tries: int = 0

    @property
    def since_ms(self) -> int:
        """When the message was handed on to the log."""
        return int(self.id.partition("-")[0])

    @classmethod
    def from_entry(cls, entry_id: bytes, fields: dict[bytes, bytes]) -> Self:
        """Raises KeyError, ValueError."""
        user_ids = orjson.loads(fields[b"u"])
        if not isinstance(user_ids, list) or not all(isinstance(user_id, str) for user_id in user_ids):
            raise ValueError("u is not a list of user ids")
        int(fields[b"s"])
        return cls(
            id=entry_id.decode(),
            conversation_id=fields[b"c"].decode(),
            msg=fields[b"m"],
            operation_id=fields.get(b"o", b"").decode(errors="replace"),
            user_ids=list(dict.fromkeys(user_ids)),
        )

    @classmethod
    def from_stored(cls, job_id: str, stored: bytes) -> Self:
        head, _, msg = stored.partition(b"\n")
        values = orjson.loads(head)
        return cls(
            id=job_id,
            conversation_id=values["c"],
            msg=msg,
            operation_id=values["o"],
            user_ids=values["u"],
            is_decided=values["d"],
            tries=values["tries"],
        )

    def to_stored(self) -> bytes:
        head = {
            "c": self.conversation_id,
            "o": self.operation_id,
            "u": self.user_ids,
            "d": self.is_decided,
            "tries": self.tries,
        }
        return orjson.dumps(head) + b"\n" + self.msg


def read_due(client: redis.Redis, shard: int) -> list[Job]:
    """The pushes of a shard whose time has come, the longest due first."""
    ids: Any = client.zrangebyscore(keys.offline_due(shard), "-inf", now_ms(), 0, MOST_JOBS)
    if not ids:
        return []
    stored: Any = client.hmget(keys.offline_wait(shard), ids)
    return [
        Job.from_stored(as_text(job_id), item) for job_id, item in zip(ids, stored, strict=True) if item is not None
    ]


@dataclass(slots=True)
class Settlement:
    """The outcome of one batch of a shard."""

    #: Entries that leave the log.
    handled: list[bytes] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    #: Ids of waiting pushes that are done.
    done: list[str] = field(default_factory=list)
    #: Pushes that wait (again), each until a time in ms.
    waiting: list[tuple[Job, int]] = field(default_factory=list)


def settle(client: redis.Redis, lease: Lease, settlement: Settlement) -> None:
    """Apply it in one step. Raises LeaseLost, and then nothing was changed."""
    shard = lease.shard
    script_keys: list[Any] = [
        lease.key,
        lease.log,
        keys.log(keys.DEAD, shard),
        keys.offline_wait(shard),
        keys.offline_due(shard),
        keys.offline_settled(shard),
    ]
    args: list[Any] = [
        lease.token,
        secrets.token_hex(8),
        now_ms(),
        TICK,
        len(settlement.handled),
        len(settlement.dead),
        len(settlement.done),
        len(settlement.waiting),
        *settlement.handled,
    ]
    for letter in settlement.dead:
        args += (letter.reason, lease.log_name, len(letter.fields))
        for name, value in letter.fields.items():
            args += (name, value)
    args += settlement.done
    for job, due_ms in settlement.waiting:
        args += (job.id, due_ms, job.to_stored())
    if not get_script("settle_offline").run(client, script_keys, args):
        raise LeaseLost(lease.key)


def is_tick(fields: dict[bytes, bytes]) -> bool:
    return TICK in fields


def add_ticks(client: redis.Redis, shards: int) -> int:
    """Put a tick into the empty log of each shard that has a push due; the sweep then wakes it. Returns how many."""
    calls: list[tuple[list[Any], list[Any]]] = [
        ([keys.log(keys.TO_OFFLINE_PUSH, shard), keys.offline_due(shard)], [now_ms(), TICK]) for shard in range(shards)
    ]
    answers = get_script("tick_webhooks").run_many(client, calls)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return sum(answers)


def count_waiting(client: redis.Redis, shards: int) -> int:
    """Pushes that wait, of all shards."""
    pipe = client.pipeline(transaction=False)
    for shard in range(shards):
        pipe.zcard(keys.offline_due(shard))
    return sum(pipe.execute())


class Mark(Enum):
    """What a mark was when somebody wanted to set it."""

    #: It was not there; now it is.
    NEW = auto()
    #: A call for the same job set it, by who had the lease before, and may be under way.
    FRESH = auto()
    OLD = auto()


class PushMarks:
    """What was pushed of one message. Each mark says for which job, and when: ``<job id> <ms>``."""

    def __init__(self, client: redis.asyncio.Redis, shard: int, server_msg_id: str, job_id: str) -> None:
        self._client = client
        self._key = keys.offline_pushed(shard, server_msg_id)
        self._job_id = job_id

    async def mark(self, names: list[str], fresh_ms: int = 0) -> list[Mark]:
        """Mark; only what is NEW may be pushed.

        Args:
            fresh_ms: the age up to which a mark of this job is FRESH.
        """
        now = now_ms()
        pipe = self._client.pipeline(transaction=True)
        for name in names:
            pipe.hsetnx(self._key, name, f"{self._job_id} {now}")
        pipe.expire(self._key, keys.OFFLINE_PUSHED_TTL_SECONDS)
        pipe.hmget(self._key, names)
        *are_new, _, marks = await pipe.execute()
        return [
            Mark.NEW if is_new else self._known(as_text(mark), now - fresh_ms)
            for is_new, mark in zip(are_new, marks, strict=True)
        ]

    def _known(self, mark: str, fresh_from_ms: int) -> Mark:
        job_id, _, at_ms = mark.rpartition(" ")
        return Mark.FRESH if job_id == self._job_id and int(at_ms) > fresh_from_ms else Mark.OLD

    async def unmark(self, names: list[str]) -> None:
        """The vendor did not take them."""
        if names:
            await self._client.hdel(self._key, *names)


class Badges:
    """The numbers on the icons of users' apps."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def set(self, user_id: str, count: int) -> None:
        await self._client.set(keys.badge(user_id), count, ex=keys.BADGE_TTL_SECONDS)

    async def count_up(self, user_ids: list[str]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for user_id in user_ids:
            pipe.incr(keys.badge(user_id))
            pipe.expire(keys.badge(user_id), keys.BADGE_TTL_SECONDS)
        await pipe.execute()

    async def get(self, user_ids: Iterable[str]) -> dict[str, int]:
        """Of those that have one."""
        wanted = list(user_ids)
        pipe = self._client.pipeline(transaction=False)
        for user_id in wanted:
            pipe.get(keys.badge(user_id))
        found = zip(wanted, await pipe.execute() if wanted else (), strict=True)
        return {user_id: int(value) for user_id, value in found if value is not None}
