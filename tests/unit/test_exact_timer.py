"""The timer of the load generator."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvloop

from tests.benchmarks.exact_timer import ExactTimer

DEADLINE_SECONDS = 30


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.SelectorEventLoop])
def test_it_rings_once_for_each_setting_and_never_early(loop_factory: type[asyncio.AbstractEventLoop]) -> None:
    rings: list[float] = []

    async def run() -> list[float]:
        rang = asyncio.Event()

        def note() -> None:
            rings.append(time.monotonic())
            rang.set()

        moments = [time.monotonic() + 0.0123, time.monotonic() + 0.0246, time.monotonic() - 1]
        with ExactTimer(note) as timer:
            for moment in moments:
                rang.clear()
                timer.set(moment)
                await asyncio.wait_for(rang.wait(), DEADLINE_SECONDS)
        return moments

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        moments = runner.run(run())
    assert len(rings) == len(moments)
    assert all(rang >= moment for rang, moment in zip(rings, moments, strict=True))


async def test_a_new_setting_takes_the_place_of_the_one_before() -> None:
    rings: list[float] = []
    rang = asyncio.Event()

    def note() -> None:
        rings.append(time.monotonic())
        rang.set()

    with ExactTimer(note) as timer:
        later = time.monotonic() + 0.05
        timer.set(time.monotonic() - 1)  # due at once, but the loop has not looked yet
        timer.set(later)
        await asyncio.wait_for(rang.wait(), DEADLINE_SECONDS)
    assert [rang_at >= later for rang_at in rings] == [True]


async def test_nothing_rings_after_the_end() -> None:
    rings: list[float] = []
    with ExactTimer(lambda: rings.append(time.monotonic())) as timer:
        timer.set(time.monotonic())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not rings
