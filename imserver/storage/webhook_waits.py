"""After hooks that could not be called yet: batches that wait, in order, apart from the log.

A *line* is what must be called in order: the messages of one conversation for one kind of hook. While a line waits,
whatever comes for it goes behind; other lines of the shard pass. All state is in Redis, and only the drainer of the
shard, who holds its lease, changes it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import redis

from imserver.clock import now_ms
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.storage import keys
from imserver.storage.clients import as_text
from imserver.storage.logs import DeadLetter, Entry, Lease, LeaseLost
from imserver.storage.scripts import get_script

#: An entry with only this field says: look at what is due.
TICK = b"t"

#: Most lines and most batches of a line that are looked at in one go.
MOST_LINES = 200
MOST_BATCHES = 100


class Line(NamedTuple):
    kind: str
    conversation_id: str

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.conversation_id}"

    @classmethod
    def from_name(cls, name: bytes | str) -> Line:
        kind, _, conversation_id = as_text(name).partition(":")
        return cls(kind, conversation_id)


@dataclass(slots=True)
class HookBatch:
    """Messages of a line with contiguous seqs, and how far they have got.

    Stored as ``<first seq> <ms of the first failure> <tries>\\n`` and a LogBatch of the messages that are left.
    """

    first_seq: int
    batch: LogBatch
    #: When it was first put off, 0 when it never was.
    since_ms: int = 0
    #: Failed calls of the message it stands at.
    tries: int = 0
    #: Messages that are done.
    at: int = 0

    @classmethod
    def from_entry(cls, fields: dict[bytes, bytes]) -> Self:
        """Raises KeyError, ValueError, DecodeError."""
        return cls(int(fields[b"s"]), LogBatch.FromString(fields[b"b"]))

    @classmethod
    def from_stored(cls, stored: bytes) -> Self:
        head, _, raw = stored.partition(b"\n")
        first_seq, since_ms, tries = map(int, head.split())
        return cls(first_seq, LogBatch.FromString(raw), since_ms, tries)

    def to_stored(self) -> bytes:
        head = f"{self._seq_at(self.at)} {self.since_ms} {self.tries}\n"
        return head.encode() + self._part(self.at, None).SerializeToString()

    @property
    def is_done(self) -> bool:
        return self.at >= len(self.batch.msgs)

    @property
    def msg(self) -> bytes:
        return self.batch.msgs[self.at]

    @property
    def seq(self) -> int:
        return self._seq_at(self.at)

    @property
    def operation_id(self) -> str:
        return self.batch.operation_ids[self.at] if self.at < len(self.batch.operation_ids) else ""

    def step(self) -> None:
        self.at += 1
        self.tries = 0

    def dead_letter(self, line: Line, reason: str, *, only_one: bool = False) -> DeadLetter:
        """The message it stands at, or all that are left, as they would stand in the log."""
        part = self._part(self.at, self.at + 1 if only_one else None)
        return DeadLetter(reason, _fields(line, self.seq, part))

    def _seq_at(self, at: int) -> int:
        return self.first_seq + at if self.first_seq else 0

    def _part(self, begin: int, end: int | None) -> LogBatch:
        return LogBatch(
            msgs=self.batch.msgs[begin:end],
            operation_ids=self.batch.operation_ids[begin:end],
            trigger_id=self.batch.trigger_id,
        )


def _fields(line: Line, first_seq: int, batch: LogBatch) -> dict[bytes, bytes]:
    return {
        b"c": line.conversation_id.encode(),
        b"s": str(first_seq).encode(),
        b"b": batch.SerializeToString(),
        b"h": line.kind.encode(),
    }


@dataclass(slots=True)
class Waiting:
    """What waits of a line: its first batches, and whether there are more."""

    is_due: bool
    batches: list[HookBatch] = field(default_factory=list)
    has_more: bool = False


def read_waiting(client: redis.Redis, shard: int, lines: set[Line]) -> dict[Line, Waiting]:
    """The lines of a shard that are due, and those of ``lines`` that wait at all. Batches come with the due ones only."""
    due_key, now = keys.webhook_due(shard), now_ms()
    wanted = list(lines)
    pipe = client.pipeline(transaction=False)
    pipe.zrangebyscore(due_key, "-inf", now, 0, MOST_LINES)
    if wanted:
        pipe.zmscore(due_key, [line.name for line in wanted])
    due, *scores = pipe.execute()
    found = {Line.from_name(name): Waiting(is_due=True) for name in due}
    for line, score in zip(wanted, scores[0] if scores else (), strict=True):
        if score is not None and line not in found:
            found[line] = Waiting(is_due=score <= now)
    to_read = [line for line, waiting in found.items() if waiting.is_due]
    for line in to_read:
        pipe.lrange(keys.webhook_wait(shard, line.name), 0, MOST_BATCHES)
    for line, stored in zip(to_read, pipe.execute() if to_read else (), strict=True):
        found[line].batches = [HookBatch.from_stored(item) for item in stored[:MOST_BATCHES]]
        found[line].has_more = len(stored) > MOST_BATCHES
    return found


@dataclass(slots=True)
class LineOutcome:
    """What becomes of a line."""

    line: Line
    #: Waiting batches that are done, from the oldest.
    done: int = 0
    #: What the oldest batch that still waits has become.
    head: HookBatch | None = None
    #: Batches that are to wait behind it.
    behind: list[HookBatch] = field(default_factory=list)
    #: When to try next; None: no change.
    due_ms: int | None = None


@dataclass(slots=True)
class Settlement:
    """The outcome of one batch of a shard."""

    #: Entries that leave the log.
    handled: list[bytes] = field(default_factory=list)
    lines: list[LineOutcome] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)


def settle(client: redis.Redis, lease: Lease, settlement: Settlement) -> None:
    """Apply it in one step. Raises LeaseLost, and then nothing was changed."""
    shard = lease.shard
    script_keys: list[Any] = [
        lease.key,
        lease.log,
        keys.log(keys.DEAD, shard),
        keys.webhook_due(shard),
        keys.webhook_settled(shard),
        *(keys.webhook_wait(shard, outcome.line.name) for outcome in settlement.lines),
    ]
    args: list[Any] = [
        lease.token,
        secrets.token_hex(8),
        now_ms(),
        len(settlement.handled),
        len(settlement.dead),
        len(settlement.lines),
        TICK,
        *settlement.handled,
    ]
    for letter in settlement.dead:
        args += (letter.reason, lease.log_name, len(letter.fields))
        for name, value in letter.fields.items():
            args += (name, value)
    for outcome in settlement.lines:
        args += (
            outcome.line.name,
            outcome.done,
            outcome.head.to_stored() if outcome.head is not None else b"",
            "" if outcome.due_ms is None else outcome.due_ms,
            len(outcome.behind),
            *(batch.to_stored() for batch in outcome.behind),
        )
    if not get_script("settle_webhooks").run(client, script_keys, args):
        raise LeaseLost(lease.key)


def is_tick(entry: Entry) -> bool:
    return TICK in entry[1]


def add_ticks(client: redis.Redis, shards: int) -> int:
    """Put a tick into the empty log of each shard that has a line due; the sweep then wakes it. Returns how many."""
    script = get_script("tick_webhooks")
    return sum(
        script.run(client, [keys.log(keys.TO_WEBHOOK, shard), keys.webhook_due(shard)], [now_ms(), TICK])
        for shard in range(shards)
    )


def count_lines(client: redis.Redis, shards: int) -> int:
    """Lines that wait, of all shards."""
    pipe = client.pipeline(transaction=False)
    for shard in range(shards):
        pipe.zcard(keys.webhook_due(shard))
    return sum(pipe.execute())
