"""Seq allocation on two levels: pipeline.md section 4."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.database import Database
from pymongo.errors import NetworkTimeout

from imserver.clock import now_ms
from imserver.conf import Config
from imserver.protocol.conversations import shard_of
from imserver.storage import keys, seq
from imserver.storage.clients import Document, close_async_clients, get_async_redis
from imserver.storage.seq import SeqAllocator, SeqUnavailable
from tests.factories import unique

CONVERSATION = "si_a_b"


@pytest.fixture
def allocator(redis_client: redis.Redis, database: Database[Document]) -> SeqAllocator:
    return SeqAllocator(redis_client, database)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seq, "RETRY_WAIT_SECONDS", 0.004)


def key_of(config: Config, conversation_id: str = CONVERSATION) -> str:
    return keys.malloc_seq(shard_of(conversation_id, config.shards), conversation_id)


def record(database: Database[Document], conversation_id: str = CONVERSATION) -> Document:
    found = database["seq"].find_one({"conversation_id": conversation_id})
    assert found is not None
    return found


def lock(client: redis.Redis, key: str, *, age_ms: int, **fields: int) -> None:
    mapping: dict[Any, Any] = {"LOCK": "somebody", "LOCKED": now_ms() - age_ms, **fields}
    client.hset(key, mapping=mapping)


def gaps_of(document: Document) -> set[int]:
    return {number for gap in document.get("gaps", []) for number in range(gap["from"], gap["to"] + 1)}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    prefix=st.sampled_from(["si_", "sg_", "n_"]),
    sizes=st.lists(st.integers(0, 5) | st.integers(40, 120) | st.just(600), max_size=8),
)
def test_seqs_start_with_1_and_follow_one_another(
    allocator: SeqAllocator, database: Database[Document], prefix: str, sizes: list[int]
) -> None:
    conversation_id, last = unique(prefix), 0
    for size in sizes:
        assert allocator.allocate(conversation_id, size) == last
        last += size

    assert allocator.allocate(conversation_id, 0) == last
    if last:
        assert gaps_of(record(database, conversation_id)) == set()
        assert record(database, conversation_id)["max_seq"] >= last
    else:
        assert database["seq"].find_one({"conversation_id": conversation_id}) is None


@pytest.mark.parametrize(("conversation_id", "segment"), [("si_a_b", 50), ("n_a_b", 50), ("sg_G", 100)])
def test_a_segment_plus_the_batch_is_reserved_at_a_time(
    allocator: SeqAllocator,
    database: Database[Document],
    redis_client: redis.Redis,
    config: Config,
    conversation_id: str,
    segment: int,
) -> None:
    allocator.allocate(conversation_id, 7)

    document = record(database, conversation_id)
    assert (document["max_seq"], document["min_seq"]) == (segment + 7, 0)
    fields: Any = redis_client.hgetall(key_of(config, conversation_id))
    assert (int(fields[b"CURR"]), int(fields[b"LAST"])) == (7, segment + 7)
    assert abs(now_ms() - int(fields[b"TIME"])) < 10_000
    assert b"LOCK" not in fields


def test_mongodb_is_asked_only_when_the_range_is_used_up(allocator: SeqAllocator, database: Database[Document]) -> None:
    ends = []
    for _ in range(60):
        allocator.allocate(CONVERSATION, 1)
        ends.append(record(database)["max_seq"])

    # 51 seqs from the first reservation, then one more reservation.
    assert ends[:51] == [51] * 51
    assert set(ends[51:]) == {max(ends)}
    assert max(ends) > 60


def test_one_refill_reserves_what_was_handed_out_beyond_the_range_too(
    allocator: SeqAllocator, redis_client: redis.Redis, database: Database[Document], config: Config
) -> None:
    allocator.allocate(CONVERSATION, 1)
    reserved = record(database)["max_seq"]
    used = reserved + 500
    redis_client.hset(key_of(config), "CURR", used)

    assert allocator.allocate(CONVERSATION, 1) == used

    assert record(database)["reserved_from"] == reserved
    assert record(database)["max_seq"] > used
    assert gaps_of(record(database)) == set()


def test_size_0_reads_and_changes_nothing(
    allocator: SeqAllocator, database: Database[Document], redis_client: redis.Redis, config: Config
) -> None:
    allocator.allocate(CONVERSATION, 51)
    before, stored = redis_client.hgetall(key_of(config)), record(database)

    assert [allocator.allocate(CONVERSATION, 0) for _ in range(3)] == [51, 51, 51]

    assert redis_client.hgetall(key_of(config)) == before
    assert record(database) == stored


def test_size_0_reads_also_while_somebody_refills(
    allocator: SeqAllocator, redis_client: redis.Redis, config: Config
) -> None:
    lock(redis_client, key_of(config), age_ms=0, CURR=7, LAST=7, TIME=1)

    assert allocator.allocate(CONVERSATION, 0) == 7


@pytest.mark.parametrize("size", [-1, -500])
def test_a_negative_size_is_an_error(allocator: SeqAllocator, database: Database[Document], size: int) -> None:
    with pytest.raises(ValueError, match="negative"):
        allocator.allocate(CONVERSATION, size)
    with pytest.raises(ValueError, match="negative"):
        allocator.ensure_range(CONVERSATION, size)

    assert database["seq"].count_documents({}) == 0


def test_making_sure_of_a_range_takes_nothing_from_it(
    allocator: SeqAllocator, database: Database[Document], config: Config
) -> None:
    for _ in range(3):
        allocator.ensure_range(CONVERSATION, 20)

    assert record(database)["max_seq"] == 70
    assert allocator.allocate(CONVERSATION, 20) == 0
    assert allocator.allocate(CONVERSATION, 0) == 20


@pytest.mark.usefixtures("quick_retries")
def test_a_lock_that_somebody_holds_ends_in_a_clear_error(
    allocator: SeqAllocator,
    redis_client: redis.Redis,
    database: Database[Document],
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seq, "LOCK_EXPIRY_MS", 60_000)
    lock(redis_client, key_of(config), age_ms=0)

    with pytest.raises(SeqUnavailable, match=CONVERSATION):
        allocator.allocate(CONVERSATION, 1)

    assert database["seq"].count_documents({}) == 0
    assert redis_client.hget(key_of(config), "LOCK") == b"somebody"


def test_a_lock_that_is_given_back_is_waited_for(
    allocator: SeqAllocator, redis_client: redis.Redis, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seq, "LOCK_EXPIRY_MS", 60_000)
    lock(redis_client, key_of(config), age_ms=0)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            redis_client.delete(key_of(config))

    monkeypatch.setattr(seq, "sleep", wait)

    assert allocator.allocate(CONVERSATION, 1) == 0
    assert len(waits) == 3
    assert all(seconds > 0 for seconds in waits)


def test_a_lock_whose_owner_died_expires(
    allocator: SeqAllocator, redis_client: redis.Redis, database: Database[Document], config: Config
) -> None:
    allocator.allocate(CONVERSATION, 51)
    lock(redis_client, key_of(config), age_ms=seq.LOCK_EXPIRY_MS + 1)

    assert allocator.allocate(CONVERSATION, 2) == 51

    assert not redis_client.hexists(key_of(config), "LOCK")
    assert gaps_of(record(database)) == set()


def test_a_range_that_another_node_took_in_between_is_skipped_and_noted(
    allocator: SeqAllocator, database: Database[Document]
) -> None:
    allocator.allocate(CONVERSATION, 11)
    database["seq"].update_one({"conversation_id": CONVERSATION}, {"$inc": {"max_seq": 500}})

    before = allocator.allocate(CONVERSATION, 60)

    assert before >= 561
    assert gaps_of(record(database)) >= set(range(12, before + 1))


def test_a_counter_that_redis_lost_goes_on_behind_everything_reserved(
    allocator: SeqAllocator, redis_client: redis.Redis, database: Database[Document], config: Config
) -> None:
    allocator.allocate(CONVERSATION, 10)
    reserved = record(database)["max_seq"]
    redis_client.delete(key_of(config))

    before = allocator.allocate(CONVERSATION, 1)

    assert before >= reserved
    assert gaps_of(record(database)) >= set(range(11, before + 1))


def use_up(allocator: SeqAllocator, seqs: int) -> None:
    """Take 0 or 51 seqs, which is all of the first range."""
    if seqs:
        assert [allocator.allocate(CONVERSATION, size) for size in (1, seqs - 1)] == [0, 1]


Apply = Callable[[], Any]


@pytest.fixture
def deaf(allocator: SeqAllocator, monkeypatch: pytest.MonkeyPatch) -> list[Apply]:
    """An allocator that hears no answer of MongoDB. Gives what it asked for, to be applied at any time."""
    asked: list[Apply] = []
    real = allocator._seqs

    class Deaf:
        def find_one_and_update(self, *args: Any, **options: Any) -> None:
            asked.append(partial(real.find_one_and_update, *args, **options))
            raise NetworkTimeout("no answer")

    monkeypatch.setattr(allocator, "_seqs", Deaf())
    return asked


@pytest.mark.parametrize("used", [0, 51])
@pytest.mark.parametrize("failures", [1, 3])
def test_a_reservation_whose_answer_got_lost_is_found_again_and_leaves_no_hole(
    redis_client: redis.Redis,
    database: Database[Document],
    allocator: SeqAllocator,
    deaf: list[Apply],
    used: int,
    failures: int,
) -> None:
    """MongoDB applied one of those that failed: whichever."""
    other = SeqAllocator(redis_client, database)
    use_up(other, used)
    for _ in range(failures):
        with pytest.raises(NetworkTimeout):
            allocator.allocate(CONVERSATION, 1)
    deaf[failures // 2]()

    assert other.allocate(CONVERSATION, 1) == used

    assert other.allocate(CONVERSATION, 200) == used + 1
    assert gaps_of(record(database)) == set()


@pytest.mark.parametrize("used", [0, 51])
def test_a_reservation_that_mongodb_applies_late_changes_nothing(
    redis_client: redis.Redis, database: Database[Document], allocator: SeqAllocator, deaf: list[Apply], used: int
) -> None:
    other, taken = SeqAllocator(redis_client, database), used
    use_up(other, used)
    with pytest.raises(NetworkTimeout):
        allocator.allocate(CONVERSATION, 1)
    (late,) = deaf

    # Before and after the ranges of others.
    for size in (5, 70, 200):
        assert other.allocate(CONVERSATION, size) == taken
        taken += size
        late()

    assert other.allocate(CONVERSATION, 300) == taken
    assert gaps_of(record(database)) == set()


def test_reservations_that_mongodb_has_lost_are_made_again_from_where_redis_is(
    allocator: SeqAllocator, database: Database[Document]
) -> None:
    use_up(allocator, 51)
    database["seq"].update_one({"conversation_id": CONVERSATION}, {"$set": {"max_seq": 20}})

    assert allocator.allocate(CONVERSATION, 2) == 51

    assert record(database)["max_seq"] > 53
    assert gaps_of(record(database)) == set()


def test_a_refill_that_lost_its_lock_does_not_overwrite_the_new_owners_range(
    allocator: SeqAllocator,
    redis_client: redis.Redis,
    database: Database[Document],
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = SeqAllocator(redis_client, database)
    reserve = allocator._reserve
    taken: list[int] = []

    def slow_reserve(refill: seq.Refill, size: int, **where: int) -> tuple[int, int]:
        answer = reserve(refill, size, **where)
        if not taken:
            redis_client.hset(key_of(config), "LOCKED", now_ms() - seq.LOCK_EXPIRY_MS - 1)
            taken.append(other.allocate(refill.conversation_id, 5))
        return answer

    monkeypatch.setattr(allocator, "_reserve", slow_reserve)

    mine = allocator.allocate(CONVERSATION, 5)

    assert mine == taken[0] + 5
    assert taken == [0]
    assert gaps_of(record(database)) == set()


def hand_out(
    client: redis.Redis, database: Database[Document], conversation_id: str, seed: int, calls: int
) -> list[tuple[int, int]]:
    """Ranges (first, last) of one worker with a liking for odd sizes."""
    allocator, random = SeqAllocator(client, database), Random(seed)
    ranges = []
    for _ in range(calls):
        size = random.choice((1, 1, 2, 3, 30, 70, 120))
        before = allocator.allocate(conversation_id, size)
        ranges.append((before + 1, before + size))
    return ranges


def no_seq_twice(ranges: list[tuple[int, int]]) -> set[int]:
    handed_out = [number for first, last in ranges for number in range(first, last + 1)]
    assert len(handed_out) == len(set(handed_out))
    return set(handed_out)


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("conversation_id", ["si_a_b", "sg_G"])
def test_four_workers_at_once_leave_no_hole_and_no_double(
    redis_client: redis.Redis,
    database: Database[Document],
    conversation_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seq, "RETRY_LIMIT", 1000)

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(hand_out, redis_client, database, conversation_id, seed, 60) for seed in range(4)]
        ranges = [found for worker in workers for found in worker.result(30)]

    handed_out = no_seq_twice(ranges)
    assert handed_out == set(range(1, len(handed_out) + 1))
    assert gaps_of(record(database, conversation_id)) == set()


@pytest.mark.usefixtures("quick_retries")
def test_lost_counters_and_expired_locks_cause_no_double_and_only_noted_holes(
    redis_client: redis.Redis, database: Database[Document], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seq, "RETRY_LIMIT", 1000)
    key, done = key_of(config), threading.Event()

    def break_things() -> int:
        # Bounded: where MongoDB takes its time, every refill would be spoilt.
        random, count = Random(1), 0
        while count < 200 and not done.wait(random.random() / 50):
            if random.random() < 0.5:
                redis_client.delete(key)
            elif redis_client.hexists(key, "LOCK"):
                redis_client.hset(key, "LOCKED", 1)
            count += 1
        return count

    with ThreadPoolExecutor(5) as pool:
        trouble = pool.submit(break_things)
        try:
            workers = [pool.submit(hand_out, redis_client, database, CONVERSATION, seed, 80) for seed in range(4)]
            ranges = [found for worker in workers for found in worker.result(30)]
        finally:
            done.set()

    assert trouble.result(5) > 0
    handed_out = no_seq_twice(ranges)
    holes = set(range(1, max(handed_out) + 1)) - handed_out
    assert holes <= gaps_of(record(database))
    assert record(database)["max_seq"] >= max(handed_out)


async def test_max_seqs_are_told_for_conversations_that_redis_knows(
    allocator: SeqAllocator, redis_client: redis.Redis
) -> None:
    allocator.allocate("si_a_b", 3)
    allocator.allocate("n_a_b", 1)

    found = await seq.get_max_seqs(get_async_redis(), ["si_a_b", "n_a_b", "si_a_c"])
    await close_async_clients()

    assert {name: value for name, (value, _) in found.items()} == {"si_a_b": 3, "n_a_b": 1}
    assert all(abs(now_ms() - time_ms) < 10_000 for _, time_ms in found.values())
