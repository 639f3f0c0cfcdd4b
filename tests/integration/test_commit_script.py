"""The commit of a transfer batch: all of it or nothing (design.md section 4, pipeline.md sections 3 to 5)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.database import Database

from imserver.conf import Config
from imserver.constants import Option
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import keys
from imserver.storage.clients import Document, get_mongo
from imserver.storage.logs import Entry, Lease, LeaseLost
from imserver.storage.scripts import get_script
from imserver.storage.seq import SeqAllocator
from tasks.commit_call import commit_call
from tasks.sorting import Batch, sort_batch
from tasks.transfer import Transfer
from tests.factories import (
    add_entries,
    make_msg,
    make_notification,
    make_receipt,
    read_handed,
    read_log,
    reconfigure,
    snapshot,
    unique,
)

SHARD = 0


@pytest.fixture(autouse=True)
def one_shard(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every conversation in one shard, so that one commit sees several."""
    reconfigure(monkeypatch, shards=1, lease_ms=60_000)


@dataclass
class Bench:
    """A shard whose batches are committed by hand."""

    client: redis.Redis
    stage: Transfer
    lease: Lease

    def add(self, *msgs: MsgData) -> list[Entry]:
        add_entries(self.client, msgs)
        return read_log(self.client, keys.TO_REDIS, SHARD)

    def call(self, entries: list[Entry]) -> tuple[Batch, list[Any], list[Any]]:
        batch = sort_batch(entries, "trigger")
        script_keys, args = commit_call(self.lease, batch, entries)
        return batch, script_keys, args

    def commit(self, entries: list[Entry]) -> list[Any]:
        """The bare script, without any refill: its whole refusal, or [1, wake persist, wake push]."""
        _, script_keys, args = self.call(entries)
        answer = list(get_script("commit").run(self.client, script_keys, args))
        return answer[:3] if answer[0] == 1 else answer

    def process(self, entries: list[Entry]) -> None:
        self.stage.process(self.lease, entries)

    def cached(self, conversation_id: str) -> dict[int, bytes]:
        prefix = keys.msg_cache_prefix(SHARD, conversation_id)
        found: dict[int, bytes] = {}
        for block in range(20):
            values: Any = self.client.hgetall(f"{prefix}{block}")
            for seq, raw in values.items():
                assert (int(seq) - 1) // 100 == block
                found[int(seq)] = raw
        return found

    def read_seq(self, conversation_id: str, user_id: str) -> int:
        value: Any = self.client.get(keys.read_seq(SHARD, conversation_id, user_id))
        return int(value or 0)


@pytest.fixture
def bench(one_shard: None, redis_client: redis.Redis, database: Database[Document]) -> Bench:
    lease = Lease.acquire(redis_client, "transfer", SHARD)
    assert lease is not None
    return Bench(redis_client, Transfer(), lease)


@dataclass(frozen=True)
class Spoken:
    """What a generated message is to be."""

    pair: int
    swapped: bool
    is_notification: bool
    is_stored: bool

    def build(self, people: list[tuple[str, str]]) -> MsgData:
        send_id, recv_id = people[self.pair][::-1] if self.swapped else people[self.pair]
        if self.is_notification:
            return make_notification(send_id, recv_id, stored=self.is_stored)
        return make_msg(send_id, recv_id, options={} if self.is_stored else {Option.HISTORY: False})

    def conversation_id(self, people: list[tuple[str, str]]) -> str:
        return ("n_" if self.is_notification else "si_") + "_".join(sorted(people[self.pair]))


