"""MongoDB away: known conversations go on within the overdraft, others wait in the log, in order (design.md section 4)."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import pytest
import redis
from pymongo.database import Database
from pymongo.errors import ServerSelectionTimeoutError

from imserver.conf import Config
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import keys
from imserver.storage.clients import Document
from imserver.storage.logs import Lease
from imserver.storage.seq import Refill, SeqAllocator
from tasks import seq_supply
from tasks.transfer import Transfer
from tests.client import text_of
from tests.factories import add_entries, make_msg, read_handed, read_log, reconfigure

SHARD = 0


@pytest.fixture(autouse=True)
def one_shard(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    reconfigure(monkeypatch, shards=1, segment_single=5, seq_overdraft=10)
    monkeypatch.setattr(seq_supply, "MONGO_RETRY_SECONDS", 0.0)


class Outage:
    """MongoDB does not answer reservations while ``is_on``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_on = False
        reserve = SeqAllocator._reserve

        def maybe(allocator: SeqAllocator, refill: Refill, amount: int, **where: int) -> tuple[int, int]:
            if self.is_on:
                raise ServerSelectionTimeoutError("away")
            return reserve(allocator, refill, amount, **where)

        monkeypatch.setattr(SeqAllocator, "_reserve", maybe)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(monkeypatch)


def take(client: redis.Redis) -> Lease:
    lease = Lease.acquire(client, "transfer", SHARD)
    assert lease is not None
    return lease


def process(stage: Transfer, lease: Lease, client: redis.Redis) -> None:
    stage.process(lease, read_log(client, keys.TO_REDIS, SHARD))


def handed(client: redis.Redis) -> dict[str, list[tuple[int, str]]]:
    """(seq, text) by conversation."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for entry in read_handed(client, keys.TO_MONGO, SHARD):
        for conversation_id, seq, raw in entry.numbered():
            found[conversation_id].append((seq, text_of(MsgData.FromString(raw))))
    return found


def handed_seqs(client: redis.Redis) -> dict[str, list[int]]:
    return {conversation_id: [seq for seq, _ in msgs] for conversation_id, msgs in handed(client).items()}


def test_a_known_conversation_goes_on_within_the_overdraft_and_is_settled_afterwards(
    redis_client: redis.Redis, database: Database[Document], outage: Outage
) -> None:
    stage, lease = Transfer(), take(redis_client)
    add_entries(redis_client, [make_msg("a", "b")])
    process(stage, lease, redis_client)
    reserved = database["seq"].find_one({"conversation_id": "si_a_b"})
    assert reserved is not None

    outage.is_on = True
    add_entries(redis_client, [make_msg("a", "b") for _ in range(reserved["max_seq"] + 4)])
    process(stage, lease, redis_client)
    outage.is_on = False
    add_entries(redis_client, [make_msg("a", "b")])
    process(stage, lease, redis_client)

    total = reserved["max_seq"] + 6
    assert handed_seqs(redis_client)["si_a_b"] == list(range(1, total + 1))
    settled = database["seq"].find_one({"conversation_id": "si_a_b"})
    assert settled is not None
    assert settled["max_seq"] >= total
    assert "gaps" not in settled
    assert read_log(redis_client, keys.TO_REDIS, SHARD) == []


def test_an_unknown_conversation_waits_in_order_and_holds_up_nobody(
    redis_client: redis.Redis, database: Database[Document], outage: Outage
) -> None:
    stage, lease = Transfer(), take(redis_client)
    add_entries(redis_client, [make_msg("a", "b")])
    process(stage, lease, redis_client)
    outage.is_on = True

    add_entries(redis_client, [make_msg("new", "one", text="1"), make_msg("a", "b"), make_msg("new", "one", text="2")])
    process(stage, lease, redis_client)
    add_entries(redis_client, [make_msg("new", "one", text="3"), make_msg("a", "b")])
    process(stage, lease, redis_client)

    assert lease.waiting == {"new_one"}
    assert handed_seqs(redis_client) == {"si_a_b": [1, 2, 3]}
    assert len(read_log(redis_client, keys.TO_REDIS, SHARD)) == 3

    outage.is_on = False
    lease.waiting.clear()
    process(stage, lease, redis_client)

    assert handed_seqs(redis_client) == {"si_a_b": [1, 2, 3], "si_new_one": [1, 2, 3]}
    assert [text for _, text in handed(redis_client)["si_new_one"]] == ["1", "2", "3"]
    assert read_log(redis_client, keys.TO_REDIS, SHARD) == []


def test_a_conversation_beyond_its_overdraft_waits(
    redis_client: redis.Redis, database: Database[Document], outage: Outage
) -> None:
    stage, lease = Transfer(), take(redis_client)
    add_entries(redis_client, [make_msg("a", "b")])
    process(stage, lease, redis_client)
    outage.is_on = True

    add_entries(redis_client, [make_msg("a", "b") for _ in range(60)])
    process(stage, lease, redis_client)

    assert lease.waiting == {"a_b"}
    assert handed_seqs(redis_client) == {"si_a_b": [1]}


def test_a_counter_that_redis_lost_restarts_above_the_overdraft_and_the_gap_is_recorded(
    redis_client: redis.Redis, database: Database[Document], outage: Outage
) -> None:
    stage, lease = Transfer(), take(redis_client)
    add_entries(redis_client, [make_msg("a", "b")])
    process(stage, lease, redis_client)
    before = database["seq"].find_one({"conversation_id": "si_a_b"})
    assert before is not None
    redis_client.delete(keys.malloc_seq(SHARD, "si_a_b"))

    add_entries(redis_client, [make_msg("a", "b")])
    process(stage, lease, redis_client)

    first, second = handed_seqs(redis_client)["si_a_b"]
    after = database["seq"].find_one({"conversation_id": "si_a_b"})
    assert after is not None
    assert first == 1
    assert second > before["max_seq"] + 10
    assert after["gaps"] == [{"from": 2, "to": second - 1}]


def test_ranges_grow_while_refills_follow_each_other_quickly(
    redis_client: redis.Redis, database: Database[Document]
) -> None:
    allocator = SeqAllocator(redis_client, database)
    reserved = []

    for _ in range(100):
        allocator.allocate("si_a_b", 5)
        document = database["seq"].find_one({"conversation_id": "si_a_b"})
        assert document is not None
        reserved.append(document["max_seq"])

    steps = [after - before for before, after in pairwise(reserved) if after > before]
    assert steps == sorted(steps)
    assert len(steps) < 10
