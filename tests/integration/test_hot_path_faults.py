"""What goes wrong in one place of the hot path stays there: one shard, one hook, one server, one lost answer."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis
from pymongo import MongoClient
from pymongo.database import Database
from redis.exceptions import ConnectionError as RedisConnectionError

from imserver.conf import Config, get_config
from imserver.constants import SessionType, WebhookCommand
from imserver.protocol.conversations import shard_of_key
from imserver.storage import groups, keys, webhooks
from imserver.storage.clients import Document, get_mongo
from imserver.storage.logs import Entry, Lease
from imserver.storage.scripts import get_script
from imserver.storage.seq import Refill, SeqAllocator
from tasks import drain, receivers
from tasks import transfer as transfer_module
from tasks.drain import Runner, Stage
from tasks.push.online import OnlinePush
from tasks.receivers import Receivers
from tasks.transfer import Transfer
from tests.app_server import AppServer, Reply
from tests.factories import add_entries, make_msg, read_log, reconfigure, send_deferred
from tests.node_probe import MakeNode, NodeProbe

SHARD = 0
DEAD = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def one_shard(config: Config, database: Database[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    reconfigure(monkeypatch, shards=1, lease_ms=60_000)
    monkeypatch.setattr(transfer_module, "wake", lambda stage, shard: None)


@pytest.fixture
def lease(redis_client: redis.Redis, one_shard: None) -> Lease:
    taken = Lease.acquire(redis_client, "transfer", SHARD)
    assert taken is not None
    return taken


def entries(client: redis.Redis) -> Any:
    return read_log(client, keys.TO_REDIS, SHARD)


def test_a_commit_whose_answer_got_lost_leaves_the_push_to_the_push_stage(
    redis_client: redis.Redis, lease: Lease, make_node: MakeNode
) -> None:
    make_node().connect("b")
    add_entries(redis_client, [make_msg("a", "b")])
    stage = Transfer(pushes=True)
    lean = stage._lean
    times: list[int] = []
    really = lean._round_trip

    def breaks_once(commands: Any) -> Any:
        replies = really(commands)
        if not times and isinstance(replies[0], list) and replies[0][0] == 1:
            times.append(1)
            lean.close()
            raise RedisConnectionError("broken after the script ran")
        return replies

    lean._round_trip = breaks_once  # type: ignore[method-assign]
    assert stage.process_many([(lease, entries(redis_client))]) == [None]
    # It holds itself, so nobody else does it.
    lean.close()

    assert len(read_log(redis_client, keys.TO_PUSH, SHARD)) == 1
    # The keeper goes on renewing it with the transfer lease.
    lease.renew(redis_client)
    assert Lease.acquire(redis_client, "push", SHARD) is not None, "nobody can push what waits"


def test_a_trouble_between_commit_and_push_leaves_the_push_to_the_push_stage(
    redis_client: redis.Redis, lease: Lease, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_node().connect("b")
    add_entries(redis_client, [make_msg("a", "b")])
    stage = Transfer(pushes=True)

    def trouble(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(Transfer, "_push", trouble)
    held = drain._Shard(lease)
    Runner(stage)._handle([(held, entries(redis_client))])

    lease.renew(redis_client)
    if not held.failures:
        Runner(stage)._handle([(held, entries(redis_client))] if entries(redis_client) else [])
    assert len(read_log(redis_client, keys.TO_PUSH, SHARD)) == 1
    assert Lease.acquire(redis_client, "push", SHARD) is not None, "nobody can push what waits"


def test_a_layer_server_that_is_away_does_not_stop_transfer(
    redis_client: redis.Redis, lease: Lease, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconfigure(monkeypatch, channel_layer_urls=f"redis://{DEAD}/0")
    make_node().connect("b")
    add_entries(redis_client, [make_msg("a", "b")])

    assert Transfer(pushes=True).process_many([(lease, entries(redis_client))]) == [None]


def test_a_mongodb_that_is_away_does_not_hold_up_the_commit_for_receivers(
    redis_client: redis.Redis, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Transfer(pushes=True)
    add_entries(redis_client, [make_msg("a", "", groupID="g", sessionType=SessionType.GROUP)])
    assert stage.process_many([(lease, entries(redis_client))]) == [None]
    SeqAllocator(redis_client, get_mongo()).ensure_range("sg_g", 600)
    redis_client.delete(*redis_client.keys(f"{get_config().key_prefix}GROUP_MEMBERS*"))
    redis_client.delete(*redis_client.keys(f"{get_config().key_prefix}GROUP_STATE*"))
    nobody: MongoClient[Document] = MongoClient(f"mongodb://{DEAD}", serverSelectionTimeoutMS=500)
    away = nobody["x"]
    stage._pusher._receivers = Receivers(redis_client, away)  # type: ignore[union-attr]
    add_entries(redis_client, [make_msg("a", "", groupID="g", sessionType=SessionType.GROUP) for _ in range(20)])
    asked: list[object] = []
    member_ids = groups.member_ids

    def counted(client: redis.Redis, database: Any, *args: Any, **options: Any) -> list[str]:
        asked.append(database)
        return member_ids(client, database, *args, **options)

    monkeypatch.setattr(groups, "member_ids", counted)
    monkeypatch.setattr(receivers, "LOOK_UP_SECONDS", 0.5)

    assert stage.process_many([(lease, entries(redis_client))]) == [None]

    nobody.close()
    assert asked == [away]


def test_a_refill_of_one_shard_does_not_hold_up_the_push_of_another(
    redis_client: redis.Redis, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconfigure(monkeypatch, shards=2)
    peers: dict[int, str] = {}
    for number in range(50):
        peers.setdefault(shard_of_key(f"a_b{number}", 2), f"b{number}")
    node = make_node()
    node.connect(peers[0])
    stage = Transfer(pushes=True)
    leases = {shard: Lease.acquire(redis_client, "transfer", shard) for shard in (0, 1)}

    def batch(shard: int) -> Any:
        add_entries(
            redis_client,
            [make_msg("a", peers[shard])],
        )
        return leases[shard], read_log(redis_client, keys.TO_REDIS, shard)

    assert stage.process_many([batch(0)]) == [None]
    send_deferred(stage)
    assert len(node.pushed()) == 1
    reserve, pushed_before = SeqAllocator._reserve, []

    def slow(allocator: SeqAllocator, refill: Refill, amount: int, *, after: int, skipped: int = 0) -> tuple[int, int]:
        pushed_before.append(len(node.pushed()))
        return reserve(allocator, refill, amount, after=after, skipped=skipped)

    monkeypatch.setattr(SeqAllocator, "_reserve", slow)
    assert stage.process_many([batch(0), batch(1)]) == [None, None]
    assert pushed_before[0] == 1, "the committed message of shard 0 was pushed only after MongoDB answered for shard 1"


def test_a_script_error_of_one_shard_is_not_that_of_all(
    redis_client: redis.Redis, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconfigure(monkeypatch, shards=2)
    peers: dict[int, str] = {}
    for number in range(50):
        peers.setdefault(shard_of_key(f"a_b{number}", 2), f"b{number}")
    batches = []
    for shard in (0, 1):
        add_entries(redis_client, [make_msg("a", peers[shard])])
        batches.append((Lease.acquire(redis_client, "transfer", shard), read_log(redis_client, keys.TO_REDIS, shard)))
    first, second = sorted(("a", peers[1]))
    redis_client.set(keys.malloc_seq(1, f"si_{first}_{second}"), "not a hash")
    stage = Transfer(pushes=True)
    outcomes = stage.process_many(batches)  # type: ignore[arg-type]
    assert outcomes[0] is None


def test_slow_push_hooks_do_not_cost_the_lease_for_ever(
    redis_client: redis.Redis, database: Database[Document], make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In small: a minute of HUNG_SECONDS is half a second, 500 calls of 5 s are 40 of 2.5 s, 16 at a time."""

    def slow(call: object) -> Reply:
        app.stopping.wait(2.5)
        return Reply()

    monkeypatch.setattr(drain, "wake", lambda stage, shard: None)
    node = make_node()
    node.connect("b")
    msgs = [make_msg("a", "b") for _ in range(40)]
    add_entries(redis_client, msgs)
    taken = Lease.acquire(redis_client, "transfer", SHARD)
    assert taken is not None
    Transfer().process(taken, entries(redis_client))
    # A batch of two rounds of calls takes longer than what is called hung and a lease together.
    reconfigure(monkeypatch, lease_ms=4000, linger_ms=100)
    monkeypatch.setattr(drain, "HUNG_SECONDS", 0.5)
    # One entry a message, as many small batches leave them.
    with AppServer(slow) as app:
        document = {"command": WebhookCommand.BEFORE_ONLINE_PUSH, "url": app.url, "enable": True, "timeout": 30}
        database[webhooks.COLLECTION].replace_one({"command": document["command"]}, document, upsert=True)
        webhooks.forget()
        Runner(OnlinePush()).drain(SHARD)
        first = len(node.pushed())
        Runner(OnlinePush()).drain(SHARD)
        again = len(node.pushed())
    webhooks.forget()
    assert (first, again, read_log(redis_client, keys.TO_PUSH, SHARD)) == (40, 0, [])


