"""Transfer pushes what it committed by itself while nobody else holds the push lease."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from pymongo.database import Database

from imserver.conf import Config, get_config
from imserver.storage import keys
from imserver.storage.clients import Document
from imserver.storage.logs import STAGE_LOGS, Lease
from tasks import transfer as transfer_module
from tasks.push.nodes import NodeSender
from tasks.push.online import OnlinePush
from tasks.transfer import Transfer
from tests.factories import add_entries, make_msg, read_log, reconfigure, run_stage, send_deferred
from tests.node_probe import MakeNode, NodeProbe

SHARD = 0
Wakes = list[tuple[str, int]]


@pytest.fixture(autouse=True)
def one_shard(config: Config, database: Database[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    reconfigure(monkeypatch, shards=1, lease_ms=60_000)


@pytest.fixture
def wakes(monkeypatch: pytest.MonkeyPatch) -> Wakes:
    found: Wakes = []
    monkeypatch.setattr(transfer_module, "wake", lambda stage, shard: found.append((stage, shard)))
    return found


@pytest.fixture
def lease(redis_client: redis.Redis, one_shard: None) -> Lease:
    taken = Lease.acquire(redis_client, "transfer", SHARD)
    assert taken is not None
    return taken


def run(client: redis.Redis, lease: Lease, stage: Transfer) -> None:
    assert stage.process_many([(lease, read_log(client, keys.TO_REDIS, SHARD))]) == [None]
    send_deferred(stage)


def push_holder(client: redis.Redis) -> str | None:
    holder: Any = client.get(keys.lease("push", SHARD))
    return None if holder is None else holder.decode()


def test_a_committed_message_is_pushed_at_once_and_leaves_nothing_in_the_push_log(
    redis_client: redis.Redis, lease: Lease, make_node: MakeNode, wakes: Wakes
) -> None:
    node, msgs = make_node(), [make_msg("a", "b") for _ in range(3)]
    for user in ("a", "b"):
        node.connect(user)
    add_entries(redis_client, msgs)

    run(redis_client, lease, Transfer(pushes=True))

    assert node.pushed() == [(msg.clientMsgID, seq, ["a", "b"]) for seq, msg in enumerate(msgs, start=1)]
    assert read_log(redis_client, keys.TO_PUSH, SHARD) == []
    assert push_holder(redis_client) == lease.token
    assert ("push", SHARD) not in wakes
    assert ("persist", SHARD) in wakes


def test_a_broker_that_hangs_does_not_hold_up_what_is_committed(
    redis_client: redis.Redis, lease: Lease, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, pushed_by_then = make_node(), []
    node.connect("b")
    monkeypatch.setattr(transfer_module, "wake", lambda *_: pushed_by_then.append(len(node.pushed())))
    add_entries(redis_client, [make_msg("a", "b")])

    run(redis_client, lease, Transfer(pushes=True))

    assert pushed_by_then == [1]
    assert read_log(redis_client, keys.TO_PUSH, SHARD) == []


def test_the_push_lease_is_renewed_and_given_back_with_the_transfer_lease(
    redis_client: redis.Redis, lease: Lease, wakes: Wakes
) -> None:
    add_entries(redis_client, [make_msg("a", "b")])
    run(redis_client, lease, Transfer(pushes=True))
    redis_client.pexpire(keys.lease("push", SHARD), 5000)

    lease.renew(redis_client)
    left: Any = redis_client.pttl(keys.lease("push", SHARD))
    assert left > 5000

    assert lease.release(redis_client) == 1
    assert push_holder(redis_client) is None


def test_what_waits_in_the_push_log_is_not_overtaken(
    redis_client: redis.Redis, lease: Lease, make_node: MakeNode, wakes: Wakes
) -> None:
    node, older, newer = make_node(), make_msg("a", "b"), make_msg("a", "b")
    node.connect("b")
    add_entries(redis_client, [older])
    Transfer().process(lease, read_log(redis_client, keys.TO_REDIS, SHARD))
    redis_client.delete(keys.wake("push", SHARD))
    add_entries(redis_client, [newer])

    run(redis_client, lease, Transfer(pushes=True))
    assert node.pushed() == []
    assert ("push", SHARD) in wakes
    assert push_holder(redis_client) is None

    run_stage(redis_client, OnlinePush(), SHARD)
    assert node.pushed() == [(older.clientMsgID, 1, ["b"]), (newer.clientMsgID, 2, ["b"])]


def test_a_push_lease_of_somebody_else_is_respected(
    redis_client: redis.Redis, lease: Lease, make_node: MakeNode, wakes: Wakes
) -> None:
    node = make_node()
    node.connect("b")
    other = Lease.acquire(redis_client, "push", SHARD)
    assert other is not None
    add_entries(redis_client, [make_msg("a", "b")])

    run(redis_client, lease, Transfer(pushes=True))

    assert node.pushed() == []
    assert len(read_log(redis_client, STAGE_LOGS["push"], SHARD)) == 1
    assert push_holder(redis_client) == other.token


def test_what_a_crash_between_commit_and_push_leaves_is_pushed_by_the_next_drainer(
    redis_client: redis.Redis,
    lease: Lease,
    make_node: MakeNode,
    wakes: Wakes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    node, msg = make_node(), make_msg("a", "b")
    node.connect("b")
    add_entries(redis_client, [msg])
    stage = Transfer(pushes=True)
    monkeypatch.setattr(Transfer, "_push", crash)
    with pytest.raises(Crash):
        run(redis_client, lease, stage)
    assert len(read_log(redis_client, keys.TO_PUSH, SHARD)) == 1

    # The dead process's leases run out.
    redis_client.delete(lease.key, keys.lease("push", SHARD))
    run_stage(redis_client, OnlinePush(), SHARD)

    assert node.pushed() == [(msg.clientMsgID, 1, ["b"])]
    assert read_log(redis_client, keys.TO_PUSH, SHARD) == []


def test_no_message_goes_to_a_node_without_a_receiver(
    redis_client: redis.Redis, lease: Lease, make_node: MakeNode, wakes: Wakes
) -> None:
    nodes = [make_node() for _ in range(5)]
    nodes[3].connect("b")
    nodes[4].connect("a")
    nodes[0].connect("somebody else")
    add_entries(redis_client, [make_msg("a", "b")])

    run(redis_client, lease, Transfer(pushes=True))

    assert [len(node.events()) for node in nodes] == [0, 0, 0, 1, 1]


def test_an_ios_app_in_the_background_is_not_written_to(
    redis_client: redis.Redis, lease: Lease, make_node: MakeNode, wakes: Wakes
) -> None:
    phone, computer = make_node(), make_node()
    phone.connect("b", platform_id=1, is_background=True)
    computer.connect("b", platform_id=3, is_background=True)
    add_entries(redis_client, [make_msg("a", "b")])

    run(redis_client, lease, Transfer(pushes=True))

    assert phone.events() == []
    assert len(computer.events()) == 1


def test_the_layer_hears_what_a_thread_publishes_also_with_several_servers_of_its_own(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = get_config().redis_url
    other = f"{url}?client_name=layer" if "?" not in url else f"{url}&client_name=layer"
    reconfigure(monkeypatch, channel_layer_urls=f"{url},{other}")
    sender = NodeSender(redis_client)
    probes = [NodeProbe(redis_client) for _ in range(8)]

    takers, _ = sender.send({name: [{"type": "x"}] for name in [*(probe.name for probe in probes), "nobody"]}, [])

    assert takers == {probe.name for probe in probes}
    for probe in probes:
        assert probe.events() == [{"type": "x"}]
        probe.close()
