"""Beat sleeps until a task is due."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.beat import ScheduleEntry, Scheduler, Service

from imserver.devservices.servers import EmbeddedServers
from tasks.celery import app, every

INTERVAL_SECONDS = 0.05
SENDINGS = 20


@pytest.fixture
def scheduler(servers: EmbeddedServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    """What `celery -A tasks beat` would run, with one entry that is due often."""
    monkeypatch.setitem(app.conf, "beat_schedule", {"often": {"task": "often", "schedule": every(INTERVAL_SECONDS)}})
    service = Service(app, schedule_filename=str(tmp_path / "schedule"), scheduler_cls=app.conf.beat_scheduler)
    yield service.scheduler
    service.scheduler.close()
    service.scheduler.connection.close()


def test_beat_sleeps_from_one_sending_to_the_next(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str | None] = []

    def note(entry: ScheduleEntry, **_: object) -> None:
        sent.append(entry.name)

    monkeypatch.setattr(scheduler, "apply_entry", note)
    ticks = 0
    while sent.count("often") < SENDINGS:
        ticks += 1
        time.sleep(max(scheduler.tick(), 0))

    # One sends, one tells how long to sleep; a third where the sleep ended a moment before the clock's own time.
    assert ticks <= 3 * len(sent) + 3
