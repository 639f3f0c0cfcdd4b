"""One offline push from the message to the vendor's answer: webhook, receivers, marks, calls.

All of it runs on one event loop. A call is preceded by a mark (storage/offline_waits.py); its outcome decides whether the
mark stays.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from pymongo.errors import PyMongoError

from imserver import metrics
from imserver.clock import now_ms
from imserver.conf import get_config
from imserver.constants import RecvMsgOpt
from imserver.errors import WebhookAnswerInvalid, WebhookRefused, WebhookUnreachable
from imserver.protocol.conversations import chat_conversation_id
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import conversations, users
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.device_tokens import DeviceToken, DeviceTokens
from imserver.storage.offline_waits import Badges, Job, Mark, PushMarks
from imserver.storage.webhooks import Hooks
from imserver.vendors.base import Notice, Outcome, Result, Target, Vendor
from imserver.webhooks.offline_push import before_offline_push
from tasks.push.notices import notice_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Calls of a process at the same time.
MOST_CALLS = 16
#: The waits after failures: 1, 2, 4 … 60 s.
BACKOFF_FIRST_SECONDS = 1.0
BACKOFF_MOST_SECONDS = 60.0
#: Where nothing is tried again, a push that waits for its first try is still worth it for so long.
FIRST_TRY_MS = 60_000
#: Of one push, at most (Getui: two, each perhaps with a new token and repeated). So long it may be under way.
MOST_REQUESTS = 6


class NotCalled(Result):
    """The vendor was not asked."""


#: The vendor takes nothing now, or the time of the batch is over.
_PAUSED = NotCalled(Outcome.RETRY, "the vendor is not called for now")
_NO_TIME = NotCalled(Outcome.RETRY, "the time of the batch is over")


def backoff_seconds(failures: int) -> float:
    return min(BACKOFF_FIRST_SECONDS * 2.0 ** min(max(failures - 1, 0), 30), BACKOFF_MOST_SECONDS)


@dataclass(slots=True)
class Slice:
    """How long a batch may begin calls."""

    ends_at: float

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.ends_at


@dataclass(slots=True)
class Progress:
    """How far a job came. ``due_ms``: when it is to go on, for the users that are left in the job; None: it is done."""

    job: Job
    is_begun: bool = False
    due_ms: int | None = None


class Gate:
    """Whether the vendor is called at all. One that did not answer, or asked for a pause, is then tried by one call."""

    def __init__(self) -> None:
        self.failures = 0
        self.closed_until = 0.0
        self.probe = asyncio.Lock()

    @property
    def seconds_closed(self) -> float:
        return max(self.closed_until - time.monotonic(), 0.0)

    def note(self, results: list[Result]) -> None:
        troubled = [result for result in results if result.is_down or result.pause]
        if troubled:
            if not self.seconds_closed:
                self.failures += 1
            wait = max(backoff_seconds(self.failures), *(result.retry_after for result in troubled))
            self.closed_until = max(self.closed_until, time.monotonic() + wait)
        elif not self.seconds_closed:
            self.failures = 0


@dataclass(frozen=True, slots=True)
class _Push:
    """What the calls of one message share."""

    job: Job
    notice: Notice
    marks: PushMarks


@dataclass(slots=True)
class _Tally:
    """What came of the targets of a job in this run."""

    left: set[str] = field(default_factory=set)
    results: Counter[str] = field(default_factory=Counter)
    wait: float = 0.0
    has_tried: bool = False
    is_cut: bool = False
    reason: str = ""

    def add(self, target: Target, result: Result) -> None:
        if result.outcome is Outcome.RETRY:
            self.left.add(target.user_id)
            self.wait = max(self.wait, result.retry_after)
        if result is _NO_TIME:
            self.is_cut = True
            return
        if not isinstance(result, NotCalled):
            self.has_tried = self.has_tried or result.outcome is Outcome.RETRY
            self.results[result.outcome] += 1
        self.reason = result.reason or self.reason


class Delivery:
    """Pushes through one vendor. Belongs to one event loop."""

    def __init__(self, vendor: Vendor) -> None:
        self.vendor = vendor
        self._gate = Gate()
        self._places = asyncio.Semaphore(MOST_CALLS)

    async def run(self, jobs: list[Job], shard: int, hooks: Hooks, time_slice: Slice) -> list[Progress]:
        """Push side by side; what does not get its turn in time stays as it is. Raises redis.RedisError."""
        works = asyncio.Semaphore(MOST_CALLS)

        async def run_one(job: Job) -> Progress:
            async with works:
                progress = Progress(job)
                # What is too old is given up without a call, also when there is no time for any.
                if not time_slice.is_over or _is_too_late(job):
                    progress.is_begun = True
                    progress.due_ms = await self._run_job(job, shard, hooks, time_slice)
                return progress

        # All are waited for, also when one fails: a call that is cut off is a push that may be lost.
        done = await asyncio.gather(*map(run_one, jobs), return_exceptions=True)
        for item in done:
            if isinstance(item, BaseException):
                raise item
        return [item for item in done if isinstance(item, Progress)]

    async def _run_job(self, job: Job, shard: int, hooks: Hooks, time_slice: Slice) -> int | None:
        msg = MsgData.FromString(job.msg)
        tally = _Tally()
        is_late = _is_too_late(job)
        if is_late or self._gate.seconds_closed:
            # Neither webhook nor MongoDB are asked for what cannot be pushed anyway.
            tally.left, tally.reason = set(job.user_ids), "too late" if is_late else _PAUSED.reason
            return self._conclude(job, tally)
        try:
            if not job.is_decided:
                await self._decide(job, msg, hooks)
            push = _Push(
                job,
                notice_of(msg, job.conversation_id, show_text=get_config().offline_push_show_text),
                PushMarks(get_async_redis(), shard, msg.serverMsgID or msg.clientMsgID or job.id, job.id),
            )
            targets = await self._targets(push, msg)
        except WebhookRefused as error:
            logger.info("offline push refused by the webhook", extra=self._facts(job, code=error.code))
            return None
        except (WebhookUnreachable, WebhookAnswerInvalid, PyMongoError) as error:
            tally.left, tally.has_tried, tally.reason = set(job.user_ids), True, error.__class__.__name__
        else:
            await self._push_all(push, targets, tally, time_slice)
        return self._conclude(job, tally)

    async def _decide(self, job: Job, msg: MsgData, hooks: Hooks) -> None:
        """Ask the webhook; what it says goes into the job."""
        decision = await before_offline_push(hooks, msg, job.user_ids, job.operation_id)
        # The sender knows.
        job.user_ids = [user_id for user_id in decision.user_ids if user_id != msg.sendID]
        if decision.info is not None:
            msg.offlinePushInfo.CopyFrom(decision.info)
            job.msg = msg.SerializeToString()
        job.is_decided = True

    async def _targets(self, push: _Push, msg: MsgData) -> list[Target]:
        """Users, or their devices, without those who do not want it. Raises PyMongoError."""
        wanted = await _not_disturbed(push.job.user_ids, chat_conversation_id(msg))
        if not self.vendor.is_by_token:
            return [Target(user_id) for user_id in wanted]
        tokens = await DeviceTokens(get_async_mongo()).find(wanted)
        owners = {token.user_id for token in tokens}
        self._count(Outcome.NO_DEVICE, len(wanted) - len(owners))
        badges = await _badges(push, sorted(owners), is_counting=msg.offlinePushInfo.iOSBadgeCount)
        return [Target(token.user_id, token.platform_id, token.token, badges.get(token.user_id)) for token in tokens]

    async def _push_all(self, push: _Push, targets: list[Target], tally: _Tally, time_slice: Slice) -> None:
        chunks = list(_parts(targets, self.vendor.batch_size))
        for window in _parts(chunks, MOST_CALLS):
            outcomes: Sequence[list[tuple[Target, Result]]]
            if time_slice.is_over:
                outcomes = [[(target, _NO_TIME) for target in chunk] for chunk in window]
            else:
                outcomes = await asyncio.gather(*(self._push_chunk(push, chunk) for chunk in window))
            for target, result in chain.from_iterable(outcomes):
                tally.add(target, result)

    async def _push_chunk(self, push: _Push, targets: list[Target]) -> list[tuple[Target, Result]]:
        async with self._places:
            if self._gate.failures:
                async with self._gate.probe:
                    if self._gate.failures:
                        return await self._call(push, targets)
            return await self._call(push, targets)

    async def _call(self, push: _Push, targets: list[Target]) -> list[tuple[Target, Result]]:
        if self._gate.seconds_closed:
            return [(target, _PAUSED) for target in targets]
        timeout = get_config().offline_push_timeout_seconds
        names = [_mark_of(target) for target in targets]
        marks = await push.marks.mark(names, fresh_ms=timeout * MOST_REQUESTS * 1000)
        by_mark = {mark: [target for target, its in zip(targets, marks, strict=True) if its is mark] for mark in Mark}
        self._count("done before", len(by_mark[Mark.OLD]))
        under_way = NotCalled(Outcome.RETRY, "another worker's call may be under way", timeout)
        waiting = [(target, under_way) for target in by_mark[Mark.FRESH]]
        return [*waiting, *await self._call_vendor(push, by_mark[Mark.NEW])]

    async def _call_vendor(self, push: _Push, targets: list[Target]) -> list[tuple[Target, Result]]:
        if not targets:
            return []
        started = time.perf_counter()
        results = await self.vendor.push(push.notice, targets)
        metrics.OFFLINE_PUSH_SECONDS.labels(self.vendor.name).observe(time.perf_counter() - started)
        self._gate.note(results)
        outcomes = list(zip(targets, results, strict=True))
        await push.marks.unmark([_mark_of(target) for target, result in outcomes if result.outcome is Outcome.RETRY])
        await self._remove_dead(outcomes)
        return outcomes

    async def _remove_dead(self, outcomes: Iterable[tuple[Target, Result]]) -> None:
        tokens = DeviceTokens(get_async_mongo())
        for target, result in outcomes:
            if result.outcome is Outcome.INVALID:
                dead = DeviceToken(target.user_id, target.platform_id, target.token)
                try:
                    await tokens.remove_dead(dead, result.invalid_since_ms)
                except PyMongoError as error:
                    # The vendor says it again at the next push.
                    logger.warning(
                        "dead device token not removed",
                        extra={"action": "offline_push", "user_id": target.user_id, "error": repr(error)[:300]},
                    )

    def _conclude(self, job: Job, tally: _Tally) -> int | None:
        """When the job goes on, None when it is done."""
        for outcome, count in tally.results.items():
            self._count(outcome, count)
        failed = tally.results[Outcome.REFUSED]
        due_ms = None
        if tally.left:
            job.user_ids = sorted(tally.left)
            job.tries += tally.has_tried
            wait = max(tally.wait, backoff_seconds(job.tries) if job.tries else 0.0, self._gate.seconds_closed)
            due_ms = now_ms() if tally.is_cut else min(now_ms() + int(wait * 1000), _end_ms(job))
            if not tally.is_cut and now_ms() - job.since_ms >= get_config().offline_push_retry_minutes * 60_000:
                self._count("given up", len(tally.left))
                failed, due_ms = failed + len(tally.left), None
        if failed:
            metrics.OFFLINE_PUSHES_FAILED.labels(self.vendor.name).inc(failed)
        if failed or tally.has_tried or tally.results[Outcome.UNKNOWN]:
            logger.log(
                logging.WARNING if failed else logging.INFO,
                "offline push not taken",
                extra=self._facts(
                    job,
                    results={str(result): count for result, count in tally.results.items()},
                    left=len(tally.left),
                    tries=job.tries,
                    is_given_up=bool(tally.left) and due_ms is None,
                    reason=tally.reason,
                ),
            )
        return due_ms

    def _count(self, result: str, count: int) -> None:
        if count:
            metrics.OFFLINE_PUSHES.labels(self.vendor.name, result).inc(count)

    def _facts(self, job: Job, **facts: object) -> dict[str, object]:
        return {
            "action": "offline_push",
            "vendor": self.vendor.name,
            "conversation_id": job.conversation_id,
            "operation_id": job.operation_id,
            **facts,
        }


def _parts(items: Sequence[T], size: int) -> Iterator[list[T]]:
    return (list(items[at : at + size]) for at in range(0, len(items), size))


def _end_ms(job: Job) -> int:
    """When it is given up: an old notice helps nobody, whether it was tried or nobody came to it."""
    return job.since_ms + max(get_config().offline_push_retry_minutes * 60_000, FIRST_TRY_MS)


def _is_too_late(job: Job) -> bool:
    return now_ms() >= _end_ms(job)


def _mark_of(target: Target) -> str:
    return f"{target.user_id}:{target.platform_id}" if target.platform_id else target.user_id


async def _not_disturbed(user_ids: list[str], conversation_id: str) -> list[str]:
    """Without those who muted the conversation, or everything. Raises PyMongoError."""
    database, is_muted = get_async_mongo(), {"$gt": int(RecvMsgOpt.RECEIVE)}
    by_conversation, by_user = await asyncio.gather(
        database[conversations.COLLECTION].distinct(
            "owner_user_id",
            {"owner_user_id": {"$in": user_ids}, "conversation_id": conversation_id, "recv_msg_opt": is_muted},
        ),
        database[users.COLLECTION].distinct("user_id", {"user_id": {"$in": user_ids}, "global_recv_msg_opt": is_muted}),
    )
    muted = {*by_conversation, *by_user}
    return [user_id for user_id in user_ids if user_id not in muted]


async def _badges(push: _Push, user_ids: list[str], *, is_counting: bool) -> dict[str, int]:
    """The numbers to show, counted up once a message where the sender asks for it."""
    badges = Badges(get_async_redis())
    if is_counting and user_ids:
        marks = await push.marks.mark([f"#badge:{user_id}" for user_id in user_ids])
        await badges.count_up([user_id for user_id, mark in zip(user_ids, marks, strict=True) if mark is Mark.NEW])
    return await badges.get(user_ids)