spoken = st.builds(Spoken, st.integers(0, 2), st.booleans(), st.booleans(), st.booleans())
many = st.builds(lambda one, count: [one] * count, spoken, st.integers(90, 130))
batches = st.lists(st.lists(spoken, min_size=1, max_size=12) | many, min_size=1, max_size=5)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(told=batches, is_replayed=st.booleans())
def test_batches_are_numbered_cached_and_handed_on_without_hole_or_double(
    bench: Bench, told: list[list[Spoken]], is_replayed: bool
) -> None:
    client = bench.client
    client.delete(*(keys.log(name, SHARD) for name in (keys.TO_REDIS, keys.TO_MONGO, keys.TO_PUSH)))
    people = [(unique("p"), unique("q")) for _ in range(3)]
    stored: dict[str, list[MsgData]] = defaultdict(list)
    transient: dict[str, list[MsgData]] = defaultdict(list)
    for words in told:
        msgs = [word.build(people) for word in words]
        for word, msg in zip(words, msgs, strict=True):
            (stored if word.is_stored else transient)[word.conversation_id(people)].append(msg)
        entries = bench.add(*msgs)

        bench.process(entries)
        if is_replayed:
            # As when the answer of the commit got lost, or a drainer that was asleep comes back.
            bench.process(entries)

    assert read_log(client, keys.TO_REDIS, SHARD) == []
    numbered = [item for handed in read_handed(client, keys.TO_MONGO, SHARD) for item in handed.numbered()]
    pushed = [item for handed in read_handed(client, keys.TO_PUSH, SHARD) for item in handed.numbered()]
    for conversation_id, msgs in stored.items():
        own = [(seq, MsgData.FromString(raw)) for at, seq, raw in numbered if at == conversation_id]
        assert own == list(enumerate(msgs, start=1))
        cached = {seq: MsgData.FromString(raw) for seq, raw in bench.cached(conversation_id).items()}
        assert cached == dict(own)
        for user_id in {msg.sendID for msg in msgs}:
            last = max(seq for seq, msg in own if msg.sendID == user_id)
            assert bench.read_seq(conversation_id, user_id) == last
    assert len(numbered) == sum(map(len, stored.values()))
    assert [item for item in pushed if item[1]] == numbered
    for conversation_id, msgs in transient.items():
        own_transient = [MsgData.FromString(raw) for at, seq, raw in pushed if at == conversation_id and not seq]
        assert own_transient == msgs
    assert len(pushed) == len(numbered) + sum(map(len, transient.values()))


def test_a_range_that_is_missing_changes_nothing_and_the_lists_are_named(bench: Bench) -> None:
    SeqAllocator(bench.client, get_mongo()).ensure_range("si_a_b", 5)
    entries = bench.add(
        make_msg("a", "b"),
        make_msg("a", "c"),
        make_msg("a", "d", options={Option.HISTORY: False}),
        make_notification("a", "b", stored=True),
    )
    batch, *_ = bench.call(entries)
    before = snapshot(bench.client)

    status, *numbers = bench.commit(entries)

    assert status == 0
    assert {batch.lists[number - 1].conversation_id for number in numbers} == {"si_a_c", "n_a_b"}
    assert snapshot(bench.client) == before


def test_a_range_that_is_too_short_is_refilled_and_the_numbers_go_on(bench: Bench) -> None:
    bench.process(bench.add(*(make_msg("a", "b") for _ in range(3))))
    entries = bench.add(*(make_msg("a", "b") for _ in range(100)))

    assert bench.commit(entries) == [0, 1]
    bench.process(entries)

    assert sorted(bench.cached("si_a_b")) == list(range(1, 104))


def test_a_refill_whose_owner_died_holds_nobody_up(bench: Bench) -> None:
    bench.process(bench.add(make_msg("a", "b")))
    bench.client.hset(keys.malloc_seq(SHARD, "si_a_b"), mapping={"LOCK": "somebody", "LOCKED": 1})

    bench.process(bench.add(*(make_msg("a", "b") for _ in range(60))))

    assert sorted(bench.cached("si_a_b")) == list(range(1, 62))


