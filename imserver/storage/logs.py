"""One Redis Stream a stage and shard: append, read, trim, and the lease of its one drainer.

Delivery promise: an entry is there until the script that applies its outcome removes it (at least once, in order).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio

from imserver.conf import get_config
from imserver.storage import keys
from imserver.storage.scripts import get_script

Entry = tuple[bytes, dict[bytes, bytes]]

#: The stages of the pipeline and the log each of them drains.
STAGE_LOGS = {"transfer": keys.TO_REDIS, "persist": keys.TO_MONGO, "push": keys.TO_PUSH, "webhook": keys.TO_WEBHOOK}


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


async def append(client: redis.asyncio.Redis, batches: dict[int, list[Append]]) -> dict[int, list[Any] | Exception]:
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
    results = await get_script("append").run_many_async(client, calls)
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
        if not get_script("renew").run(client, [self.key], [self.token, get_config().lease_ms]):
            raise LeaseLost(self.key)

    def release(self, client: redis.Redis, *, force: bool = False) -> int:
        """Give it back when the log is empty, or with ``force`` in any case; the answer is that of release.lua."""
        wake_key = keys.wake(self.stage, self.shard)
        args = [self.token, "1" if force else "0", keys.WAKE_TTL_MS]
        return int(get_script("release").run(client, [self.key, self.log, wake_key], args))

    def trim(
        self,
        client: redis.Redis,
        last_entry_id: bytes,
        dead: list[DeadLetter] | None = None,
        *,
        to_webhook: list[dict[bytes, bytes]] | None = None,
    ) -> bool:
        """Remove the handled entries up to and with ``last_entry_id``; the given ones (by fields) go to the webhook stage.

        Returns whether the caller has to wake that stage. Raises LeaseLost.
        """
        dead = dead or []
        args: list[Any] = [self.token, next_entry_id(last_entry_id), self.log_name, keys.WAKE_TTL_MS, len(dead)]
        for letter in dead:
            args += (
                letter.reason,
                letter.fields.get(b"c", b""),
                letter.fields.get(b"s", b""),
                letter.fields.get(b"b", b""),
            )
        for fields in to_webhook or ():
            args += (fields[b"c"], fields[b"s"], fields[b"b"])
        script_keys = [
            self.key,
            self.log,
            keys.log(keys.DEAD, self.shard),
            keys.log(keys.TO_WEBHOOK, self.shard),
            keys.lease("webhook", self.shard),
            keys.wake("webhook", self.shard),
        ]
        answer = get_script("trim").run(client, script_keys, args)
        if not answer:
            raise LeaseLost(self.key)
        return bool(answer == 2)


def next_entry_id(entry_id: bytes) -> str:
    """The smallest id after ``entry_id``: trimming before it removes the entry itself too."""
    milliseconds, _, number = entry_id.decode().partition("-")
    return f"{milliseconds}-{int(number) + 1}"


#: The position before the first entry.
HEAD = b"0-0"


def read_after(
    client: redis.Redis, positions: dict[str, bytes], count: int, block_ms: int | None
) -> list[tuple[bytes, list[Entry]]]:
    """Up to ``count`` entries behind the position in each log (by key) that has any, waiting ``block_ms`` for the first."""
    streams: dict[Any, Any] = dict(positions)
    return client.xread(streams, count=count, block=block_ms) or []  # type: ignore[return-value]


def sweep(client: redis.Redis, stage: str, shards: int) -> list[int]:
    """The shards of a stage that need a wake-up: entries wait and nobody is on the way."""
    script = get_script("sweep")
    return [
        shard
        for shard in range(shards)
        if script.run(
            client,
            [keys.lease(stage, shard), keys.log(STAGE_LOGS[stage], shard), keys.wake(stage, shard)],
            [keys.WAKE_TTL_MS],
        )
    ]


def lengths(client: redis.Redis) -> dict[tuple[str, int], int]:
    """Entries waiting in every log, dead letters included: {(log name, shard): length}."""
    names = [(name, shard) for name in (*STAGE_LOGS.values(), keys.DEAD) for shard in range(get_config().shards)]
    pipe = client.pipeline(transaction=False)
    for name, shard in names:
        pipe.xlen(keys.log(name, shard))
    return dict(zip(names, pipe.execute(), strict=True))