def test_a_busy_large_group_does_not_overrun_the_nodes_subscription(
    redis_client: redis.Redis, lease: Lease, monkeypatch: pytest.MonkeyPatch, make_node: MakeNode
) -> None:
    node: NodeProbe = make_node()
    members = [f"member{number:06d}" for number in range(10_000)]
    for user in members:
        node.connect(user)
    stage = Transfer(pushes=True)
    monkeypatch.setattr(stage._pusher._receivers, "_members", lambda *_, **__: members)  # type: ignore[union-attr]
    add_entries(
        redis_client, [make_msg("member000000", "", groupID="g", sessionType=SessionType.GROUP) for _ in range(500)]
    )
    sizes: list[int] = []
    serialize = stage._pusher._sender._serialize  # type: ignore[union-attr]

    def measured(event: Any) -> Any:
        sizes.append(len(serialize(event)))
        return serialize(event)

    monkeypatch.setattr(stage._pusher._sender, "_serialize", measured)  # type: ignore[union-attr]
    assert stage.process_many([(lease, entries(redis_client))]) == [None]
    send_deferred(stage)

    assert sum(len(event["frames"]) for event in node.events()) == 500
    assert sum(sizes) < 1_000_000


def test_a_stage_that_does_not_linger_does_not_spin_while_a_failing_shard_waits(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Stage):
        name = "push"
        lingers = False

        def process(self, lease: Lease, entries: list[Entry]) -> None:
            raise ValueError

    monkeypatch.setattr(drain, "BACKOFF_FIRST_SECONDS", 5.0)
    redis_client.xadd(keys.log(keys.TO_PUSH, SHARD), {"c": "x"})
    runner, tries = Runner(Failing()), []
    retire = runner._retire

    def counted(client: redis.Redis) -> bool:
        tries.append(1)
        return retire(client)

    monkeypatch.setattr(runner, "_retire", counted)
    thread = threading.Thread(target=runner.drain, args=(SHARD,))
    thread.start()
    # The fault that is looked for is one that happens all the time.
    threading.Event().wait(1)
    runner.stop()
    thread.join(5)
    assert len(tries) < 50