def test_two_lists_of_one_conversation_follow_one_another(bench: Bench) -> None:
    SeqAllocator(bench.client, get_mongo()).ensure_range("si_a_b", 10)
    entries = bench.add(*(make_msg("a", "b") for _ in range(5)))
    batch = sort_batch(entries[:2], "trigger")
    batch.lists += sort_batch(entries[2:], "trigger").lists
    script_keys, args = commit_call(bench.lease, batch, entries)

    status, *_ = get_script("commit").run(bench.client, script_keys, args)

    assert status == 1
    assert [handed.first_seq for handed in read_handed(bench.client, keys.TO_MONGO, SHARD)] == [1, 3]
    assert sorted(bench.cached("si_a_b")) == [1, 2, 3, 4, 5]


def test_a_lost_lease_changes_nothing(bench: Bench) -> None:
    bench.process(bench.add(make_msg("a", "b")))
    entries = bench.add(make_msg("a", "b"), make_msg("b", "a"))
    bench.client.set(bench.lease.key, "somebody else")
    before = snapshot(bench.client)

    assert bench.commit(entries) == [-1]
    with pytest.raises(LeaseLost):
        bench.process(entries)

    assert snapshot(bench.client) == before


def test_a_batch_that_was_applied_before_changes_nothing(bench: Bench) -> None:
    entries = bench.add(make_msg("a", "b"), make_msg("a", "b", options={Option.HISTORY: False}))
    bench.process(entries)
    bench.add(make_msg("a", "b"))
    before = snapshot(bench.client)

    assert bench.commit(entries) == [-2]

    assert snapshot(bench.client) == before


def test_a_batch_without_stored_messages_that_was_applied_before_changes_nothing(bench: Bench) -> None:
    entries = bench.add(make_msg("a", "b", options={Option.HISTORY: False}), make_receipt("b", "a", {}, stored=False))
    bench.process(entries)
    before = snapshot(bench.client)

    assert bench.commit(entries) == [-2]

    assert snapshot(bench.client) == before


def test_a_batch_that_was_applied_before_asks_for_no_refill(bench: Bench) -> None:
    SeqAllocator(bench.client, get_mongo()).ensure_range("si_a_b", 1)
    last: Any = bench.client.hget(keys.malloc_seq(SHARD, "si_a_b"), "LAST")
    entries = bench.add(*(make_msg("a", "b") for _ in range(int(last))))
    assert bench.commit(entries)[0] == 1

    assert bench.commit(entries) == [-2]


def test_exactly_the_batch_is_trimmed(bench: Bench) -> None:
    entries = bench.add(*(make_msg("a", "b") for _ in range(7)))

    bench.process(entries[:4])

    assert read_log(bench.client, keys.TO_REDIS, SHARD) == entries[4:]
    bench.process(entries[4:])
    assert sorted(bench.cached("si_a_b")) == list(range(1, 8))


def test_transient_messages_get_no_seq_and_are_kept_nowhere(bench: Bench) -> None:
    off = {Option.HISTORY: False}
    bench.process(bench.add(make_msg("a", "b", options=off), make_notification("a", "b", stored=False)))

    assert read_log(bench.client, keys.TO_MONGO, SHARD) == []
    pushed = read_handed(bench.client, keys.TO_PUSH, SHARD)
    assert [(handed.conversation_id, handed.first_seq) for handed in pushed] == [("si_a_b", 0), ("n_a_b", 0)]
    assert bench.cached("si_a_b") == {}
    assert not bench.client.exists(keys.malloc_seq(SHARD, "si_a_b"), keys.malloc_seq(SHARD, "n_a_b"))
    assert bench.read_seq("si_a_b", "a") == 0


def test_operation_ids_travel_with_their_messages(bench: Bench) -> None:
    bench.process(bench.add(make_msg("a", "b"), make_msg("a", "c"), make_msg("b", "a")))

    handed = read_handed(bench.client, keys.TO_MONGO, SHARD)
    assert {item.conversation_id: item.operation_ids for item in handed} == {
        "si_a_b": ("op0", "op2"),
        "si_a_c": ("op1",),
    }
    assert {item.conversation_id: item.operation_ids for item in read_handed(bench.client, keys.TO_PUSH, SHARD)} == {
        item.conversation_id: item.operation_ids for item in handed
    }


