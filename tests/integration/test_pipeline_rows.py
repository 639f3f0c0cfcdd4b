"""Rows of the pipeline's contract (docs/pipeline.md) that no other test has for its subject."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import redis
from prometheus_client import REGISTRY
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError

from imserver.clock import now_ms
from imserver.conf import Config
from imserver.constants import Option, RoleLevel, SessionType, WebhookCommand
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import keys, read_seq, webhooks
from imserver.storage.clients import Document, close_async_clients, get_async_mongo, get_async_redis
from imserver.storage.groups import Groups, new_member
from imserver.storage.logs import STAGE_LOGS, Lease
from imserver.storage.seq import SeqAllocator
from tasks import persist as persist_module
from tasks.drain import Runner, Stage, _Shard
from tasks.persist import Persist
from tasks.push.online import OnlinePush
from tasks.transfer import Transfer
from tasks.webhooks import Webhooks
from tests.factories import (
    add_entries,
    make_msg,
    make_notification,
    make_receipt,
    persist,
    read_handed,
    read_log,
    reconfigure,
    run_stage,
    transfer,
)

SHARD = 0


@pytest.fixture(autouse=True)
def one_shard(config: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    return reconfigure(monkeypatch, shards=1)


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def group_msg(send_id: str, group_id: str, **fields: Any) -> MsgData:
    return make_msg(send_id, "", sessionType=SessionType.GROUP, groupID=group_id, **fields)


def receipt(user_id: str, peer: str, conversation_id: str, seq: int) -> MsgData:
    tips = {"markAsReadUserID": user_id, "conversationID": conversation_id, "hasReadSeq": seq}
    return make_receipt(user_id, peer, tips)


async def add_members(group_id: str, *user_ids: str) -> None:
    members = [
        new_member(group_id, user_id, RoleLevel.MEMBER, join_source=2, inviter_user_id="i", operator_user_id="o")
        for user_id in user_ids
    ]
    await Groups(get_async_redis(), get_async_mongo()).add_members(group_id, members)
    await close_async_clients()


# -- batching


@pytest.mark.parametrize("command", [WebhookCommand.AFTER_SEND_SINGLE, WebhookCommand.AFTER_SAVE])
def test_a_full_log_loses_after_events_and_no_message(
    redis_client: redis.Redis, database: Database[Document], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    reconfigure(monkeypatch, log_max_entries=2)
    hook = {"command": command, "url": "http://app", "enable": True}
    database[webhooks.COLLECTION].insert_one(hook)
    webhooks.forget()
    dropped = counted("im_dropped_entries_total", log=keys.TO_WEBHOOK)

    transfer([make_msg("a", receiver) for receiver in ("b", "c", "d")])
    persist()
    transfer([make_msg("a", "b")])
    persist()

    assert [item.conversation_id for item in read_handed(redis_client, keys.TO_WEBHOOK, SHARD)] == ["si_a_b", "si_a_c"]
    assert counted("im_dropped_entries_total", log=keys.TO_WEBHOOK) == dropped + 2
    assert read_log(redis_client, keys.TO_MONGO, SHARD) == []
    assert database["msg"].count_documents({}) == 3


def test_a_full_log_loses_offline_pushes_and_no_message(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reconfigure(monkeypatch, log_max_entries=2, offline_push_vendor="dummy")
    dropped = counted("im_dropped_entries_total", log=keys.TO_OFFLINE_PUSH)

    transfer([make_msg("a", "b") for _ in range(5)])
    run_stage(redis_client, OnlinePush(), SHARD)

    pushes = read_log(redis_client, keys.TO_OFFLINE_PUSH, SHARD)
    assert [fields[b"s"] for _, fields in pushes] == [b"1", b"2"]
    assert counted("im_dropped_entries_total", log=keys.TO_OFFLINE_PUSH) == dropped + 3
    (line,) = [record for record in caplog.records if record.msg == "log is full, entries dropped"]
    assert line.__dict__["count"] == 3
    assert read_log(redis_client, keys.TO_PUSH, SHARD) == []


def test_an_empty_value_is_skipped_and_is_no_dead_letter(redis_client: redis.Redis) -> None:
    log = keys.log(keys.TO_REDIS, SHARD)
    for fields in ({"k": "a_b", "m": "", "o": "op"}, {"k": "a_b", "o": "op"}):
        redis_client.xadd(log, fields)  # type: ignore[arg-type]
    msg = make_msg("a", "b")

    transfer([msg])

    (handed,) = read_handed(redis_client, keys.TO_MONGO, SHARD)
    assert [MsgData.FromString(raw).clientMsgID for raw in handed.msgs] == [msg.clientMsgID]
    assert read_log(redis_client, keys.TO_REDIS, SHARD) == read_log(redis_client, keys.DEAD, SHARD) == []


def test_only_persist_lets_messages_gather(config: Config, database: Database[Document]) -> None:
    waits = {stage.name: stage.gather_ms for stage in (Transfer(), OnlinePush(), Webhooks(), Persist())}

    assert waits == {"transfer": 0, "push": 0, "webhook": 0, "persist": config.persist_gather_ms}


def test_persist_writes_no_more_at_a_time_than_its_lease_has_time_for(
    redis_client: redis.Redis, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persist_module, "MOST_MSGS", 4)
    monkeypatch.setattr(persist_module, "LEAST_MSGS_OF_SHARD", 1)
    for _ in range(4):
        transfer([make_msg("a", "b") for _ in range(3)])
    lease = Lease.acquire(redis_client, "persist", SHARD)
    assert lease is not None
    stage = Persist()

    left = []
    while entries := read_log(redis_client, keys.TO_MONGO, SHARD):
        left.append(len(entries))
        assert stage.process_many([(lease, entries)]) == [None]

    assert left == [4, 2]
    (block,) = database["msg"].find({"conversation_id": "si_a_b"})
    assert [slot["msg"]["seq"] for slot in block["msgs"] if slot["msg"]] == list(range(1, 13))


def test_a_batch_has_a_trigger_id_of_its_own_that_goes_to_the_next_stages(redis_client: redis.Redis) -> None:
    def trigger_ids(name: str) -> list[str]:
        return [LogBatch.FromString(fields[b"b"]).trigger_id for _, fields in read_log(redis_client, name, SHARD)]

    transfer([make_msg("a", "b"), make_msg("a", "c")])
    transfer([make_msg("a", "b")])

    first, again, second = trigger_ids(keys.TO_MONGO)
    assert trigger_ids(keys.TO_PUSH) == [first, again, second]
    assert first == again != second
    assert first
    assert second


# -- transfer


def test_a_group_and_a_chat_that_share_a_key_keep_their_own_numbers(
    redis_client: redis.Redis, database: Database[Document]
) -> None:
    transfer([make_msg("a", "b"), group_msg("a", "a_b"), make_msg("b", "a"), group_msg("b", "a_b")])

    handed = read_handed(redis_client, keys.TO_MONGO, SHARD)
    assert {(item.conversation_id, item.first_seq, len(item.msgs)) for item in handed} == {
        ("si_a_b", 1, 2),
        ("sg_a_b", 1, 2),
    }


def test_a_read_receipt_is_written_to_mongodb(redis_client: redis.Redis, database: Database[Document]) -> None:
    transfer([make_msg("b", "a") for _ in range(9)])

    transfer([receipt("a", "b", "si_a_b", 4), receipt("a", "b", "si_a_b", 7), receipt("a", "b", "si_a_b", 5)])
    read_seq.flush(redis_client, database)

    found = database["seq_user"].find({"conversation_id": "si_a_b"})
    assert {item["user_id"]: item["read_seq"] for item in found} == {"a": 7, "b": 9}


def test_a_read_receipt_passes_while_mongodb_is_away(
    redis_client: redis.Redis, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer([make_msg("b", "a") for _ in range(3)])

    def refuse(*_: Any, **__: Any) -> None:
        raise ServerSelectionTimeoutError("away")

    with monkeypatch.context() as patched:
        for call in ("find_one", "find_one_and_update", "bulk_write"):
            patched.setattr(Collection, call, refuse)
        patched.setattr("tasks.seq_supply.MONGO_RETRY_SECONDS", 0.0)
        # Transient: a notification's own seq would need a range of the twin, and that needs MongoDB.
        seen = receipt("a", "b", "si_a_b", 2)
        seen.options[Option.HISTORY] = False
        transfer([seen, make_msg("b", "a")])

    assert redis_client.get(keys.read_seq(SHARD, "si_a_b", "a")) == b"2"
    assert redis_client.get(keys.read_seq(SHARD, "si_a_b", "b")) == b"4"
    assert read_log(redis_client, keys.TO_REDIS, SHARD) == []
    # When MongoDB is back, the next flush brings what was read meanwhile.
    read_seq.flush(redis_client, database)
    found = database["seq_user"].find({"conversation_id": "si_a_b"})
    assert {item["user_id"]: item["read_seq"] for item in found} == {"a": 2, "b": 4}


def test_the_first_message_of_a_group_creates_a_record_for_each_member(database: Database[Document]) -> None:
    asyncio.run(add_members("g", "a", "b", "c"))

    transfer([group_msg("a", "g"), group_msg("b", "g")])
    persist()

    found = list(database["conversation"].find({"conversation_id": "sg_g"}))
    assert sorted(item["owner_user_id"] for item in found) == ["a", "b", "c"]
    assert {(item["conversation_type"], item["group_id"], item["user_id"]) for item in found} == {(3, "g", "")}
    assert {item["recv_msg_opt"] for item in found} == {0}


def test_of_a_service_accounts_chat_only_the_receiver_gets_a_record(
    redis_client: redis.Redis, database: Database[Document]
) -> None:
    transfer([make_msg("service", "a", sessionType=SessionType.NOTIFICATION, contentType=1400)])
    persist()

    (record,) = database["conversation"].find()
    assert (record["owner_user_id"], record["user_id"], record["conversation_type"]) == ("a", "service", 4)
    assert redis_client.smembers(keys.conversations("a")) == {b"sn_a_service"}
    assert redis_client.smembers(keys.conversations("service")) == set()


# -- seqs


def test_a_counter_that_is_not_used_expires_and_each_use_puts_that_off(
    redis_client: redis.Redis, database: Database[Document], config: Config
) -> None:
    key, seconds = keys.malloc_seq(SHARD, "si_a_b"), config.seq_key_ttl_days * 86_400

    def is_whole() -> bool:
        left: int = redis_client.ttl(key)
        return seconds - 60 < left <= seconds

    SeqAllocator(redis_client, database).ensure_range("si_a_b", 1)
    assert is_whole(), "after a refill"
    redis_client.expire(key, 100)
    transfer([make_msg("a", "b")])
    assert is_whole(), "after a batch"


def test_a_range_that_another_node_took_is_warned_of_and_counted(
    redis_client: redis.Redis, database: Database[Document], caplog: pytest.LogCaptureFixture
) -> None:
    allocator = SeqAllocator(redis_client, database)
    allocator.allocate("si_a_b", 11)
    database["seq"].update_one({"conversation_id": "si_a_b"}, {"$inc": {"max_seq": 500}})
    before = counted("im_seq_gaps_total")

    with caplog.at_level(logging.WARNING, "imserver.storage.seq"):
        allocator.allocate("si_a_b", 60)

    assert [record.message for record in caplog.records] == ["seq range skipped"]
    assert counted("im_seq_gaps_total") == before + 1


# -- counters


def test_messages_that_were_numbered_are_counted_by_kind(redis_client: redis.Redis) -> None:
    kinds = ("stored chat", "transient chat", "stored notification", "transient notification")
    before = {kind: counted("im_transfer_msgs_total", kind=kind) for kind in kinds}

    transfer(
        [
            *(make_msg("a", "b") for _ in range(4)),
            *(make_msg("a", "b", options={Option.HISTORY: False}) for _ in range(3)),
            *(make_notification("a", "b", stored=True) for _ in range(2)),
            make_notification("a", "b", stored=False),
        ]
    )

    rise = [counted("im_transfer_msgs_total", kind=kind) - before[kind] for kind in kinds]
    assert rise == [4, 3, 2, 1]


def test_messages_that_mongodb_did_not_take_are_counted_and_so_are_those_that_it_took(
    redis_client: redis.Redis, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer([make_msg("a", "b") for _ in range(7)])
    before = {result: counted("im_persist_msgs_total", result=result) for result in ("ok", "failed")}

    def rise() -> dict[str, float]:
        return {result: counted("im_persist_msgs_total", result=result) - before[result] for result in before}

    def refuse(*_: Any, **__: Any) -> None:
        raise AutoReconnect("away")

    with monkeypatch.context() as patched:
        patched.setattr(Collection, "bulk_write", refuse)
        with pytest.raises(AutoReconnect):
            persist()
    assert rise() == {"ok": 0, "failed": 7}
    redis_client.delete(keys.lease("persist", SHARD))

    persist()

    assert rise() == {"ok": 7, "failed": 7}


def test_messages_that_are_pushed_ten_seconds_after_they_were_sent_are_counted(redis_client: redis.Redis) -> None:
    transfer([make_msg("a", "b", sendTime=now_ms()) for _ in range(5)])
    transfer([make_msg("a", "b", sendTime=now_ms() - 11_000) for _ in range(3)])
    before = counted("im_push_late_msgs_total")

    run_stage(redis_client, OnlinePush(), SHARD)

    assert counted("im_push_late_msgs_total") == before + 3


def test_processed_messages_are_counted_for_single_chats_and_groups(redis_client: redis.Redis) -> None:
    name = "im_transfer_processed_msgs_total"
    before = [counted(name, session=session, result="ok") for session in ("single", "group")]

    transfer([make_msg("a", "b"), make_msg("a", "b"), group_msg("a", "G")])

    after = [counted(name, session=session, result="ok") for session in ("single", "group")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [2, 1]


def test_messages_of_a_batch_that_fails_are_counted_as_failed(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "im_transfer_processed_msgs_total"
    before = [counted(name, session=session, result="failed") for session in ("single", "group")]
    monkeypatch.setattr("tasks.transfer.commit_call", broken)

    with pytest.raises(RuntimeError):
        transfer([make_msg("a", "b"), group_msg("a", "G")])

    after = [counted(name, session=session, result="failed") for session in ("single", "group")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1]


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken for the test")


def test_a_seq_range_that_cannot_be_reserved_is_counted(
    redis_client: redis.Redis, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise ServerSelectionTimeoutError("away")

    before = counted("im_seq_refills_failed_total")
    with monkeypatch.context() as outage:
        outage.setattr(SeqAllocator, "_reserve", away)
        transfer([make_msg("a", "b")])

    assert counted("im_seq_refills_failed_total") > before


@pytest.mark.parametrize("stage_class", [Transfer, Persist, OnlinePush])
def test_every_stage_names_the_operations_of_a_batch_in_its_log_lines(
    stage_class: type[Stage],
    redis_client: redis.Redis,
    database: Database[Document],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if stage_class is not Transfer:
        transfer([make_msg("a", "b")])
    else:
        add_entries(redis_client, [make_msg("a", "b")])
    monkeypatch.setattr(stage_class, "process_many", broken)
    monkeypatch.setattr(stage_class, "process", broken)
    stage = stage_class()
    lease = Lease.acquire(redis_client, stage.name, 0)
    assert lease is not None

    with caplog.at_level(logging.DEBUG, logger="tasks.drain"):
        Runner(stage)._handle([(_Shard(lease), read_log(redis_client, STAGE_LOGS[stage.name], 0))])

    (record,) = (record for record in caplog.records if record.message == "batch failed, tried again later")
    assert record.operation_ids == ["op0"]  # type: ignore[attr-defined]
    assert bool(record.trigger_ids) == (stage_class is not Transfer)  # type: ignore[attr-defined]
