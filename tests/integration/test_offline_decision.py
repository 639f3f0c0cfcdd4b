"""Who gets an offline push: who was not reached on a phone (pipeline.md section 7.4 and 7.6)."""

from __future__ import annotations

import time

import orjson
import pytest
import redis
from channels.layers import get_channel_layer
from pymongo.database import Database

from imserver.conf import Config
from imserver.constants import ContentType, Option, Platform, PushResult
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import keys
from imserver.storage.clients import Document
from tasks.push import layer, results
from tasks.push.online import OnlinePush
from tasks.transfer import Transfer
from tests.factories import add_entries, make_msg, read_log, reconfigure, run_stage
from tests.node_probe import MakeNode

SHARD = 0
LONG_SECONDS = 60


@pytest.fixture(autouse=True)
def with_a_vendor(config: Config, database: Database[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    reconfigure(monkeypatch, shards=1, lease_ms=60_000, offline_push_vendor="dummy", push_result_ms=300)


def wait_long_for_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test which would wait for a result takes far too long."""
    reconfigure(monkeypatch, shards=1, lease_ms=60_000, offline_push_vendor="dummy", push_result_ms=LONG_SECONDS * 1000)


def push(client: redis.Redis, *msgs: MsgData, stage: OnlinePush | None = None) -> list[tuple[str, int, list[str]]]:
    """(client id, seq, users) of the entries that the offline push stage gets."""
    add_entries(client, msgs)
    run_stage(client, Transfer(), SHARD)
    client.delete(keys.wake("push", SHARD))
    run_stage(client, stage or OnlinePush(), SHARD)
    assert read_log(client, keys.TO_PUSH, SHARD) == []
    return [
        (MsgData.FromString(fields[b"m"]).clientMsgID, int(fields[b"s"]), orjson.loads(fields[b"u"]))
        for _, fields in read_log(client, keys.TO_OFFLINE_PUSH, SHARD)
    ]


def test_a_receiver_who_is_connected_nowhere_gets_an_offline_push_and_its_sender_never(
    redis_client: redis.Redis,
) -> None:
    first, second = make_msg("a", "b"), make_msg("b", "a")

    assert push(redis_client, first, second) == [(first.clientMsgID, 1, ["b"]), (second.clientMsgID, 2, ["a"])]
    assert redis_client.exists(keys.wake("offline_push", SHARD))


def test_a_phone_that_took_the_message_needs_none(
    redis_client: redis.Redis, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_long_for_results(monkeypatch)
    node = make_node()
    node.connect("b", Platform.ANDROID)
    node.answer_all(PushResult.OK, platform_id=Platform.ANDROID)

    assert push(redis_client, make_msg("a", "b")) == []


def test_a_computer_that_took_the_message_does_not_keep_the_phone_quiet_and_nobody_waits_for_its_answer(
    redis_client: redis.Redis, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_long_for_results(monkeypatch)
    node, msg = make_node(), make_msg("a", "b")
    node.connect("b", Platform.WEB)
    began = time.monotonic()

    assert push(redis_client, msg) == [(msg.clientMsgID, 1, ["b"])]
    assert time.monotonic() - began < LONG_SECONDS
    assert len(node.events()) == 1


@pytest.mark.parametrize("code", [PushResult.FAILED, PushResult.IOS_BACKGROUND])
def test_a_phone_that_could_not_be_written_to_gets_one(
    code: PushResult, redis_client: redis.Redis, make_node: MakeNode
) -> None:
    node, msg = make_node(), make_msg("a", "b")
    node.connect("b", Platform.IOS)
    node.answer_all(code, platform_id=Platform.IOS)

    assert push(redis_client, msg) == [(msg.clientMsgID, 1, ["b"])]


def test_a_node_that_does_not_answer_counts_as_not_reached_and_is_not_waited_for_again_at_once(
    redis_client: redis.Redis, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, stage = make_node(), OnlinePush()
    node.connect("b", Platform.IOS)
    one, two = make_msg("a", "b"), make_msg("a", "b")

    monkeypatch.setattr(results, "SILENT_SECONDS", LONG_SECONDS)
    push(redis_client, one, stage=stage)
    wait_long_for_results(monkeypatch)
    began = time.monotonic()
    found = push(redis_client, two, stage=stage)

    assert found == [(one.clientMsgID, 1, ["b"]), (two.clientMsgID, 2, ["b"])]
    assert time.monotonic() - began < LONG_SECONDS


async def lose_subscription(channel: str) -> None:
    """As when its connection died without a word: the layer thinks that it is there."""
    connection = get_channel_layer()._get_layer()._get_shard(channel)
    await connection._pubsub.unsubscribe(channel)


def test_a_worker_that_does_not_hear_the_nodes_any_more_notices_and_subscribes_anew(
    redis_client: redis.Redis, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "SILENT_SECONDS", 0)
    wait_long_for_results(monkeypatch)
    node, stage = make_node(), OnlinePush()
    node.connect("b", Platform.ANDROID)
    node.answer_all(PushResult.OK, platform_id=Platform.ANDROID)
    assert push(redis_client, make_msg("a", "b"), stage=stage) == []

    layer.run(lose_subscription(stage._inbox._channel))
    reconfigure(monkeypatch, push_result_ms=100)
    for count in range(1, results.UNANSWERED_PUSHES + 1):
        assert len(push(redis_client, make_msg("a", "b"), stage=stage)) == count

    wait_long_for_results(monkeypatch)
    assert len(push(redis_client, make_msg("a", "b"), stage=stage)) == results.UNANSWERED_PUSHES


def test_a_worker_that_hears_itself_keeps_its_address_whatever_the_nodes_do(
    redis_client: redis.Redis, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "SILENT_SECONDS", 0)
    monkeypatch.setattr(results, "ECHO_SECONDS", LONG_SECONDS)
    reconfigure(monkeypatch, push_result_ms=10)
    node, stage = make_node(), OnlinePush()
    node.connect("b", Platform.ANDROID)
    began = time.monotonic()

    for _ in range(2 * results.UNANSWERED_PUSHES + 1):
        push(redis_client, make_msg("a", "b"), stage=stage)

    addresses = {event["reply"] for event in node.events()}
    assert len(addresses) == 1
    assert time.monotonic() - began < LONG_SECONDS


def test_a_node_that_died_counts_as_not_reached_without_a_wait(
    redis_client: redis.Redis, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_long_for_results(monkeypatch)
    node, msg = make_node(), make_msg("a", "b")
    node.connect("b", Platform.IOS)
    node.close()
    began = time.monotonic()

    assert push(redis_client, msg) == [(msg.clientMsgID, 1, ["b"])]
    assert time.monotonic() - began < LONG_SECONDS


def test_messages_that_want_no_offline_push_and_typing_get_none(redis_client: redis.Redis) -> None:
    quiet = make_msg("a", "b", options={Option.OFFLINE_PUSH: False})
    typing = make_msg("a", "b", contentType=ContentType.TYPING, options={Option.HISTORY: False})

    assert push(redis_client, quiet, typing) == []