def test_a_read_receipt_moves_the_read_seq_forward_and_never_back(bench: Bench) -> None:
    bench.process(bench.add(*(make_msg("b", "a") for _ in range(9))))

    seen = []
    for seq in (4, 2, 7, 7, 1):
        tips = {"markAsReadUserID": "a", "conversationID": "si_a_b", "hasReadSeq": seq}
        bench.process(bench.add(make_receipt("a", "b", tips)))
        seen.append(bench.read_seq("si_a_b", "a"))

    assert seen == [4, 4, 7, 7, 7]
    dirty: Any = bench.client.hgetall(keys.read_dirty(SHARD))
    assert dirty[b"si_a_b\na"] == b"7"


def test_sending_moves_only_the_senders_read_seq_and_never_back(bench: Bench) -> None:
    bench.client.set(keys.read_seq(SHARD, "si_a_b", "a"), 5)
    bench.process(bench.add(make_msg("a", "b"), make_msg("b", "a")))

    assert bench.read_seq("si_a_b", "a") == 5
    assert bench.read_seq("si_a_b", "b") == 2
    bench.process(bench.add(*(make_msg("a", "b") for _ in range(4))))
    assert bench.read_seq("si_a_b", "a") == 6
    assert bench.read_seq("si_a_b", "b") == 2


def test_the_read_seqs_of_many_senders_are_all_noted_for_mongodb(bench: Bench) -> None:
    people = [unique("m") for _ in range(501)]

    bench.process(bench.add(*(make_msg(person, "zz") for person in people)))

    dirty: Any = bench.client.hgetall(keys.read_dirty(SHARD))
    assert dirty == {f"si_{person}_zz\n{person}".encode(): b"1" for person in people}


def test_what_cannot_be_parsed_becomes_a_dead_letter_with_reason_and_origin(bench: Bench) -> None:
    junk: Any = {"k": "a_b", "m": b"\xff\xff", "o": "op9"}
    bench.client.xadd(keys.log(keys.TO_REDIS, SHARD), junk)

    bench.process(bench.add(make_msg("a", "b")))

    ((_, dead),) = read_log(bench.client, keys.DEAD, SHARD)
    assert dead.pop(b"reason")
    assert dead == {b"origin": b"toRedis", b"k": b"a_b", b"m": b"\xff\xff", b"o": b"op9"}
    assert sorted(bench.cached("si_a_b")) == [1]
    assert read_log(bench.client, keys.TO_REDIS, SHARD) == []


def test_a_batch_of_nothing_but_junk_is_removed_and_wakes_nobody(bench: Bench) -> None:
    bench.client.xadd(keys.log(keys.TO_REDIS, SHARD), {"k": "a_b", "m": b"\xff", "o": "op"})
    entries = read_log(bench.client, keys.TO_REDIS, SHARD)

    assert bench.commit(entries)[:3] == [1, 0, 0]

    assert read_log(bench.client, keys.TO_REDIS, SHARD) == []
    assert len(read_log(bench.client, keys.DEAD, SHARD)) == 1


def test_the_next_stages_are_woken_once_and_only_when_there_is_something_for_them(bench: Bench) -> None:
    transient = make_msg("a", "b", options={Option.HISTORY: False})
    assert bench.commit(bench.add(transient)) == [1, 0, 1]
    assert bench.commit(bench.add(transient)) == [1, 0, 0]

    SeqAllocator(bench.client, get_mongo()).ensure_range("si_a_b", 10)
    assert bench.commit(bench.add(make_msg("a", "b"))) == [1, 1, 0]
    assert bench.commit(bench.add(make_msg("a", "b"))) == [1, 0, 0]


def test_a_stage_that_is_drained_right_now_is_not_woken(bench: Bench) -> None:
    assert Lease.acquire(bench.client, "persist", SHARD)
    assert Lease.acquire(bench.client, "push", SHARD)
    SeqAllocator(bench.client, get_mongo()).ensure_range("si_a_b", 10)

    assert bench.commit(bench.add(make_msg("a", "b"))) == [1, 0, 0]


