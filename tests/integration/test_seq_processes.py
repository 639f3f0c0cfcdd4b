"""Eight processes allocate seqs while locks expire and counters get lost: never a repeat, holes only where one is recorded."""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from pymongo.database import Database

from imserver.clock import now_ms
from imserver.conf import Config
from imserver.protocol.conversations import shard_of
from imserver.storage import keys, seq
from imserver.storage.clients import Document
from tests.factories import unique
from tests.integration import seq_worker

PROCESSES = 8
CONVERSATIONS = 3

conversations = st.integers(0, CONVERSATIONS - 1)
sizes = st.lists(st.integers(1, 120), min_size=1, max_size=6)


@pytest.fixture
def pool(config: Config) -> Iterator[ProcessPoolExecutor]:
    environ = {**os.environ, "KEY_PREFIX": config.key_prefix, "MONGO_DATABASE": config.mongo_database}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context, initializer=seq_worker.start, initargs=(environ,)) as running:
        yield running


@dataclass
class Surroundings:
    shards: int
    pool: ProcessPoolExecutor
    client: redis.Redis
    database: Database[Document]


class Allocation(RuleBasedStateMachine):
    around: Surroundings

    def __init__(self) -> None:
        super().__init__()
        self.ids = [unique(prefix) for prefix in ("si_a_", "sg_G_", "n_b_")]
        self.taken: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def key(self, conversation_id: str) -> str:
        return keys.malloc_seq(shard_of(conversation_id, self.around.shards), conversation_id)

    @rule(orders=st.lists(st.tuples(conversations, sizes), min_size=1, max_size=PROCESSES))
    def allocate_side_by_side(self, orders: list[tuple[int, list[int]]]) -> None:
        jobs = [
            (self.ids[at], self.around.pool.submit(seq_worker.allocate, self.ids[at], sizes)) for at, sizes in orders
        ]
        for conversation_id, job in jobs:
            self.taken[conversation_id] += job.result(timeout=60)

    @rule(at=conversations)
    def lose_the_counter(self, at: int) -> None:
        self.around.client.delete(self.key(self.ids[at]))

    @rule(at=conversations, has_reserved=st.booleans())
    def somebody_dies_with_the_lock(self, at: int, has_reserved: bool) -> None:
        """Before or after it reserved a range in MongoDB; its lock has expired since."""
        client, key, owner = self.around.client, self.key(self.ids[at]), unique("dead")
        if client.hexists(key, "LOCK"):
            return
        locked = {"LOCK": owner, "LOCKED": now_ms() - seq.LOCK_EXPIRY_MS - 1, "TRY": owner}
        client.hset(key, mapping=locked)  # type: ignore[arg-type]
        if has_reserved:
            refill = seq.Refill(self.ids[at], key, owner, owner, 5)
            last = int(client.hget(key, "LAST") or 0)
            seq.SeqAllocator(client, self.around.database)._reserve(refill, 55, after=last)

    @invariant()
    def no_seq_was_handed_out_twice(self) -> None:
        for ranges in self.taken.values():
            ordered = sorted(ranges)
            for (_, last), (first, _) in pairwise(ordered):
                assert last < first

    @invariant()
    def every_hole_is_recorded(self) -> None:
        for conversation_id, ranges in self.taken.items():
            used = {number for first, last in ranges for number in range(first, last + 1)}
            document = self.around.database["seq"].find_one({"conversation_id": conversation_id}) or {}
            gaps = {n for gap in document.get("gaps", ()) for n in range(gap["from"], gap["to"] + 1)}
            assert set(range(1, max(used, default=0) + 1)) - used <= gaps


def test_eight_processes_never_repeat_a_seq_and_leave_only_recorded_holes(
    config: Config, pool: ProcessPoolExecutor, redis_client: redis.Redis, database: Database[Document]
) -> None:
    around = Surroundings(config.shards, pool, redis_client, database)

    run_state_machine_as_test(
        type("BoundAllocation", (Allocation,), {"around": around}),
        settings=settings(
            max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