def test_a_trim_that_is_repeated_hands_nothing_on_twice(redis_client: redis.Redis) -> None:
    log = keys.log(keys.TO_MONGO, SHARD)
    entry_id: Any = redis_client.xadd(log, {"c": "x"})
    lease = Lease.acquire(redis_client, "persist", SHARD)
    assert lease is not None
    call = lease.trim_call(entry_id, next_stage="webhook", hand_on=[{b"h": b"after_save"}])
    for _ in range(2):  # the driver repeats a call whose connection broke
        get_script("trim").run(redis_client, *call)
    assert redis_client.xlen(keys.log(keys.TO_WEBHOOK, SHARD)) == 1


def test_many_shards_that_each_take_their_time_do_not_count_as_one_hung_batch(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As webhook and offline_push do: a slice and a call's time-out a shard, one after the other."""

    class Slow(Stage):
        name = "webhook"

        def __init__(self) -> None:
            self.progress: list[float] = []

        def process(self, lease: Lease, entries: list[Entry]) -> None:
            # What tells a runner that is at work from one that hangs.
            self.progress.append(runner._progress_at)
            lease.trim(redis_client, entries[-1][0])

    reconfigure(monkeypatch, shards=8, linger_ms=100)
    stage = Slow()
    runner = Runner(stage)
    for shard in range(8):
        redis_client.xadd(keys.log(keys.TO_WEBHOOK, shard), {"c": "x"})
        held = Lease.acquire(redis_client, "webhook", shard)
        assert held is not None
        runner._shards[shard] = drain._Shard(held)
    redis_client.delete(keys.lease("webhook", 0))
    runner.drain(0)
    assert len(stage.progress) == len(set(stage.progress)) == 8
