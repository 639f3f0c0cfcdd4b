"""What is measured: one function a workload, called in the generator's process with everybody connected.

A function starts its traffic, calls ``load.measure()``, which returns when the measured time is over, and sends nothing
after that. Before ``load.measure()`` has warmed up nothing counts.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.benchmarks.load import Chat, Load

Drive = Callable[[Load], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    title: str
    drive: Drive
    #: Runs once for each of the rates asked for, with timers that are exact to microseconds.
    is_open_loop: bool


WORKLOADS: dict[str, Workload] = {}


def _workload(title: str, *, is_open_loop: bool) -> Callable[[Drive], Drive]:
    def register(drive: Drive) -> Drive:
        name = drive.__name__
        WORKLOADS[name] = Workload(name, title, drive, is_open_loop)
        return drive

    return register


@_workload("one-to-one at saturation: every pair keeps a window of messages on their way", is_open_loop=False)
async def w1a(load: Load) -> None:
    """A message counts against the window from its sending until its receiver has it."""

    def send_next(chat: Chat) -> None:
        if load.is_sending:
            chat.send(time.monotonic())

    for chat in load.chats:
        chat.on_delivered = send_next
    for _ in range(load.plan.window):
        for chat in load.chats:
            chat.send(time.monotonic())
    await load.measure()


@_workload("one-to-one at a fixed rate: messages start when their moment has come", is_open_loop=True)
async def w1b(load: Load) -> None:
    """Random (Poisson) moments, the same in every run. Time counts from the moment, not from the sending: a server or
    a generator that is late cannot hide it."""

    async def send_all() -> None:
        chance = random.Random(20)
        moment = time.monotonic()
        while load.is_sending:
            moment += chance.expovariate(load.plan.rate)
            await asyncio.sleep(max(moment - time.monotonic(), 0))
            if load.is_sending:
                chance.choice(load.chats).send(moment)

    sending = asyncio.create_task(send_all())
    await load.measure()
    await sending
