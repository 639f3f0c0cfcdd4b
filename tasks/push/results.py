"""What nodes answer to a push that was to be reported on: a result for every user and platform."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from channels.layers import get_channel_layer

from imserver.conf import get_config
from imserver.constants import PushResult
from tasks.push import layer

logger = logging.getLogger(__name__)

#: A node that did not answer in time is not waited for again so soon: its users count as not reached.
SILENT_SECONDS = 2.0
#: Pushes in a row that no node answered, until the inbox looks whether it is the one that is deaf.
UNANSWERED_PUSHES = 3
#: Its message to itself takes no longer.
ECHO_SECONDS = 1.0
ECHO_EVENT = "push.echo"

#: (user, platform) -> result.
Results = dict[tuple[str, int], PushResult]


class Answer:
    """The answers to one push."""

    def __init__(self, address: dict[str, Any], silent_until: dict[str, float]) -> None:
        #: What an event carries so that the node knows where to answer to.
        self.address = address
        self._silent_until = silent_until
        self._results: Results = {}
        self._heard: set[tuple[str, int]] = set()
        self._changed = threading.Condition()
        #: Nodes were waited for, and none answered.
        self.is_unanswered = False

    def add(self, node: str, part: int, results: list[tuple[str, int, int]]) -> None:
        with self._changed:
            self._heard.add((node, part))
            for user_id, platform_id, code in results:
                at = (user_id, platform_id)
                # Of several connections of a platform, on several nodes, one that took it is enough.
                if self._results.get(at) != PushResult.OK:
                    self._results[at] = PushResult(code)
            self._changed.notify()

    def wait_for(self, parts: dict[str, int]) -> Results:
        """The results of these nodes, so many parts of each; of those that do not answer within PUSH_RESULT_MS there are
        none, or not all."""
        now = time.monotonic()
        awaited = {
            (node, part)
            for node, count in parts.items()
            if self._silent_until.get(node, 0.0) <= now
            for part in range(count)
        }
        with self._changed:
            self._changed.wait_for(lambda: awaited <= self._heard, get_config().push_result_ms / 1000)
            silent = {node for node, _ in awaited - self._heard}
            for node in silent:
                self._silent_until[node] = time.monotonic() + SILENT_SECONDS
            self.is_unanswered = bool(awaited) and not self._heard
            results = dict(self._results)
        if silent:
            logger.warning("no result of a push", extra={"action": "push", "nodes": sorted(silent)})
        return results


class ResultInbox:
    """This process's address for results, made at the first use, and anew when nothing comes through any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel = ""
        self._receiver: asyncio.Task[None] | None = None
        self._echoed = threading.Event()
        #: Pushes in a row that were not answered.
        self._unanswered = 0
        self._open: dict[int, Answer] = {}
        self._next_id = 0
        self._silent_until: dict[str, float] = {}

    @contextmanager
    def open(self) -> Iterator[Answer]:
        """Answers to one push are taken in within the ``with`` block."""
        if self._unanswered >= UNANSWERED_PUSHES:
            self._check_hearing()
        with self._lock:
            if not self._channel:
                self._channel = layer.run(self._listen())
            self._next_id += 1
            number = self._next_id
            answer = self._open[number] = Answer({"reply": self._channel, "id": number}, self._silent_until)
        try:
            yield answer
        finally:
            with self._lock:
                del self._open[number]
                self._unanswered += answer.is_unanswered

    def _check_hearing(self) -> None:
        """The layer does not notice a subscription that died without a word: call ourselves, and subscribe anew when that
        does not come. A layer that is away is called again after as many pushes."""
        self._unanswered = 0
        self._echoed.clear()
        try:
            layer.run(get_channel_layer().send(self._channel, {"type": ECHO_EVENT}))
            if not self._echoed.wait(ECHO_SECONDS):
                logger.error("results of pushes are not heard, subscribing anew", extra={"action": "push"})
                self._channel = layer.run(self._listen_anew())
        except (redis.RedisError, OSError, TimeoutError) as error:
            logger.warning("channel layer is away", extra={"action": "push", "error": repr(error)[:300]})

    async def _listen(self) -> str:
        channel: str = await get_channel_layer().new_channel("push-results")
        self._receiver = layer.start(self._receive(channel))
        return channel

    async def _listen_anew(self) -> str:
        if self._receiver is not None:
            self._receiver.cancel()
            await asyncio.wait([self._receiver], timeout=ECHO_SECONDS)
        await get_channel_layer().flush()
        return await self._listen()

    async def _receive(self, channel: str) -> None:
        while True:
            try:
                event = await get_channel_layer().receive(channel)
                self._unanswered = 0
                if event["type"] == ECHO_EVENT:
                    self._echoed.set()
                    continue
                with self._lock:
                    answer = self._open.get(event["id"])
                if answer is not None:
                    answer.add(event["node"], event["part"], event["results"])
            except Exception as error:
                # A wrong answer must not end the hearing of all others.
                logger.error("result not understood", extra={"action": "push"}, exc_info=error)
