"""How many requests a connection may send: 2 s worth at once, so that a client that catches up is not hindered."""

from __future__ import annotations

from enum import Enum
from weakref import WeakValueDictionary

from aiolimiter import AsyncLimiter

BURST_SECONDS = 2
#: Who goes on sending several times the rate has the rate of this many seconds refused, and is then closed.
FLOOD_SECONDS = 10


class Verdict(Enum):
    ADMIT = 1
    REFUSE = 2
    CLOSE = 3


class _UserRate:
    """Shared by the user's connections on this node; gone with the last."""

    __slots__ = ("__weakref__", "limiter")

    def __init__(self, rate: int) -> None:
        self.limiter = AsyncLimiter(rate * BURST_SECONDS, BURST_SECONDS)


_user_rates: WeakValueDictionary[str, _UserRate] = WeakValueDictionary()


class RequestRate:
    """One connection's share. Rates are requests a second, 0 for no limit."""

    __slots__ = ("_flood", "_own", "_rate", "_shared")

    def __init__(self, user_id: str, rate: int, user_rate: int) -> None:
        self._rate = min(filter(None, (rate, user_rate)), default=0)
        self._own = AsyncLimiter(rate * BURST_SECONDS, BURST_SECONDS) if rate else None
        self._shared: _UserRate | None = None
        self._flood: AsyncLimiter | None = None
        if user_rate:
            self._shared = _user_rates.get(user_id)
            if self._shared is None:
                self._shared = _user_rates[user_id] = _UserRate(user_rate)

    async def ask(self) -> Verdict:
        """Count a request. Never waits: whether there is room is looked at before it is taken."""
        own = self._own
        shared = self._shared.limiter if self._shared is not None else None
        if (own is not None and not own.has_capacity()) or (shared is not None and not shared.has_capacity()):
            return await self._refuse()
        if own is not None:
            await own.acquire()
        if shared is not None:
            await shared.acquire()
        return Verdict.ADMIT

    async def _refuse(self) -> Verdict:
        if self._flood is None:
            self._flood = AsyncLimiter(self._rate * FLOOD_SECONDS, FLOOD_SECONDS)
        if not self._flood.has_capacity():
            return Verdict.CLOSE
        await self._flood.acquire()
        return Verdict.REFUSE
