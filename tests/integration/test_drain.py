"""Draining with a stage of the tests' own over real logs and leases: design.md section 3."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError

from imserver.conf import Config
from imserver.storage import keys, logs
from imserver.storage.clients import close_async_clients, get_redis
from imserver.storage.lean_redis import get_async_lean_redis
from imserver.storage.logs import Append, Entry, Lease, LeaseLost
from tasks import drain, names, wakeup
from tasks.celery import app
from tasks.drain import Runner, Stage
from tests.factories import reconfigure, wait_until

LEASE_MS, LINGER_MS = 20_000, 120
Start = Callable[[Runner, int], "Future[str]"]


class Recorder(Stage):
    """Remembers what it was given and removes it; ``before`` runs first and may raise."""

    name = "transfer"

    def __init__(self, before: Callable[[Lease, list[Entry]], None] | None = None) -> None:
        self.handled: list[tuple[int, bytes]] = []
        self.batches: list[int] = []
        self._before = before

    def process(self, lease: Lease, entries: list[Entry]) -> None:
        if self._before is not None:
            self._before(lease, entries)
        lease.trim(get_redis(), entries[-1][0])
        self.batches.append(len(entries))
        self.handled += [(lease.shard, fields[b"m"]) for _, fields in entries]

    def of(self, shard: int) -> list[int]:
        return [int(number) for at, number in self.handled if at == shard]


@pytest.fixture(autouse=True)
def settings(config: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(drain, "BACKOFF_FIRST_SECONDS", 0.02)
    return reconfigure(monkeypatch, lease_ms=LEASE_MS, linger_ms=LINGER_MS)


@pytest.fixture
def wakes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Wake-ups that runners publish; they are published all the same."""
    published: list[tuple[str, int]] = []
    publish = wakeup.wake

    def note(stage: str, shard: int) -> None:
        published.append((stage, shard))
        publish(stage, shard)

    monkeypatch.setattr(drain, "wake", note)
    return published


@pytest.fixture
def start(settings: Config) -> Iterator[Start]:
    """Starts a drain on a thread, as a worker does; whatever still runs at the end is stopped."""
    runners: list[Runner] = []
    with ThreadPoolExecutor(4) as pool:

        def begin(runner: Runner, shard: int) -> Future[str]:
            runners.append(runner)
            return pool.submit(runner.drain, shard)

        yield begin
        for runner in runners:
            runner.stop()


def fill(client: redis.Redis, shard: int, numbers: range) -> None:
    pipe = client.pipeline(transaction=False)
    for number in numbers:
        pipe.xadd(keys.log(keys.TO_REDIS, shard), {"m": number})
    pipe.execute()


def is_drained(client: redis.Redis, shard: int) -> bool:
    """Everything is handled and the lease is given back."""
    return not client.xlen(keys.log(keys.TO_REDIS, shard)) and not client.exists(keys.lease("transfer", shard))


def wait_for_linger(runner: Runner, running: Future[str], shard: int) -> None:
    """Until the runner of the started task waits for the shard in a blocking read.

    Asked of the runner: that somebody is blocked may also be what an earlier test left behind, and a test that went on
    too early would become the runner itself.
    """
    wait_until(lambda: runner.is_reading(shard) or running.done(), "the runner lingers")
    assert not running.done()


