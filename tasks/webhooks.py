"""Webhooks: toWebhook log -> calls of after hooks, at least once, in order per conversation and kind of hook.

Conversations are called side by side. A call that fails puts its conversation off (storage/webhook_waits.py) and nobody
else; a hook that does not answer at all is asked by one call at a time, rarer and rarer, until it answers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from itertools import takewhile

from google.protobuf.message import DecodeError

from imserver import metrics
from imserver.clock import now_ms
from imserver.conf import get_config
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.runtime import one_a_process
from imserver.storage import webhook_waits, webhooks
from imserver.storage.clients import get_mongo, get_redis
from imserver.storage.logs import DeadLetter, Entry, Lease
from imserver.storage.webhook_waits import HookBatch, Line, LineOutcome, Settlement, Waiting
from imserver.storage.webhooks import Hook, Hooks
from imserver.webhooks import events, presence_events
from imserver.webhooks.breaker import Breaker, HookDown, backoff_seconds
from imserver.webhooks.client import HookFailed, HookRejected
from tasks.drain import Stage

logger = logging.getLogger(__name__)

#: Calls of a process at the same time.
MOST_CALLS = 16
#: No new call of a batch begins after this: other shards wait for the runner too.
SLICE_SECONDS = 1.0


@one_a_process
def _loop() -> asyncio.AbstractEventLoop:
    """Calls are many and wait a lot: they run on one event loop of the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="webhook-calls", daemon=True).start()
    return loop


@dataclass(slots=True)
class Work:
    """A line in a batch: what waits, what is new, and how far it got."""

    line: Line
    waiting: Waiting | None = None
    fresh: list[tuple[bytes, HookBatch]] = field(default_factory=list)
    #: Batches that are done, the waiting ones first.
    done: int = 0
    #: Why it stopped before its end; empty when it did not or only the time was over.
    failure: str = ""
    due_ms: int = 0
    #: The minutes a failing batch is tried before it is given up.
    retry_minutes: float = 0
    dead: list[DeadLetter] = field(default_factory=list)

    @property
    def old(self) -> list[HookBatch]:
        return self.waiting.batches if self.waiting is not None else []

    @property
    def is_blocked(self) -> bool:
        """New batches must go behind waiting ones that are not looked at now."""
        return self.waiting is not None and (not self.waiting.is_due or self.waiting.has_more)

    @property
    def to_call(self) -> list[HookBatch]:
        if self.waiting is not None and not self.waiting.is_due:
            return []
        return self.old if self.is_blocked else [*self.old, *(batch for _, batch in self.fresh)]


@dataclass(frozen=True, slots=True)
class HookCall:
    """What a message of a batch becomes for its hook."""

    hook: Hook
    body: bytes
    query: dict[str, str] = field(default_factory=dict)


def _call_of(kind: str, batch: HookBatch, hooks: Hooks) -> HookCall | None:
    """The call for the message a batch stands at; None when no hook wants it. Raises DecodeError, ValueError."""
    if kind == webhooks.AFTER_PRESENCE:
        event = presence_events.parse(batch.msg)
        hook = hooks.by_command.get(event["command"])
        if hook is None or not presence_events.is_wanted(hook, event):
            return None
        return HookCall(hook, presence_events.body_of(event, batch.operation_id))
    msg = MsgData.FromString(batch.msg)
    command = events.after_command(kind, msg)
    hook = hooks.by_command.get(command) if command is not None else None
    if command is None or hook is None or not events.is_wanted(hook, msg):
        return None
    return HookCall(hook, events.body_of(command, msg, batch.operation_id, batch.seq), events.query_of(command, msg))


