"""The webhook stage against a real app server: order, failures, retries, dead letters, leases."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import orjson
import pytest
import redis
from pymongo.database import Database

from imserver.conf import Config
from imserver.constants import SessionType, WebhookCommand
from imserver.protocol.conversations import chat_conversation_id, shard_of
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import dead_letters, keys, webhook_waits, webhooks
from imserver.storage.clients import Document
from imserver.storage.logs import Entry, Lease, LeaseLost
from imserver.storage.webhook_waits import HookBatch, Line, LineOutcome, Settlement
from imserver.storage.webhooks import AFTER_SAVE, AFTER_SEND
from imserver.webhooks import breaker
from imserver.webhooks.breaker import backoff_seconds
from tasks import webhooks as stage_module
from tasks.webhooks import Webhooks
from tests.app_server import AppServer, Call, Reply
from tests.factories import make_msg, read_log, reconfigure, run_stage, snapshot, wait_until

SINGLE = WebhookCommand.AFTER_SEND_SINGLE
GROUP = WebhookCommand.AFTER_SEND_GROUP
SAVE = WebhookCommand.AFTER_SAVE


@pytest.fixture
def app() -> Iterator[AppServer]:
    with AppServer() as running:
        yield running


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "BACKOFF_FIRST_SECONDS", 0.02)
    monkeypatch.setattr(breaker, "BACKOFF_MOST_SECONDS", 0.05)
    # One run is to do all that is there; tests of the slice set their own.
    monkeypatch.setattr(stage_module, "SLICE_SECONDS", 30)


@pytest.fixture
def stage(config: Config, database: Database[Document]) -> Webhooks:
    return Webhooks()


def switch_on(database: Database[Document], command: str, url: str, **settings: Any) -> None:
    document = {"command": command, "url": url, "enable": True, "timeout": 5, **settings}
    database[webhooks.COLLECTION].replace_one({"command": command}, document, upsert=True)
    webhooks.forget()


def say(sender: str, *texts: str, to: str = "z", group: str = "", **fields: Any) -> list[MsgData]:
    """Messages of one conversation."""
    if group:
        fields |= {"sessionType": SessionType.GROUP, "groupID": group}
    return [make_msg(sender, to, text, **fields) for text in texts]


def hand_on(client: redis.Redis, msgs: list[MsgData], first_seq: int = 1, kind: str = AFTER_SEND) -> int:
    """One entry, as commit.lua and the persist trim write it; returns its shard."""
    conversation_id = chat_conversation_id(msgs[0])
    batch = LogBatch(
        msgs=[msg.SerializeToString() for msg in msgs],
        operation_ids=[f"op{first_seq + at}" for at in range(len(msgs))],
        trigger_id="t",
    )
    shard = shard_of(conversation_id, 16)
    fields: Any = {"c": conversation_id, "s": first_seq, "b": batch.SerializeToString(), "h": kind}
    client.xadd(keys.log(keys.TO_WEBHOOK, shard), fields)
    return shard


def run(client: redis.Redis, stage: Webhooks) -> None:
    """What the sweep and the runners do, once."""
    webhook_waits.add_ticks(client, 16)
    for shard in range(16):
        run_stage(client, stage, shard)


def is_idle(client: redis.Redis) -> bool:
    return webhook_waits.count_lines(client, 16) == 0 and not any(
        client.xlen(keys.log(keys.TO_WEBHOOK, shard)) for shard in range(16)
    )


def run_until_idle(client: redis.Redis, stage: Webhooks) -> None:
    def is_done() -> bool:
        run(client, stage)
        return is_idle(client)

    wait_until(is_done, "every line is done", 60)


def read_dead(client: redis.Redis) -> list[dict[bytes, bytes]]:
    return [fields for shard in range(16) for _, fields in read_log(client, keys.DEAD, shard)]


def texts_in(letters: list[dict[bytes, bytes]]) -> list[str]:
    return [
        orjson.loads(MsgData.FromString(raw).content)["content"]
        for letter in letters
        for raw in LogBatch.FromString(letter[b"b"]).msgs
    ]


# -- what is called


def test_after_hooks_get_each_message_with_its_seq_and_operation_id(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer
) -> None:
    for command in (SINGLE, GROUP, SAVE):
        switch_on(database, command, app.url)
    hand_on(redis_client, say("a", "one", "two"), first_seq=8)
    hand_on(redis_client, say("b", "three", group="g"))
    hand_on(redis_client, say("c", "four"), kind=AFTER_SAVE)

    run(redis_client, stage)

    assert is_idle(redis_client)
    assert app.texts(SINGLE) == ["one", "two"]
    assert app.texts(GROUP) == ["three"]
    assert app.texts(SAVE) == ["four"]
    assert [(call.body["seq"], call.operation_id) for call in app.calls if call.command == SINGLE] == [
        (8, "op8"),
        (9, "op9"),
    ]
    (saved,) = [call for call in app.calls if call.command == SAVE]
    assert base64.b64decode(saved.query["key"][0]) == b'{"sendID":"c","recvID":"z","groupID":""}'
    assert all(call.body["callbackCommand"] == call.command for call in app.calls)


def test_connections_are_used_again(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer
) -> None:
    switch_on(database, SINGLE, app.url)
    hand_on(redis_client, say("a", *map(str, range(20))))

    run(redis_client, stage)

    assert len(app.calls) == 20
    assert len({call.connection for call in app.calls}) == 1


@pytest.mark.parametrize("settings", [{"enable": False}, {"denied_types": [101]}, {"attention_ids": ["somebody"]}])
def test_what_a_hook_does_not_want_is_passed_over(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer, settings: Any
) -> None:
    switch_on(database, SINGLE, app.url, **settings)
    hand_on(redis_client, say("a", "one"))

    run(redis_client, stage)

    assert is_idle(redis_client)
    assert app.calls == []
    assert read_dead(redis_client) == []


def test_typing_and_notifications_are_passed_over(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer
) -> None:
    switch_on(database, SINGLE, app.url)
    switch_on(database, SAVE, app.url)
    hand_on(redis_client, say("a", "x", contentType=113), first_seq=0)
    hand_on(redis_client, say("a", "x", contentType=2101), kind=AFTER_SAVE)
    hand_on(redis_client, say("a", "said"))

    run(redis_client, stage)

    assert app.texts() == ["said"]
    assert is_idle(redis_client)


def test_conversations_are_called_side_by_side_and_each_in_order(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer, config: Config
) -> None:
    switch_on(database, SINGLE, app.url, timeout=30)
    # Two conversations of one shard: the first is answered only after the second has been heard of.
    first, second = same_shard(2)

    def reply(call: Call) -> Reply:
        if call.text == f"{first} 0":
            app.until(lambda: f"{second} 9" in app.texts(), "the other conversation's last message")
        return Reply()

    app.reply = reply
    for number in range(10):
        hand_on(redis_client, say(first, f"{first} {number}"), first_seq=number + 1)
        hand_on(redis_client, say(second, f"{second} {number}"), first_seq=number + 1)

    run_until_idle(redis_client, stage)

    for sender in (first, second):
        assert app.texts(conversation=sender) == [f"{sender} {number}" for number in range(10)]


def same_shard(count: int) -> list[str]:
    """Senders whose chats with ``z`` share a shard."""
    senders = (f"s{number}" for number in range(10_000))
    return [item for item in senders if shard_of(f"si_{item}_z", 16) == 3][:count]


# -- failures


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_failing_call_is_repeated_and_what_came_meanwhile_stays_behind_it(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer, status: int
) -> None:
    switch_on(database, SINGLE, app.url)
    failing, healthy = same_shard(2)
    broken = True
    app.reply = lambda call: Reply(status if broken and call.text == f"{failing} 2" else 200)
    hand_on(redis_client, say(failing, *(f"{failing} {number}" for number in range(5))))
    hand_on(redis_client, say(healthy, f"{healthy} 0"))

    run(redis_client, stage)
    hand_on(redis_client, say(failing, f"{failing} 5"), first_seq=6)
    hand_on(redis_client, say(healthy, f"{healthy} 1"), first_seq=2)
    run(redis_client, stage)

    assert app.texts(conversation=healthy) == [f"{healthy} 0", f"{healthy} 1"]
    assert set(app.texts(conversation=failing)) == {f"{failing} {number}" for number in range(3)}
    broken = False
    run_until_idle(redis_client, stage)
    heard = app.texts(conversation=failing)
    assert heard[:2] == [f"{failing} 0", f"{failing} 1"]
    assert heard.count(f"{failing} 0") == 1
    assert heard[-4:] == [f"{failing} {number}" for number in range(2, 6)]
    assert [call.body["seq"] for call in app.calls if call.body["sendID"] == failing][-4:] == [3, 4, 5, 6]
    assert read_dead(redis_client) == []


def test_a_hook_that_is_away_holds_up_no_other_hook_and_no_other_conversation(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer
) -> None:
    away = AppServer()
    switch_on(database, SINGLE, away.url)
    switch_on(database, GROUP, app.url)
    switch_on(database, SAVE, app.url)
    hand_on(redis_client, say("a", "1", "2"))
    hand_on(redis_client, say("a", "1", "2"), kind=AFTER_SAVE)
    hand_on(redis_client, say("a", "3", group="g"))

    run(redis_client, stage)

    assert app.texts(GROUP) == ["3"]
    assert app.texts(SAVE) == ["1", "2"]
    assert not is_idle(redis_client)
    with away:
        run_until_idle(redis_client, stage)
    assert away.texts() == ["1", "2"]


def test_a_hook_that_does_not_answer_is_asked_by_one_call_at_a_time(
    redis_client: redis.Redis,
    database: Database[Document],
    stage: Webhooks,
    app: AppServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Longer than the other lines of a run take to hear that the hook is down.
    monkeypatch.setattr(breaker, "BACKOFF_FIRST_SECONDS", 0.5)
    monkeypatch.setattr(breaker, "BACKOFF_MOST_SECONDS", 0.5)
    switch_on(database, SINGLE, app.url, timeout=2)
    silent = True

    def reply(_call: Call) -> Reply:
        if silent:
            app.stopping.wait(20)
        return Reply()

    app.reply = reply
    senders = same_shard(30)
    for sender in senders:
        hand_on(redis_client, say(sender, sender))
    run(redis_client, stage)
    heard = len(app.calls)
    # A machine that stands still for the length of a pause lets another one ask.
    assert heard <= stage_module.MOST_CALLS + 3

    def asked_again() -> bool:
        run(redis_client, stage)
        return len(app.calls) > heard

    wait_until(asked_again, "another try", 20)

    assert len(app.calls) <= heard + 4
    silent = False
    run_until_idle(redis_client, stage)
    assert set(app.texts()) == set(senders)


def test_a_rejected_message_is_a_dead_letter_at_once_and_the_next_ones_go_on(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer
) -> None:
    switch_on(database, SINGLE, app.url)
    app.reply = lambda call: Reply(404 if call.text == "two" else 200)
    shard = hand_on(redis_client, say("a", "one", "two", "three"), first_seq=4)

    run(redis_client, stage)

    assert app.texts() == ["one", "two", "three"]
    assert is_idle(redis_client)
    ((_, letter),) = read_log(redis_client, keys.DEAD, shard)
    assert letter[b"reason"] == f"{SINGLE} answered HTTP 404".encode()
    assert (letter[b"origin"], letter[b"c"], letter[b"s"], letter[b"h"]) == (
        b"toWebhook",
        b"si_a_z",
        b"5",
        AFTER_SEND.encode(),
    )
    assert texts_in([letter]) == ["two"]


def test_a_dead_letter_that_is_put_back_is_called_again(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer
) -> None:
    switch_on(database, SINGLE, app.url)
    app.reply = lambda _call: Reply(404)
    hand_on(redis_client, say("a", "one", "two"), first_seq=4)
    run(redis_client, stage)
    app.reply = lambda _call: Reply()
    app.calls.clear()

    for letter in reversed(dead_letters.newest(redis_client, 10)):
        assert dead_letters.put_back(redis_client, letter).done
    run(redis_client, stage)

    assert [(call.text, call.body["seq"], call.operation_id) for call in app.calls] == [
        ("one", 4, "op4"),
        ("two", 5, "op5"),
    ]
    assert read_dead(redis_client) == []


@pytest.mark.parametrize("status", [301, 400, 401, 410])
def test_every_answer_that_is_not_success_nor_passing_is_a_rejection(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer, status: int
) -> None:
    switch_on(database, SINGLE, app.url)
    app.reply = lambda _call: Reply(status)
    hand_on(redis_client, say("a", "one"))

    run(redis_client, stage)

    assert texts_in(read_dead(redis_client)) == ["one"]


def test_the_answers_text_does_not_matter_after_the_fact(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer
) -> None:
    switch_on(database, SINGLE, app.url)
    app.reply = lambda _call: Reply(200, b"thanks")
    hand_on(redis_client, say("a", "one"))

    run(redis_client, stage)

    assert is_idle(redis_client)
    assert read_dead(redis_client) == []


def test_what_fails_too_long_is_given_up_in_order_and_later_messages_are_still_tried(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer
) -> None:
    switch_on(database, SINGLE, app.url, retry_minutes=0.2 / 60)
    broken = True
    app.reply = lambda _call: Reply(500 if broken else 200)
    hand_on(redis_client, say("a", "one", "two"))
    hand_on(redis_client, say("a", "three"), first_seq=3)

    def given_up() -> bool:
        run(redis_client, stage)
        return is_idle(redis_client)

    wait_until(given_up, "the line is given up")

    assert texts_in(read_dead(redis_client)) == ["one", "two", "three"]
    assert all(b"given up" in letter[b"reason"] for letter in read_dead(redis_client))
    assert app.texts().count("one") > 1
    assert "two" not in app.texts()
    broken = False
    hand_on(redis_client, say("a", "four"), first_seq=4)
    run(redis_client, stage)
    assert app.texts()[-1] == "four"


def test_without_retries_the_first_failure_is_the_last(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer
) -> None:
    switch_on(database, SINGLE, app.url, retry_minutes=0)
    app.reply = lambda _call: Reply(500)
    hand_on(redis_client, say("a", "one", "two"))

    run(redis_client, stage)

    assert is_idle(redis_client)
    assert texts_in(read_dead(redis_client)) == ["one", "two"]
    assert app.texts() == ["one"]


def test_a_line_longer_than_one_look_is_worked_off_in_order(
    redis_client: redis.Redis,
    database: Database[Document],
    stage: Webhooks,
    app: AppServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook_waits, "MOST_BATCHES", 3)
    switch_on(database, SINGLE, app.url)
    broken = True
    app.reply = lambda _call: Reply(500 if broken else 200)
    for number in range(8):
        hand_on(redis_client, say("a", str(number)), first_seq=number + 1)
    run(redis_client, stage)
    assert set(app.texts()) == {"0"}
    broken = False
    app.calls.clear()
    hand_on(redis_client, say("a", "8"), first_seq=9)

    run_until_idle(redis_client, stage)

    assert app.texts() == [str(number) for number in range(9)]


def test_an_entry_that_is_no_batch_is_a_dead_letter_with_all_its_fields(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer
) -> None:
    switch_on(database, SINGLE, app.url)
    bad: Any = {"c": "si_a_z", "s": "x", "b": b"\xff", "h": "after_send", "more": "1"}
    redis_client.xadd(keys.log(keys.TO_WEBHOOK, shard_of("si_a_z", 16)), bad)
    broken_msg: Any = {"c": "si_a_z", "s": 1, "b": LogBatch(msgs=[b"\xff"]).SerializeToString(), "h": "after_send"}
    redis_client.xadd(keys.log(keys.TO_WEBHOOK, shard_of("si_a_z", 16)), broken_msg)
    hand_on(redis_client, say("a", "good"), first_seq=2)

    run(redis_client, stage)

    assert app.texts() == ["good"]
    reasons = sorted(letter[b"reason"][:13] for letter in read_dead(redis_client))
    assert reasons == [b"not a batch: ", b"not a message"]
    assert {letter.get(b"more") for letter in read_dead(redis_client)} == {b"1", None}


# -- leases, slices, restarts


def test_a_slow_hook_gets_one_slice_and_goes_on_where_it_stood(
    redis_client: redis.Redis,
    database: Database[Document],
    stage: Webhooks,
    app: AppServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage_module, "SLICE_SECONDS", 0.3)
    switch_on(database, SINGLE, app.url)

    def reply(_call: Call) -> Reply:
        app.stopping.wait(0.1)
        return Reply()

    app.reply = reply
    hand_on(redis_client, say("a", *map(str, range(6))))
    hand_on(redis_client, say("a", *map(str, range(6, 12))), first_seq=7)

    run(redis_client, stage)

    assert 0 < len(app.calls) < 6
    run_until_idle(redis_client, stage)
    assert app.texts() == [str(number) for number in range(12)]
    assert [call.body["seq"] for call in app.calls] == list(range(1, 13))


def test_the_lease_is_kept_while_a_hook_takes_its_time(
    redis_client: redis.Redis,
    database: Database[Document],
    app: AppServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reconfigure(monkeypatch, lease_ms=8000)
    switch_on(database, SINGLE, app.url, timeout=30)
    key = keys.lease("webhook", hand_on(redis_client, say("a", "slow")))

    def reply(_call: Call) -> Reply:
        redis_client.pexpire(key, 6000)
        wait_until(lambda: redis_client.pttl(key) > 6000, "the lease's time begins again", 20)
        return Reply()

    app.reply = reply

    run(redis_client, Webhooks())

    assert is_idle(redis_client)
    assert app.texts() == ["slow"]


def test_who_lost_the_lease_changes_nothing(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer
) -> None:
    switch_on(database, SINGLE, app.url)
    shard = hand_on(redis_client, say("a", "one"))
    lease = Lease.acquire(redis_client, "webhook", shard)
    assert lease is not None
    app.reply = lambda _call: Reply(500)
    redis_client.set(lease.key, "somebody else")
    before = snapshot(redis_client)

    with pytest.raises(LeaseLost):
        stage.process(lease, read_log(redis_client, keys.TO_WEBHOOK, shard))

    assert snapshot(redis_client) == before


def test_another_process_goes_on_with_what_waits(
    redis_client: redis.Redis, database: Database[Document], stage: Webhooks, app: AppServer
) -> None:
    switch_on(database, SINGLE, app.url)
    app.reply = lambda _call: Reply(500)
    hand_on(redis_client, say("a", "one", "two"))
    run(redis_client, stage)
    app.reply = lambda _call: Reply()
    app.calls.clear()

    run_until_idle(redis_client, Webhooks())

    assert app.texts() == ["one", "two"]


Settle = Callable[[redis.Redis, Lease, Settlement], None]


def dying_around(settle: Settle, chance: random.Random) -> Settle:
    """Now and then the process dies before the outcome is applied, or before it hears that it was."""

    def settle_or_die(client: redis.Redis, lease: Lease, settlement: Settlement) -> None:
        if chance.random() < 0.2:
            raise redis.ConnectionError("died before")
        settle(client, lease, settlement)
        if chance.random() < 0.2:
            raise redis.ConnectionError("died after")

    return settle_or_die


@pytest.mark.parametrize("seed", range(5))
def test_whatever_fails_and_whoever_dies_each_conversation_is_told_everything_in_order(
    redis_client: redis.Redis,
    database: Database[Document],
    app: AppServer,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    monkeypatch.setattr(stage_module, "SLICE_SECONDS", 0.02)
    switch_on(database, SINGLE, app.url)
    chance = random.Random(seed)
    heard: list[Call] = []
    is_calm = False

    def reply(call: Call) -> Reply | None:
        if not is_calm and chance.random() < 0.2:
            return None if chance.random() < 0.3 else Reply(500)
        heard.append(call)
        return Reply()

    settle = webhook_waits.settle
    app.reply = reply
    senders = [*same_shard(3), "other"]
    seqs = dict.fromkeys(senders, 1)
    monkeypatch.setattr(webhook_waits, "settle", dying_around(settle, chance))
    for _ in range(40):
        for sender in chance.sample(senders, 2):
            size = chance.randint(1, 4)
            texts = [f"{sender} {seq}" for seq in range(seqs[sender], seqs[sender] + size)]
            hand_on(redis_client, say(sender, *texts), first_seq=seqs[sender])
            seqs[sender] += size
        try:
            run(redis_client, Webhooks())
        except redis.ConnectionError:
            for shard in range(16):
                redis_client.delete(keys.lease("webhook", shard))
    is_calm = True
    monkeypatch.setattr(webhook_waits, "settle", settle)
    run_until_idle(redis_client, Webhooks())

    for sender in senders:
        told = [call.body["seq"] for call in heard if call.body["sendID"] == sender]
        # A repeat is a step back; forward it never goes but to the very next message.
        assert list(dict.fromkeys(told)) == list(range(1, seqs[sender]))
        assert all(later <= before + 1 for before, later in pairwise(told))
    assert read_dead(redis_client) == []


def test_a_settlement_that_is_sent_twice_is_applied_once(
    redis_client: redis.Redis, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease.acquire(redis_client, "webhook", 3)
    assert lease is not None
    line = Line(AFTER_SEND, "si_a_z")
    batches = [HookBatch(seq, LogBatch(msgs=[b""])) for seq in range(1, 4)]
    webhook_waits.settle(redis_client, lease, Settlement(lines=[LineOutcome(line, behind=batches, due_ms=0)]))
    monkeypatch.setattr(webhook_waits.secrets, "token_hex", lambda _size: "the same")  # type: ignore[attr-defined]

    for _ in range(2):
        webhook_waits.settle(redis_client, lease, Settlement(lines=[LineOutcome(line, done=1, due_ms=0)]))

    waiting = webhook_waits.read_waiting(redis_client, 3, set())
    assert [batch.first_seq for batch in waiting[line].batches] == [2, 3]


def test_a_due_line_gets_one_tick_and_only_into_an_empty_log(
    redis_client: redis.Redis,
    database: Database[Document],
    stage: Webhooks,
    app: AppServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A line that is due when it is settled gets its tick there.
    monkeypatch.setattr(breaker, "BACKOFF_FIRST_SECONDS", 3.0)
    monkeypatch.setattr(breaker, "BACKOFF_MOST_SECONDS", 3.0)
    switch_on(database, SINGLE, app.url)
    app.reply = lambda _call: Reply(500)
    shard = hand_on(redis_client, say("a", "one"))
    run_stage(redis_client, stage, shard)

    wait_until(lambda: webhook_waits.add_ticks(redis_client, 16), "the line is due")

    assert webhook_waits.add_ticks(redis_client, 16) == 0
    entries: list[Entry] = read_log(redis_client, keys.TO_WEBHOOK, shard)
    assert [webhook_waits.is_tick(entry) for entry in entries] == [True]


def test_the_waits_double_and_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    assert [backoff_seconds(failures) for failures in (1, 2, 3, 6, 7, 10_000)] == [1, 2, 4, 32, 60, 60]


# -- settings


def test_only_what_is_switched_on_counts_as_enabled(database: Database[Document], config: Config) -> None:
    assert webhooks.enabled_after_kinds(database) == frozenset()
    switch_on(database, GROUP, "http://x")
    assert webhooks.enabled_after_kinds(database) == {AFTER_SEND}
    switch_on(database, SAVE, "http://x")
    switch_on(database, GROUP, "http://x", enable=False)
    assert webhooks.enabled_after_kinds(database) == {AFTER_SAVE}


def test_a_change_is_seen_within_two_seconds(database: Database[Document], config: Config) -> None:
    assert webhooks.enabled_after_kinds(database) == frozenset()
    database[webhooks.COLLECTION].insert_one({"command": SAVE, "url": "http://x", "enable": True})
    # Two seconds later.
    webhooks.get_cache(database)._loaded_at -= 2

    assert webhooks.enabled_after_kinds(database) == {AFTER_SAVE}