def test_a_shard_is_drained_in_order_in_batches_and_given_back(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    reconfigure(monkeypatch, batch_size=50)
    stage = Recorder()
    fill(redis_client, 3, range(230))
    redis_client.set(keys.wake("transfer", 3), "1")

    start(Runner(stage), 3).result(20)

    assert stage.of(3) == list(range(230))
    assert stage.batches == [50, 50, 50, 50, 30]
    assert is_drained(redis_client, 3)
    assert not redis_client.exists(keys.wake("transfer", 3))


def test_a_wake_up_without_anything_to_do_costs_nothing(redis_client: redis.Redis, start: Start) -> None:
    stage = Recorder()

    start(Runner(stage), 0).result(20)

    assert stage.handled == []
    assert is_drained(redis_client, 0)


def test_the_lease_is_given_back_when_nothing_came_for_the_linger_time(redis_client: redis.Redis, start: Start) -> None:
    began = time.monotonic()

    start(Runner(Recorder()), 0).result(20)

    took = time.monotonic() - began
    assert took >= LINGER_MS / 1000
    assert is_drained(redis_client, 0)


async def test_an_entry_that_comes_while_a_runner_lingers_needs_no_wake_up(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    reconfigure(monkeypatch, linger_ms=20_000)
    stage = Recorder()
    fill(redis_client, 2, range(1))
    start(Runner(stage), 2)
    wait_until(lambda: stage.of(2) == [0], "the first entry is handled")

    appended = await logs.append(get_async_lean_redis(), {2: [Append("a_b", "a", "c1", b"1", "op", b"answer")]})
    await close_async_clients()

    assert appended == {2: [0, 1]}
    wait_until(lambda: stage.of(2) == [0, 1], "the later entry is handled", 10)
    assert redis_client.exists(keys.lease("transfer", 2)), "it still lingers"
    assert not redis_client.exists(keys.wake("transfer", 2))


def test_of_two_runners_only_one_drains_a_shard(redis_client: redis.Redis, start: Start) -> None:
    release, entered = threading.Event(), threading.Event()

    def hold(lease: Lease, entries: list[Entry]) -> None:
        entered.set()
        assert release.wait(20)

    first, second = Recorder(hold), Recorder()
    fill(redis_client, 0, range(10))
    running = start(Runner(first), 0)
    assert entered.wait(20)

    start(Runner(second), 0).result(20)
    release.set()
    running.result(20)

    assert second.handled == []
    assert first.of(0) == list(range(10))


def test_many_runners_and_wake_ups_handle_every_entry_once_and_in_order(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    reconfigure(monkeypatch, batch_size=7, linger_ms=1)
    stage = Recorder()
    runners = [Runner(stage) for _ in range(3)]

    for number in range(40):
        fill(redis_client, 0, range(number * 5, number * 5 + 5))
        for runner in runners:
            start(runner, 0)
    wait_until(lambda: is_drained(redis_client, 0), "everything is handled", 20)

    assert stage.of(0) == list(range(200))


def test_a_lease_that_was_lost_leaves_the_entries_to_the_new_owner(redis_client: redis.Redis, start: Start) -> None:
    fill(redis_client, 0, range(5))

    def lose(lease: Lease, entries: list[Entry]) -> None:
        redis_client.set(lease.key, "somebody else")

    stage = Recorder(lose)

    start(Runner(stage), 0).result(20)

    assert stage.handled == []
    assert redis_client.xlen(keys.log(keys.TO_REDIS, 0)) == 5
    assert redis_client.get(keys.lease("transfer", 0)) == b"somebody else"


def test_losing_one_shards_lease_does_not_stop_the_others(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    reconfigure(monkeypatch, linger_ms=20_000)

    def lose_shard_1(lease: Lease, entries: list[Entry]) -> None:
        if lease.shard == 1:
            raise LeaseLost(lease.key)

    stage = Recorder(lose_shard_1)
    runner = Runner(stage)
    fill(redis_client, 0, range(3))
    fill(redis_client, 1, range(3))
    start(runner, 0)
    wait_until(lambda: stage.of(0) == [0, 1, 2], "shard 0 is drained")

    start(runner, 1)
    fill(redis_client, 0, range(3, 6))

    wait_until(lambda: stage.of(0) == list(range(6)), "shard 0 goes on")
    assert stage.of(1) == []
    assert redis_client.xlen(keys.log(keys.TO_REDIS, 1)) == 3


def test_a_lease_is_kept_alive_while_nothing_happens(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    reconfigure(monkeypatch, lease_ms=8000, linger_ms=60_000)
    key = keys.lease("transfer", 0)
    runner = Runner(Recorder())
    running = start(runner, 0)
    wait_for_linger(runner, running, 0)
    token = redis_client.get(key)

    for _ in range(2):
        redis_client.pexpire(key, 6000)
        wait_until(lambda: redis_client.pttl(key) > 6000, "the lease's time begins again", 20)

    assert redis_client.get(key) == token
    runner.stop()
    running.result(20)


def test_a_failing_stage_is_tried_again_until_it_succeeds_and_loses_nothing(
    redis_client: redis.Redis, start: Start
) -> None:
    seen: list[tuple[float, list[bytes]]] = []

    def fail_three_times(lease: Lease, entries: list[Entry]) -> None:
        seen.append((time.monotonic(), [entry_id for entry_id, _ in entries]))
        if len(seen) <= 3:
            raise RuntimeError("MongoDB is away")

    stage = Recorder(fail_three_times)
    fill(redis_client, 0, range(20))

    start(Runner(stage), 0).result(20)

    assert stage.of(0) == list(range(20))
    assert is_drained(redis_client, 0)
    assert all(entry_ids == seen[0][1] for _, entry_ids in seen), "the same batch again"
    pauses = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(seen)]
    assert all(pause >= wanted for pause, wanted in zip(pauses, (0.02, 0.04, 0.08), strict=True))


def test_a_failing_shard_does_not_hold_up_the_others(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    reconfigure(monkeypatch, linger_ms=2000)
    is_broken = threading.Event()
    is_broken.set()

    def fail_shard_0(lease: Lease, entries: list[Entry]) -> None:
        if lease.shard == 0 and is_broken.is_set():
            raise RuntimeError("cannot")

    stage = Recorder(fail_shard_0)
    runner = Runner(stage)
    fill(redis_client, 0, range(3))
    fill(redis_client, 1, range(50))
    start(runner, 0)
    start(runner, 1)

    wait_until(lambda: stage.of(1) == list(range(50)), "shard 1 is drained")
    assert stage.of(0) == []
    is_broken.clear()
    wait_until(lambda: stage.of(0) == [0, 1, 2], "shard 0 is tried again")


def test_a_shard_that_fails_through_the_whole_slice_is_given_back_with_a_wake_up(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Start, wakes: list[tuple[str, int]]
) -> None:
    reconfigure(monkeypatch, drain_slice_ms=200)

    def fail(lease: Lease, entries: list[Entry]) -> None:
        raise RuntimeError("cannot")

    fill(redis_client, 4, range(3))

    start(Runner(Recorder(fail)), 4).result(20)

    assert redis_client.xlen(keys.log(keys.TO_REDIS, 4)) == 3
    assert not redis_client.exists(keys.lease("transfer", 4))
    assert wakes == [("transfer", 4)]
    assert redis_client.exists(keys.wake("transfer", 4))


def test_a_second_shard_is_handed_over_to_the_runner_that_is_there(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    reconfigure(monkeypatch, linger_ms=20_000)
    stage, threads = Recorder(), set()
    monkeypatch.setattr(stage, "_before", lambda lease, entries: threads.add(threading.get_ident()))
    runner = Runner(stage)
    fill(redis_client, 0, range(1))
    running = start(runner, 0)
    wait_until(lambda: stage.of(0) == [0], "the first shard is drained")
    wait_for_linger(runner, running, 0)

    fill(redis_client, 1, range(5))
    runner.drain(1)

    wait_until(lambda: stage.of(1) == list(range(5)), "the second shard is drained", 10)
    assert not running.done()
    assert threading.get_ident() not in threads
    assert len(threads) == 1


def test_all_shards_of_a_runner_are_given_back_in_the_end(redis_client: redis.Redis, start: Start) -> None:
    stage = Recorder()
    runner = Runner(stage)
    for shard in range(6):
        fill(redis_client, shard, range(shard * 10, shard * 10 + 10))

    tasks = [start(runner, shard) for shard in range(6)]
    for task in tasks:
        task.result(20)
    wait_until(lambda: all(is_drained(redis_client, shard) for shard in range(6)), "all shards are drained")

    assert {shard: stage.of(shard) for shard in range(6)} == {
        shard: list(range(shard * 10, shard * 10 + 10)) for shard in range(6)
    }


def test_stop_ends_a_lingering_runner_at_once_and_gives_its_leases_back(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Start, wakes: list[tuple[str, int]]
) -> None:
    reconfigure(monkeypatch, lease_ms=30_000, linger_ms=30_000)
    runner = Runner(Recorder())
    running = start(runner, 0)
    wait_for_linger(runner, running, 0)
    runner.drain(1)
    began = time.monotonic()
    wait_for_linger(runner, running, 1)

    runner.stop()
    running.result(15)

    assert time.monotonic() - began < 15
    assert is_drained(redis_client, 0)
    assert is_drained(redis_client, 1)
    assert wakes == []


def test_stop_finishes_the_batch_in_hand_and_leaves_the_rest_with_a_wake_up(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Start, wakes: list[tuple[str, int]]
) -> None:
    reconfigure(monkeypatch, batch_size=10)
    entered, release = threading.Event(), threading.Event()

    def hold(lease: Lease, entries: list[Entry]) -> None:
        entered.set()
        assert release.wait(20)

    stage = Recorder(hold)
    runner = Runner(stage)
    fill(redis_client, 0, range(25))
    running = start(runner, 0)
    assert entered.wait(20)

    runner.stop()
    release.set()
    running.result(20)

    assert stage.of(0) == list(range(10))
    assert redis_client.xlen(keys.log(keys.TO_REDIS, 0)) == 15
    assert not redis_client.exists(keys.lease("transfer", 0))
    assert wakes == [("transfer", 0)]


def test_a_slice_ends_and_the_rest_is_left_with_a_wake_up(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Start, wakes: list[tuple[str, int]]
) -> None:
    reconfigure(monkeypatch, batch_size=1, drain_slice_ms=1)
    stage = Recorder()
    fill(redis_client, 0, range(500))

    start(Runner(stage), 0).result(20)

    done = len(stage.handled)
    assert 0 < done < 500
    assert wakes == [("transfer", 0)]
    start(Runner(stage), 0).result(20)
    assert stage.of(0) == list(range(len(stage.handled)))
    assert len(stage.handled) > done


def test_entries_gather_until_their_time_is_over(redis_client: redis.Redis, start: Start) -> None:
    stage = Recorder()
    stage.gather_ms = 6000
    fill(redis_client, 0, range(1))
    start(Runner(stage), 0)
    wait_until(lambda: stage.batches == [1], "the first entry is handled at once")

    for number in range(1, 6):
        fill(redis_client, 0, range(number, number + 1))

    wait_until(lambda: len(stage.handled) == 6, "all are handled", 20)
    assert stage.batches == [1, 5]


def test_gathering_ends_when_the_stage_before_has_paused(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    feeder = Runner(Recorder())
    stage = Recorder()
    stage.gather_ms = 600_000
    fill(redis_client, 1, range(1))
    start(feeder, 1).result(20)
    reconfigure(monkeypatch, linger_ms=20_000)
    fill(redis_client, 0, range(1))
    start(Runner(stage, feeder), 0)
    wait_until(lambda: stage.batches == [1], "the first entry is handled at once")

    fill(redis_client, 0, range(1, 3))

    wait_until(lambda: stage.of(0) == [0, 1, 2], "nobody waits for ten minutes")


def test_gathering_ends_when_the_stage_before_has_handed_on_enough(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    reconfigure(monkeypatch, linger_ms=20_000)
    feeder = Runner(Recorder())
    stage = Recorder()
    stage.gather_ms = 600_000
    is_over = threading.Event()
    # One that was still for long would be taken for no feeder at all.
    feeder.handled_at = time.monotonic()

    def hand_on() -> None:
        """As one that never pauses."""
        while not is_over.wait(0.002):
            feeder.handled_at = time.monotonic()
            feeder.handled_entries += drain.ENOUGH_ENTRIES // 20

    busy = threading.Thread(target=hand_on, daemon=True)
    busy.start()
    fill(redis_client, 0, range(1))
    start(Runner(stage, feeder), 0)
    wait_until(lambda: stage.batches == [1], "the first entry is handled at once")
    fill(redis_client, 0, range(1, 3))

    wait_until(lambda: stage.of(0) == [0, 1, 2], "nobody waits for ten minutes")
    is_over.set()
    busy.join()


def test_a_runner_can_run_again_after_it_retired(redis_client: redis.Redis, start: Start) -> None:
    stage = Recorder()
    runner = Runner(stage)

    for number in range(3):
        fill(redis_client, 0, range(number, number + 1))
        start(runner, 0).result(20)

    assert stage.of(0) == [0, 1, 2]
    assert is_drained(redis_client, 0)


def test_a_wake_up_that_cannot_be_published_stops_nobody(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OperationalError("the broker is away")

    monkeypatch.setattr(app, "send_task", refuse)
    reconfigure(monkeypatch, batch_size=1, drain_slice_ms=1)
    fill(redis_client, 0, range(300))

    start(Runner(Recorder()), 0).result(20)

    assert redis_client.xlen(keys.log(keys.TO_REDIS, 0)) > 0
    redis_client.delete(keys.wake("transfer", 0))
    assert logs.sweep(redis_client, "transfer", 16) == [0], "the sweep repeats it"


@pytest.mark.parametrize("stage", names.STAGES)
def test_a_wake_up_is_a_task_with_a_shard_number_in_the_queue_of_the_shard(
    monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    sent: list[tuple[Any, ...]] = []
    monkeypatch.setattr(app, "send_task", lambda name, args, queue: sent.append((name, args, queue)))

    wakeup.wake(stage, 7)

    assert sent == [(f"msg.{stage}", [7], f"{stage}.07")]
    assert sent[0][2] in names.all_queues(16)
