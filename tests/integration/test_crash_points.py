"""Killed at every step of transfer and persist: no hole, no double, no loss, order kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import defaultdict

import pytest
import redis
from pymongo.database import Database

from imserver.conf import BASE_DIR, Config
from imserver.constants import MSGS_PER_BLOCK
from imserver.protocol.conversations import shard_of, single_conversation_id
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import keys, logs
from imserver.storage.clients import Document
from imserver.storage.lean_redis import LeanRedis
from imserver.storage.logs import Lease
from tasks.drain import Stage
from tasks.persist import Persist
from tasks.transfer import Transfer
from tests.factories import add_entries, make_msg, read_handed, reconfigure
from tests.integration.crash_child import STEPS

SHARDS = 2
PAIRS = [("a", "b"), ("c", "d"), ("e", "f")]
#: More than a segment and more than a block for each pair.
MSGS_PER_PAIR = 130
ROUNDS_AFTER = 2
#: Each step, just before it and just after.
MOMENTS = [f"{name}{moment}" for name in STEPS for moment in ("", "/after")]
#: Those at which a refill is under way.
REFILLS = ["lock for a refill/after", "reserve", "reserve/after", "store the range"]

Msgs = dict[tuple[str, str], list[MsgData]]


@pytest.fixture
def few_shards(config: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    return reconfigure(monkeypatch, shards=SHARDS, lease_ms=60_000, segment_single=7)


def run_child(config: Config, step: str, nth: int) -> int:
    environ = {
        **os.environ,
        "KEY_PREFIX": config.key_prefix,
        "MONGO_DATABASE": config.mongo_database,
        "SHARDS": str(SHARDS),
        "LEASE_MS": str(config.lease_ms),
        "SEGMENT_SINGLE": str(config.segment_single),
    }
    command = [sys.executable, "-m", "tests.integration.crash_child", step, str(nth)]
    finished = subprocess.run(command, cwd=BASE_DIR, env=environ, capture_output=True, check=False, timeout=60)
    assert finished.returncode in (0, -signal.SIGKILL), finished.stderr.decode()
    return finished.returncode


def finish(client: redis.Redis, stage: Stage) -> None:
    """What the next drainer does after the dead one's lease ran out."""
    lean = LeanRedis(repeats=True)
    for shard in range(SHARDS):
        lease = Lease.acquire(client, stage.name, shard)
        assert lease is not None
        while heads := logs.read_after(lean, {lease.log: logs.HEAD}, 500, None):
            lease.renew(client)
            lease.waiting.clear()
            for _log, entries in heads:
                stage.process(lease, entries)
        lease.release(client)


def stored(database: Database[Document]) -> dict[str, list[tuple[int, str]]]:
    """(seq, client id) by conversation, in the order of the slots."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for document in database["msg"].find().sort([("conversation_id", 1), ("block", 1)]):
        for at, slot in enumerate(document["msgs"]):
            if slot["msg"] is not None:
                assert slot["msg"]["seq"] == document["block"] * MSGS_PER_BLOCK + at + 1
                found[document["conversation_id"]].append((slot["msg"]["seq"], slot["msg"]["client_msg_id"]))
    return found


def forget_leases(client: redis.Redis) -> None:
    """The dead process's leases run out."""
    client.delete(*(keys.lease(stage, shard) for stage in ("transfer", "persist", "push") for shard in range(SHARDS)))


def forget_refill_locks(client: redis.Redis) -> None:
    """So do its refill locks."""
    for pair in PAIRS:
        conversation_id = single_conversation_id(*pair)
        key = keys.malloc_seq(shard_of(conversation_id, SHARDS), conversation_id)
        if client.hexists(key, "LOCK"):
            client.hset(key, "LOCKED", 0)


def say(client: redis.Redis, msgs: Msgs) -> None:
    for _ in range(MSGS_PER_PAIR):
        new = {pair: make_msg(*pair) for pair in PAIRS}
        add_entries(client, new.values())
        for pair, msg in new.items():
            msgs[pair].append(msg)


def check(client: redis.Redis, database: Database[Document], msgs: Msgs) -> None:
    found = stored(database)
    pushed: dict[str, list[int]] = defaultdict(list)
    for shard in range(SHARDS):
        for entry in read_handed(client, keys.TO_PUSH, shard):
            pushed[entry.conversation_id] += [seq for _, seq, _ in entry.numbered()]
    for pair in PAIRS:
        conversation_id = single_conversation_id(*pair)
        seqs = [seq for seq, _ in found[conversation_id]]
        assert [client_id for _, client_id in found[conversation_id]] == [msg.clientMsgID for msg in msgs[pair]]
        assert pushed[conversation_id] == seqs
        assert seqs == list(range(1, len(msgs[pair]) + 1))
        assert database["conversation"].count_documents({"conversation_id": conversation_id}) == 2


@pytest.mark.parametrize(
    ("step", "is_locked"), [*((step, False) for step in MOMENTS), *((step, True) for step in REFILLS)]
)
def test_killed_at_any_step_nothing_is_lost_doubled_or_out_of_order(
    step: str, is_locked: bool, few_shards: Config, redis_client: redis.Redis, database: Database[Document]
) -> None:
    """``is_locked``: the next drainer comes while the dead one's refill lock still holds."""
    msgs: Msgs = {pair: [] for pair in PAIRS}
    say(redis_client, msgs)

    assert run_child(few_shards, step, nth=2) == -signal.SIGKILL
    forget_leases(redis_client)
    if not is_locked:
        forget_refill_locks(redis_client)
    finish(redis_client, Transfer())
    finish(redis_client, Persist())
    check(redis_client, database, msgs)

    # Past every range that the dead process reserved, and what was used beyond it.
    forget_refill_locks(redis_client)
    for _ in range(ROUNDS_AFTER):
        say(redis_client, msgs)
        finish(redis_client, Transfer())
    finish(redis_client, Persist())
    check(redis_client, database, msgs)
    assert not any("gaps" in document for document in database["seq"].find())
