"""The load of one run, in the generator's process (``loadgen.py``); ``workloads.py`` says when a message is sent."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from imserver.protocol.conversations import group_conversation_id, single_conversation_id
from tests.benchmarks import wire
from tests.benchmarks.chats import Chat, User, no_faults
from tests.benchmarks.connection import Connection, PushReader
from tests.benchmarks.plan import LoadError, Plan, UserPlan
from tests.benchmarks.report import curve_of, latency_of, percentile

CONNECT_SECONDS = 30.0
CONNECTS_AT_ONCE = 50
#: How long what was sent may take to arrive after the last send; what is missing then is lost.
ARRIVE_SECONDS = 60.0
PROGRESS_SECONDS = 0.5
#: Width of the steps in which throughput over time is told.
STEP_SECONDS = 0.5

Notify = Callable[[str, dict[str, Any]], None]


class Load:
    """All users and chats of a run, and the stretch of time that is measured."""

    def __init__(self, plan: Plan, notify: Notify) -> None:
        self.plan = plan
        self.users: list[User] = []
        self.chats: list[Chat] = []
        self.is_sending = True
        #: Latencies in seconds of other things than messages, by name; a workload adds to them while it is measured.
        self.series: dict[str, list[float]] = defaultdict(list)
        #: Faults that only the workload can see.
        self.faults: dict[str, int] = defaultdict(int)
        self.is_measuring = False
        self._notify = notify
        self._arrived = 0
        self._arrived_while_measured = 0
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = PushReader(plan.codec)
        self._from = self._to = 0.0

    # -- connections

    async def connect(self) -> None:
        """Raises LoadError."""
        for start in range(0, len(self.plan.users), CONNECTS_AT_ONCE):
            some = self.plan.users[start : start + CONNECTS_AT_ONCE]
            self.users += await asyncio.gather(*(self._connect(user) for user in some))
            self._notify("connecting", {"share": len(self.users) / len(self.plan.users)})
        for chat in self.plan.chats:
            receivers = [self.users[number] for number in chat.receivers]
            self.open_chat(self.users[chat.sender], receivers, group_id=chat.group_id, before=chat.before)

    async def _connect(self, user: UserPlan) -> User:
        gateway_url = self.plan.gateway_urls[user.gateway]
        url = urlsplit(gateway_url)
        if url.hostname is None:
            raise LoadError(f"no host in {gateway_url}")
        request = wire.upgrade_request(gateway_url, user.user_id, user.token, self.plan.codec)
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(request, self.plan.codec, self._reader, self._fail), url.hostname, url.port or 80
        )
        await asyncio.wait_for(connection.accepted, CONNECT_SECONDS)
        return User(user.user_id, connection)

    def open_chat(
        self,
        sender: User,
        receivers: list[User],
        *,
        group_id: str = "",
        before: int = 0,
        template: wire.SendTemplate | None = None,
    ) -> Chat:
        """From now on ``sender`` may write to ``receivers``."""
        to = group_id or receivers[0].user_id
        conversation_id = group_conversation_id(to) if group_id else single_conversation_id(sender.user_id, to)
        if template is None:
            template = wire.SendTemplate.build(
                self.plan.codec, sender.user_id, to, self.plan.text_bytes, is_group=bool(group_id)
            )
        chat = Chat(template, conversation_id, sender, receivers, before, self._on_arrival)
        self.chats.append(chat)
        return chat

    def _on_arrival(self) -> None:
        self._arrived += 1

    def close(self) -> None:
        for user in self.users:
            user.connection.close()
        if not self._failure.done():
            self._failure.cancel()

    def _fail(self, text: str) -> None:
        if not self._failure.done():
            self._failure.set_exception(LoadError(text))

    async def _wait(self, seconds: float, work: asyncio.Task[None] | None = None) -> None:
        """Sleep, but no longer than ``work`` goes on. Raises LoadError when a connection breaks meanwhile."""
        futures: list[asyncio.Future[None]] = [self._failure, *([work] if work else [])]
        await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._failure.done():
            self._failure.result()

    # -- the measured time

    async def measure(self, work: Coroutine[Any, Any, None] | None = None) -> None:
        """Warm up, then measure; ends the sending.

        ``work`` begins with the measured time and is waited for; when it is done sooner, so is the measured time.
        Without it messages are on their way already: the server is not warm before the first of them has arrived.
        """
        await self._wait(self.plan.warmup_seconds)
        deadline = time.monotonic() + ARRIVE_SECONDS
        while work is None and not self._arrived and time.monotonic() < deadline:
            await self._wait(0.02)
        self._notify("measuring", {})
        self._from, arrived_before = time.monotonic(), self._arrived
        self.is_measuring = True
        task = asyncio.create_task(work) if work is not None else None
        end = self._from + self.plan.seconds
        while (left := end - time.monotonic()) > 0 and not (task and task.done()):
            await self._wait(min(left, PROGRESS_SECONDS), task)
            share = 1 - left / self.plan.seconds
            self._notify("progress", {"share": share, "arrived": self._arrived - arrived_before})
        self._to = time.monotonic()
        self._arrived_while_measured = self._arrived - arrived_before
        self.is_sending = self.is_measuring = False
        if task is not None:
            await task
        sent = {chat.conversation_id: chat.before + len(chat.started_at) for chat in self.chats}
        self._notify("measured", {"at": self._to, "seconds": self._to - self._from, "stored": sent})

    async def settle(self) -> None:
        """Wait until everything sent has arrived, but not for ever."""
        deadline = time.monotonic() + ARRIVE_SECONDS
        waiting = self.chats
        while (waiting := [chat for chat in waiting if not chat.is_settled]) and time.monotonic() < deadline:
            await self._wait(0.02)
        # Nobody is waited for any more; a double would come right behind.
        await self._wait(0.1)

    # -- what came of it

    def result(self) -> dict[str, Any]:
        """Latencies are of the messages whose time began while it was measured, all of which were waited for."""
        start, end = self._from, self._to
        moments = [
            pair for chat in self.chats for pair in zip(chat.started_at, chat.delivered_at, strict=True) if pair[1]
        ]
        latencies = [delivered - started for started, delivered in moments if start <= started < end]
        delivered = [moment - start for _, moment in moments if start <= moment < end]
        late = sorted(item for chat in self.chats for item in chat.late_seconds)
        refused: dict[str, int] = defaultdict(int)
        faults = no_faults() | self.faults
        for chat in self.chats:
            chat.add_faults(faults)
            for reason, count in chat.refused.items():
                refused[reason] += count
        return {
            "sent": sum(len(chat.started_at) for chat in self.chats),
            "delivered": len(delivered),
            "arrived": self._arrived_while_measured,
            "latency": asdict(latency_of(latencies)),
            "curve": curve_of(latencies),
            "steps": _steps(delivered, end - start),
            "series": {name: asdict(latency_of(values)) for name, values in self.series.items()},
            "started_late_p99_ms": round(percentile(late, 99) * 1000, 3),
            "refused": refused,
            "faults": faults,
        }


def _steps(moments: list[float], seconds: float) -> list[float]:
    """Messages a second in each whole step of the measured time."""
    counts = [0] * int(seconds / STEP_SECONDS)
    for moment in moments:
        step = int(moment / STEP_SECONDS)
        if step < len(counts):
            counts[step] += 1
    return [count / STEP_SECONDS for count in counts]