class Webhooks(Stage):
    name = "webhook"

    def __init__(self) -> None:
        self._redis = get_redis()
        self._breakers: dict[str, Breaker] = {}

    def process(self, lease: Lease, entries: list[Entry]) -> None:
        """1. What is there, by line. 2. Call. 3. Apply what came of it."""
        hooks = webhooks.get_cache(get_mongo()).get()
        settlement = Settlement()
        works = self._collect(lease, entries, settlement)
        self._call_all(lease, works, hooks)
        for work in works:
            _conclude(work, settlement)
        webhook_waits.settle(self._redis, lease, settlement)
        if settlement.dead:
            metrics.DEAD_LETTERS.labels(self.name).inc(len(settlement.dead))
            logger.warning(
                "after webhooks given up",
                extra={
                    "action": "webhook",
                    "shard": lease.shard,
                    "count": len(settlement.dead),
                    "reason": settlement.dead[0].reason,
                },
            )

    def _collect(self, lease: Lease, entries: list[Entry], settlement: Settlement) -> list[Work]:
        works: dict[Line, Work] = {}
        for entry_id, fields in entries:
            if webhook_waits.is_tick((entry_id, fields)):
                settlement.handled.append(entry_id)
                continue
            try:
                line = Line(fields[b"h"].decode(), fields[b"c"].decode())
                batch = HookBatch.from_entry(fields)
            except (KeyError, ValueError, DecodeError) as error:
                settlement.handled.append(entry_id)
                settlement.dead.append(DeadLetter(f"not a batch: {error!r}"[:200], fields))
                continue
            works.setdefault(line, Work(line)).fresh.append((entry_id, batch))
        for line, waiting in webhook_waits.read_waiting(self._redis, lease.shard, set(works)).items():
            works.setdefault(line, Work(line)).waiting = waiting
        return list(works.values())

    # -- calling

    def _call_all(self, lease: Lease, works: list[Work], hooks: Hooks) -> None:
        """Runs on the event loop's thread; this one keeps the lease meanwhile. Raises LeaseLost."""
        future: Future[None] = asyncio.run_coroutine_threadsafe(self._run_lines(works, hooks), _loop())
        try:
            while not wait_for([future], get_config().lease_ms / 4000).done:
                lease.renew(self._redis)
        except BaseException:
            future.cancel()
            raise
        future.result()

    async def _run_lines(self, works: list[Work], hooks: Hooks) -> None:
        places, slice_end = asyncio.Semaphore(MOST_CALLS), time.monotonic() + SLICE_SECONDS

        async def run(work: Work) -> None:
            async with places:
                await self._run_line(work, hooks, slice_end)

        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(run(work))

    async def _run_line(self, work: Work, hooks: Hooks, slice_end: float) -> None:
        """Call in order until all is done, a call fails or the time is over."""
        for batch in work.to_call:
            while not batch.is_done:
                if time.monotonic() >= slice_end:
                    return
                if not await self._run_one(work, batch, hooks):
                    return
                batch.step()
            work.done += 1

    async def _run_one(self, work: Work, batch: HookBatch, hooks: Hooks) -> bool:
        """Call for the message a batch stands at; False when the line has to wait."""
        try:
            call = _call_of(work.line.kind, batch, hooks)
        except (DecodeError, ValueError) as error:
            work.dead.append(batch.dead_letter(work.line, f"not a message: {error!r}"[:200], only_one=True))
            return True
        if call is None:
            return True
        command = call.hook.command
        try:
            await self._breaker(command).post(call.hook, call.body, batch.operation_id, call.query)
        except HookRejected as error:
            work.dead.append(batch.dead_letter(work.line, f"{command} {error}", only_one=True))
        except (HookDown, HookFailed) as error:
            if isinstance(error, HookFailed):
                batch.tries += 1
                metrics.WEBHOOK_RETRIES.labels(command).inc()
            wait = backoff_seconds(max(batch.tries, 1))
            down = self._breaker(command).seconds_down
            work.due_ms = now_ms() + int(max(wait if batch.tries else 0, down) * 1000)
            work.failure, work.retry_minutes = f"{command} {error}", call.hook.retry_minutes
            return False
        return True

    def _breaker(self, command: str) -> Breaker:
        return self._breakers.setdefault(command, Breaker())


def _conclude(work: Work, settlement: Settlement) -> None:
    """What becomes of a line, after its calls."""
    now = now_ms()
    done_old, done_fresh = min(work.done, len(work.old)), max(work.done - len(work.old), 0)
    settlement.dead += work.dead
    settlement.handled += [entry_id for entry_id, _ in work.fresh[:done_fresh]]
    old, fresh = work.old[done_old:], work.fresh[done_fresh:]
    if not (work.failure or work.is_blocked):
        # The time was over: a batch that is half done must remember it, the others may stay in the log.
        fresh = [(entry_id, batch) for entry_id, batch in fresh[:1] if batch.at]
    settlement.handled += [entry_id for entry_id, _ in fresh]
    behind = [batch for _, batch in fresh]
    for batch in behind:
        batch.since_ms = now
    outcome = LineOutcome(work.line, done=done_old)
    if work.failure:
        outcome.due_ms = work.due_ms
        given_up = _too_old([*old, *behind], now - work.retry_minutes * 60_000)
        settlement.dead += [batch.dead_letter(work.line, f"given up: {work.failure}") for batch in given_up]
        outcome.done += min(len(given_up), len(old))
        old, behind = old[len(given_up) :], behind[max(len(given_up) - len(old), 0) :]
        if work.waiting is not None and work.waiting.has_more and not old:
            outcome.due_ms = now
    elif work.waiting is None or work.waiting.is_due:
        outcome.due_ms = now
    if old and (work.failure or old[0].at):
        outcome.head = old[0]
    outcome.behind = behind
    if work.waiting is not None or behind:
        settlement.lines.append(outcome)


def _too_old(batches: list[HookBatch], before_ms: float) -> list[HookBatch]:
    """Of a line that failed again: what has waited too long, from the oldest."""
    return list(takewhile(lambda batch: batch.since_ms <= before_ms, batches))