def test_the_cache_is_kept_for_the_configured_time(bench: Bench, config: Config) -> None:
    bench.process(bench.add(*(make_msg("a", "b") for _ in range(101))))

    for block in (0, 1):
        seconds: Any = bench.client.ttl(f"{keys.msg_cache_prefix(SHARD, 'si_a_b')}{block}")
        assert config.cache_ttl_seconds - 30 < seconds <= config.cache_ttl_seconds


def ttl(bench: Bench, key: str) -> int:
    """In seconds; negative where there is none."""
    seconds: Any = bench.client.ttl(key)
    return int(seconds)


def test_expiries_are_set_anew_when_a_part_of_them_is_over(bench: Bench) -> None:
    malloc, block = keys.malloc_seq(SHARD, "si_a_b"), f"{keys.msg_cache_prefix(SHARD, 'si_a_b')}0"
    bench.process(bench.add(make_msg("a", "b")))
    fresh = [ttl(bench, key) for key in (malloc, block)]
    for key in (malloc, block):
        bench.client.expire(key, 1000)

    bench.process(bench.add(make_msg("a", "b")))
    assert all(0 < ttl(bench, key) <= 1000 for key in (malloc, block))

    kept_at: Any = bench.client.hget(malloc, "KEPT")
    bench.client.hset(malloc, "KEPT", int(kept_at) - 1_800_000)
    bench.process(bench.add(make_msg("a", "b")))
    for key, seconds in zip((malloc, block), fresh, strict=True):
        assert seconds - 30 < ttl(bench, key) <= seconds


def test_what_is_cached_from_the_middle_of_a_block_on_expires_too(bench: Bench) -> None:
    allocator = SeqAllocator(bench.client, get_mongo())
    allocator.ensure_range("si_a_b", 300)
    bench.process(bench.add(make_msg("a", "b")))
    allocator.allocate("si_a_b", 130)
    bench.process(bench.add(make_msg("a", "b")))

    assert sorted(bench.cached("si_a_b")) == [1, 132]
    assert ttl(bench, f"{keys.msg_cache_prefix(SHARD, 'si_a_b')}1") > 0

    # Another range of MongoDB's: what was reserved there meanwhile is skipped.
    get_mongo()["seq"].update_one({"conversation_id": "si_a_b"}, {"$inc": {"max_seq": 1000}})
    last: Any = bench.client.hget(keys.malloc_seq(SHARD, "si_a_b"), "LAST")
    bench.client.hset(keys.malloc_seq(SHARD, "si_a_b"), "CURR", last)
    bench.process(bench.add(make_msg("a", "b")))

    blocks = {(seq - 1) // 100 for seq in bench.cached("si_a_b")}
    assert len(blocks) == 3
    assert all(ttl(bench, f"{keys.msg_cache_prefix(SHARD, 'si_a_b')}{block}") > 0 for block in blocks)


def test_a_batch_of_the_greatest_size_in_one_conversation_works(bench: Bench) -> None:
    bench.process(bench.add(*(make_msg("a", "b") for _ in range(500))))

    assert sorted(bench.cached("si_a_b")) == list(range(1, 501))


def test_a_batch_of_many_conversations_works(bench: Bench) -> None:
    people = [unique("m") for _ in range(150)]

    bench.process(bench.add(*(make_msg("a", person) for person in people for _ in range(2))))

    assert all(sorted(bench.cached(f"si_a_{person}")) == [1, 2] for person in people)


def test_a_new_conversation_is_known_to_both_sides_at_once(bench: Bench) -> None:
    bench.process(bench.add(make_msg("a", "b"), make_notification("a", "c", stored=True)))

    members: dict[str, Any] = {user: bench.client.smembers(keys.conversations(user)) for user in "abc"}
    assert members == {"a": {b"si_a_b"}, "b": {b"si_a_b"}, "c": set()}
