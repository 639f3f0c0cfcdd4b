"""Leases and trimming: one drainer a stage and shard (design.md section 3)."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from imserver.conf import Config
from imserver.storage import keys, logs
from imserver.storage.logs import DeadLetter, Lease, LeaseLost, next_entry_id
from tests.factories import read_log, reconfigure, snapshot, wait_until


def take(client: redis.Redis, stage: str = "persist", shard: int = 0) -> Lease:
    lease = Lease.acquire(client, stage, shard)
    assert lease is not None
    return lease


def fill(client: redis.Redis, lease: Lease, count: int) -> list[bytes]:
    return [client.xadd(lease.log, {"c": "si_a_b", "s": at, "b": ""}) for at in range(count)]  # type: ignore[misc]


def expire(client: redis.Redis, lease: Lease) -> None:
    client.pexpire(lease.key, 1)
    wait_until(lambda: not client.exists(lease.key), "the lease expires")


def test_only_one_gets_the_lease_of_a_shard(redis_client: redis.Redis) -> None:
    take(redis_client)

    assert Lease.acquire(redis_client, "persist", 0) is None
    assert Lease.acquire(redis_client, "persist", 1) is not None
    assert Lease.acquire(redis_client, "push", 0) is not None


def test_an_expired_lease_may_be_taken_and_its_old_owner_can_do_nothing(redis_client: redis.Redis) -> None:
    old = take(redis_client)
    entries = fill(redis_client, old, 2)
    expire(redis_client, old)
    new = take(redis_client)
    before = snapshot(redis_client)

    with pytest.raises(LeaseLost):
        old.renew(redis_client)
    with pytest.raises(LeaseLost):
        old.trim(redis_client, entries[0], [DeadLetter("bad", {b"c": b"x"})])
    assert old.release(redis_client) == 0
    assert old.release(redis_client, force=True) == 0

    assert snapshot(redis_client) == before
    new.trim(redis_client, entries[0])
    assert [entry_id for entry_id, _ in read_log(redis_client, keys.TO_MONGO, 0)] == entries[1:]


def test_a_lease_that_expired_is_lost_even_when_nobody_took_it(redis_client: redis.Redis) -> None:
    lease = take(redis_client)
    expire(redis_client, lease)

    with pytest.raises(LeaseLost):
        lease.renew(redis_client)

    assert not redis_client.exists(lease.key)


def test_a_lease_expires_by_itself_and_renewing_puts_that_off(redis_client: redis.Redis, config: Config) -> None:
    lease = take(redis_client)
    redis_client.pexpire(lease.key, 1500)

    lease.renew(redis_client)

    left: Any = redis_client.pttl(lease.key)
    assert 1500 < left <= config.lease_ms


def test_a_lease_is_kept_while_entries_wait(redis_client: redis.Redis) -> None:
    lease = take(redis_client)
    fill(redis_client, lease, 1)

    assert lease.release(redis_client) == 0

    lease.renew(redis_client)


def test_a_lease_is_given_back_when_its_log_is_empty(redis_client: redis.Redis) -> None:
    lease = take(redis_client)

    assert lease.release(redis_client) == 1
    assert lease.release(redis_client) == 0

    assert Lease.acquire(redis_client, "persist", 0) is not None


def test_a_lease_given_back_with_entries_left_asks_for_a_wake_up(redis_client: redis.Redis) -> None:
    lease = take(redis_client)
    fill(redis_client, lease, 1)

    assert lease.release(redis_client, force=True) == 2

    assert not redis_client.exists(lease.key)
    assert redis_client.exists(keys.wake("persist", 0))


def test_a_lease_given_back_by_force_over_an_empty_log_asks_for_nothing(redis_client: redis.Redis) -> None:
    lease = take(redis_client)

    assert lease.release(redis_client, force=True) == 1

    assert not redis_client.exists(lease.key)
    assert not redis_client.exists(keys.wake("persist", 0))


def test_trimming_removes_exactly_what_was_handled(redis_client: redis.Redis) -> None:
    lease = take(redis_client)
    entries = fill(redis_client, lease, 250)

    lease.trim(redis_client, entries[119])

    assert [entry_id for entry_id, _ in read_log(redis_client, keys.TO_MONGO, 0)] == entries[120:]


def test_trimming_keeps_dead_letters_with_reason_and_origin(redis_client: redis.Redis) -> None:
    lease = take(redis_client, shard=4)
    entries = fill(redis_client, lease, 2)

    lease.trim(redis_client, entries[0], [DeadLetter("cannot be read", {b"c": b"si_a_b", b"s": b"7", b"b": b"\xff"})])

    ((_, dead),) = read_log(redis_client, keys.DEAD, 4)
    assert dead == {b"reason": b"cannot be read", b"origin": b"toMongo", b"c": b"si_a_b", b"s": b"7", b"b": b"\xff"}


def test_the_next_entry_id_is_the_smallest_after_it() -> None:
    assert next_entry_id(b"1760000000000-0") == "1760000000000-1"
    assert next_entry_id(b"1760000000000-9") == "1760000000000-10"


def test_a_sweep_wakes_shards_that_wait_and_that_nobody_drains(redis_client: redis.Redis) -> None:
    waiting, drained, empty = take(redis_client, shard=1), take(redis_client, shard=2), take(redis_client, shard=3)
    for lease in (waiting, drained):
        fill(redis_client, lease, 1)
    for lease in (waiting, empty):
        redis_client.delete(lease.key)

    assert logs.sweep(redis_client, "persist", 16) == [1]
    assert logs.sweep(redis_client, "persist", 16) == [], "its wake-up is on its way"
    redis_client.delete(keys.wake("persist", 1))
    assert logs.sweep(redis_client, "persist", 16) == [1]


def test_lengths_tell_every_log(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    reconfigure(monkeypatch, shards=2)
    lease = take(redis_client, shard=1)
    entries = fill(redis_client, lease, 3)
    lease.trim(redis_client, entries[0], [DeadLetter("bad", {})])

    found = logs.lengths(redis_client)

    assert {name: length for name, length in found.items() if length} == {("toMongo", 1): 2, ("dead", 1): 1}
    assert set(found) >= {(name, shard) for name in ("toRedis", "toMongo", "toPush", "dead") for shard in (0, 1)}
