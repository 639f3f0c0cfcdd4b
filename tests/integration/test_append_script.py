"""Appending to toRedis: pipeline.md section 1, design.md section 3 (dedup, wake-up, back-pressure)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imserver.conf import Config
from imserver.storage import keys, logs
from imserver.storage.clients import close_async_clients
from imserver.storage.lean_redis import get_async_lean_redis
from imserver.storage.logs import Append, Lease
from imserver.storage.scripts import get_script
from tests.factories import read_log, reconfigure, unique, wait_until

#: Two users and three ids each: repeats are frequent.
SENDERS = ["a", "b"]
CLIENT_IDS = ["", "1", "2", "3"]


@pytest.fixture(autouse=True)
async def closed_clients(config: Config) -> AsyncIterator[None]:
    yield
    await close_async_clients()


def item(send_id: str = "a", client_msg_id: str | None = None, text: bytes = b"m") -> Append:
    own = unique("c") if client_msg_id is None else client_msg_id
    return Append(
        key="a_b", send_id=send_id, client_msg_id=own, msg=text, operation_id="op", answer=unique("answer").encode()
    )


async def append(shard: int, items: list[Append]) -> list[Any]:
    result = (await logs.append(get_async_lean_redis(), {shard: items}))[shard]
    assert isinstance(result, list), result
    return result


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    calls=st.lists(
        st.lists(st.tuples(st.sampled_from(SENDERS), st.sampled_from(CLIENT_IDS)), min_size=1, max_size=5), max_size=6
    )
)
async def test_each_sender_and_client_id_is_appended_once_and_answered_alike(
    redis_client: redis.Redis, calls: list[list[tuple[str, str]]]
) -> None:
    example, expected = unique("x"), []
    first_answers: dict[tuple[str, str], bytes] = {}
    redis_client.delete(keys.log(keys.TO_REDIS, 3))
    for call in calls:
        items = [item(f"{sender}{example}", client_id, unique().encode()) for sender, client_id in call]

        _, *outcomes = await append(3, items)

        for sent, outcome in zip(items, outcomes, strict=True):
            at = (sent.send_id, sent.client_msg_id)
            if sent.client_msg_id and at in first_answers:
                assert outcome == first_answers[at]
            else:
                assert outcome == 1
                first_answers[at] = sent.answer
                expected.append(sent.msg)
    assert [fields[b"m"] for _, fields in read_log(redis_client, keys.TO_REDIS, 3)] == expected


async def test_an_entry_holds_key_message_and_operation_id(redis_client: redis.Redis) -> None:
    sent = Append("a_b", "a", "c1", b"\x00\xff", "op \u6f22", b"answer")

    await append(0, [sent])

    ((_, fields),) = read_log(redis_client, keys.TO_REDIS, 0)
    assert fields == {b"k": b"a_b", b"m": b"\x00\xff", b"o": "op \u6f22".encode()}


async def test_a_repeat_is_remembered_for_the_configured_time(redis_client: redis.Redis, config: Config) -> None:
    await append(0, [item("a", "c1")])

    seconds: Any = redis_client.ttl(keys.dedup(0, "a", "c1"))

    assert config.dedup_ttl_seconds - 5 < seconds <= config.dedup_ttl_seconds


async def test_the_same_client_id_of_two_senders_is_two_messages(redis_client: redis.Redis) -> None:
    result = await append(0, [item("a", "c1"), item("b", "c1")])

    assert result[1:] == [1, 1]
    assert len(read_log(redis_client, keys.TO_REDIS, 0)) == 2


async def test_a_full_log_refuses_and_remembers_nothing_of_what_it_refused(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconfigure(monkeypatch, log_max_entries=3)
    items = [item() for _ in range(5)]

    _, *outcomes = await append(0, items)

    assert outcomes == [1, 1, 1, 0, 0]
    assert len(read_log(redis_client, keys.TO_REDIS, 0)) == 3
    # Those that are in the log keep their answer; the others may be sent again when there is room.
    assert (await append(0, items))[1:] == [*(one.answer for one in items[:3]), 0, 0]
    redis_client.delete(keys.log(keys.TO_REDIS, 0))
    assert (await append(0, items[3:]))[1:] == [1, 1]


async def test_one_full_shard_does_not_refuse_for_the_others(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconfigure(monkeypatch, log_max_entries=1)
    await append(0, [item()])

    results = await logs.append(get_async_lean_redis(), {0: [item()], 1: [item()]})

    assert results == {0: [0, 0], 1: [1, 1]}


async def test_only_the_first_of_many_appends_wakes(redis_client: redis.Redis) -> None:
    wakes = [(await append(0, [item()]))[0] for _ in range(4)]

    assert wakes == [1, 0, 0, 0]
    assert redis_client.exists(keys.wake("transfer", 0))


async def test_a_wake_up_that_got_lost_is_due_again_after_its_time(redis_client: redis.Redis) -> None:
    await append(0, [item()])
    expiry: Any = redis_client.pttl(keys.wake("transfer", 0))
    redis_client.pexpire(keys.wake("transfer", 0), 1)
    wait_until(lambda: not redis_client.exists(keys.wake("transfer", 0)), "the wake-up is forgotten")

    assert 0 < expiry <= keys.WAKE_TTL_MS
    assert (await append(0, [item()]))[0] == 1


async def test_no_wake_up_is_due_while_somebody_drains(redis_client: redis.Redis) -> None:
    lease = Lease.acquire(redis_client, "transfer", 0)
    assert lease is not None

    wakes = [(await append(0, [item()]))[0] for _ in range(2)]

    assert wakes == [0, 0]
    assert not redis_client.exists(keys.wake("transfer", 0))


async def test_another_stages_or_shards_drainer_does_not_keep_the_wake_up_back(redis_client: redis.Redis) -> None:
    assert Lease.acquire(redis_client, "transfer", 1)
    assert Lease.acquire(redis_client, "persist", 0)

    assert (await append(0, [item()]))[0] == 1


async def test_nothing_wakes_when_nothing_was_appended(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(0, [item()])
    redis_client.delete(keys.wake("transfer", 0))
    reconfigure(monkeypatch, log_max_entries=1)

    assert (await append(0, [item()]))[0] == 0
    assert not redis_client.exists(keys.wake("transfer", 0))


async def test_who_repeats_wakes_for_what_still_waits(redis_client: redis.Redis) -> None:
    """The answer that got lost may have said so, and the key it left keeps the sweep from doing it."""
    repeated = item("a", "c1")
    await append(0, [repeated])

    assert (await append(0, [repeated]))[0] == 1

    lease = Lease.acquire(redis_client, "transfer", 0)
    assert lease is not None
    assert (await append(0, [repeated]))[0] == 0
    redis_client.delete(keys.log(keys.TO_REDIS, 0))
    lease.release(redis_client)
    assert (await append(0, [repeated]))[0] == 0


async def test_scripts_are_sent_again_to_a_server_that_forgot_them(redis_client: redis.Redis) -> None:
    redis_client.script_flush()

    one = await append(0, [item()])
    redis_client.script_flush()
    many = await logs.append(get_async_lean_redis(), {shard: [item()] for shard in range(4)})

    assert one[1:] == [1]
    assert [result[1:] for result in many.values() if isinstance(result, list)] == [[1]] * 4
    assert get_script("append").source
