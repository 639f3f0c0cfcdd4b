"""Celery beat's scheduler, without its busy waiting."""

from __future__ import annotations

from celery.beat import PersistentScheduler


class SleepingScheduler(PersistentScheduler):
    def adjust(self, n: float, drift: float = 0.0) -> float:
        """When beat wakes up for an entry that is due in ``n`` s: then. Celery's own ``drift`` is 10 ms earlier.

        An entry that is not due yet is asked again at once, so those 10 ms pass in a loop of some hundred questions, each
        time: two thirds of beat's work. Sleeping through them makes a task of every second come a few ms later.
        """
        return n + drift if n and n > 0 else n
