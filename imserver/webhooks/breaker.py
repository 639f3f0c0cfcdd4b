"""Whether a hook answers at all: one that did not is spared for a while, and so is who waits for it."""

from __future__ import annotations

import asyncio
import time

from imserver.storage.webhooks import Hook
from imserver.webhooks.client import HookError, HookFailed, HookRejected, post

#: The waits after failures: 1, 2, 4 … 60 s.
BACKOFF_FIRST_SECONDS = 1.0
BACKOFF_MOST_SECONDS = 60.0


def backoff_seconds(failures: int) -> float:
    return min(BACKOFF_FIRST_SECONDS * 2.0 ** min(failures - 1, 30), BACKOFF_MOST_SECONDS)


class HookDown(HookError):
    """Not called: the hook did not answer a moment ago."""

    def __init__(self) -> None:
        super().__init__("does not answer")


class Breaker:
    """Calls one hook. One that did not answer is asked again by a single call, after a growing wait.

    Belongs to one event loop.
    """

    def __init__(self, patience: int = 1, most_seconds: float | None = None) -> None:
        """
        Args:
            patience: calls in a row without an answer until the hook is taken for down.
            most_seconds: the longest wait; by default that of events which lose nothing by it.
        """
        self._patience = patience
        self._most_seconds = most_seconds
        self._unanswered = 0
        self._down_until = 0.0
        self._probe = asyncio.Lock()

    @property
    def seconds_down(self) -> float:
        """How long nobody calls."""
        return max(self._down_until - time.monotonic(), 0.0)

    @property
    def is_suspected(self) -> bool:
        """It did not answer, and has not done so since."""
        return self._unanswered >= self._patience

    @property
    def is_busy(self) -> bool:
        """A call now would fail at once, or wait for what comes of the one that is under way."""
        return self.seconds_down > 0 or self._probe.locked()

    async def post(self, hook: Hook, body: bytes, operation_id: str, query: dict[str, str] | None = None) -> bytes:
        """``client.post``, or HookDown. While it is not known whether the hook is back, calls wait for the one that asks.

        Raises HookDown, HookFailed, HookRejected.
        """
        if self.is_suspected:
            async with self._probe:
                if self.seconds_down:
                    raise HookDown
                if self.is_suspected:
                    return await self._attempt(hook, body, operation_id, query)
        return await self._attempt(hook, body, operation_id, query)

    async def _attempt(self, hook: Hook, body: bytes, operation_id: str, query: dict[str, str] | None) -> bytes:
        try:
            answer = await post(hook, body, operation_id, query)
        except HookFailed as error:
            self._note(answered=not error.is_down)
            raise
        except HookRejected:
            self._note(answered=True)
            raise
        self._note(answered=True)
        return answer

    def _note(self, *, answered: bool) -> None:
        if answered:
            self._unanswered, self._down_until = 0, 0.0
        elif not self.seconds_down:
            self._unanswered += 1
            if self.is_suspected:
                wait = backoff_seconds(self._unanswered - self._patience + 1)
                self._down_until = time.monotonic() + min(wait, self._most_seconds or wait)
