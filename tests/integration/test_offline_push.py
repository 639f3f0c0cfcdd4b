"""The offline push stage: who gets a notice, what it says, how often, and what a failure holds up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from pymongo.database import Database

from imserver import metrics
from imserver.clock import now_ms
from imserver.conf import BASE_DIR, Config, get_config
from imserver.constants import SessionType, WebhookCommand
from imserver.protocol.conversations import shard_of
from imserver.storage import clients, keys, offline_waits, webhooks
from imserver.storage.clients import Document
from imserver.storage.logs import Lease, LeaseLost
from imserver.storage.offline_waits import Job
from imserver.vendors.base import Outcome
from tasks.push import delivery
from tasks.push import offline as stage_module
from tasks.push.notices import MOST_DESCRIPTION_CHARS, notice_of
from tests.app_server import AppServer
from tests.app_server import Reply as HookReply
from tests.factories import make_msg, make_notification, read_log, reconfigure, run_stage, snapshot, wait_until
from tests.offline_pushes import SHARDS, OfflinePushes, add_token
from tests.push_servers import Reply, Request
from tests.push_vendors import FakeFcm, FakeJPush

HOOK = WebhookCommand.BEFORE_OFFLINE_PUSH


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "BACKOFF_FIRST_SECONDS", 0.02)
    monkeypatch.setattr(delivery, "BACKOFF_MOST_SECONDS", 0.05)
    # Nobody's call is under way, but where a test says so.
    monkeypatch.setattr(delivery, "MOST_REQUESTS", 0)
    # One run is to do all that is there; tests of the slice set their own.
    monkeypatch.setattr(stage_module, "SLICE_SECONDS", 30)


@pytest.fixture
def database(config: Config) -> Database[Document]:
    """Without the indexes, which take longer than all else and are not what is shown here."""
    return clients.get_mongo()


@pytest.fixture
def jpush(tmp_path: Path) -> Iterator[FakeJPush]:
    """A vendor that addresses users."""
    fake = FakeJPush(tmp_path)
    with fake.server:
        yield fake
    assert fake.server.complaints == []


@pytest.fixture
def fcm(tmp_path: Path) -> Iterator[FakeFcm]:
    """A vendor that addresses devices."""
    fake = FakeFcm(tmp_path)
    with fake.server:
        yield fake
    assert fake.server.complaints == []


@pytest.fixture
def pushes(
    database: Database[Document], redis_client: redis.Redis, jpush: FakeJPush, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OfflinePushes]:
    reconfigure(monkeypatch, **jpush.settings)
    with OfflinePushes(redis_client) as running:
        yield running


@pytest.fixture
def device_pushes(
    database: Database[Document], redis_client: redis.Redis, fcm: FakeFcm, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OfflinePushes]:
    reconfigure(monkeypatch, **fcm.settings)
    with OfflinePushes(redis_client) as running:
        yield running


# -- what it says


@pytest.mark.parametrize(
    ("content_type", "content", "expected"),
    [
        (101, {"content": " hello "}, "hello"),
        (101, {"content": ""}, "[TEXT]"),
        (101, "no json", "[TEXT]"),
        (102, {"sourcePath": "/secret.png"}, "[PICTURE]"),
        (103, {"soundUrl": "x"}, "[VOICE]"),
        (104, {"videoUrl": "x"}, "[VIDEO]"),
        (105, {"fileName": "x"}, "[File]"),
        (106, {"text": "@Ann look"}, "@Ann look"),
        (106, {"text": ["no", "text"]}, "[@TEXT]"),
        (107, {"title": "x"}, "[NEWMSG]"),
        (110, {"data": "secret", "description": "secret"}, "[NEWMSG]"),
        (114, {"text": "I agree", "quoteMessage": {}}, "I agree"),
        (117, {"text": "bold"}, "bold"),
        (118, {"content": "# md"}, "# md"),
        (1501, {"detail": "secret"}, "[NEWMSG]"),
        (424242, {"content": "secret"}, "[NEWMSG]"),
    ],
)
def test_the_default_text_follows_the_content_type(content_type: int, content: Any, expected: str) -> None:
    raw = content.encode() if isinstance(content, str) else orjson.dumps(content)
    msg = make_msg("a", "b", contentType=content_type, content=raw, senderNickname="Ann")

    notice = notice_of(msg, "si_a_b", show_text=True)

    assert (notice.title, notice.description) == ("Ann", expected)


@pytest.mark.parametrize(
    "fields",
    [
        {"attachedInfo": '{"isEncryption":true}'},
        {"attachedInfo": '{"isPrivateChat":true,"burnDuration":30}'},
        {"attachedInfo": "not JSON, so nobody knows"},
        {"options": {"notPrivate": False}},
    ],
)
def test_the_text_of_an_encrypted_or_private_message_is_not_shown(fields: dict[str, Any]) -> None:
    notice = notice_of(make_msg("a", "b", "secret", **fields), "si_a_b", show_text=True)

    assert (notice.title, notice.description) == ("[TEXT]", "[TEXT]")


def test_no_text_is_shown_when_it_is_switched_off_and_a_long_one_is_cut() -> None:
    msg = make_msg("a", "b", "x" * 5000)

    assert notice_of(msg, "si_a_b", show_text=False).description == "[TEXT]"
    assert len(notice_of(msg, "si_a_b", show_text=True).description) == MOST_DESCRIPTION_CHARS


def test_the_senders_own_texts_come_first_with_sound_and_ex(pushes: OfflinePushes, jpush: FakeJPush) -> None:
    info = {"title": "T", "desc": "D", "ex": "e", "iOSPushSound": "ding"}
    msg = pushes.add("a", ["b"], "secret", offlinePushInfo=info)
    pushes.run()

    (push,) = jpush.pushes
    assert jpush.texts_of(push) == ("T", "D")
    ios = push.json["notification"]["ios"]
    assert ios["sound"] == "ding"
    assert ios["extras"] == {"conversationID": "si_a_b", "clientMsgID": msg.clientMsgID, "ex": "e"}
    assert b"secret" not in push.body


# -- who gets it


@pytest.mark.parametrize("option", [1, 2])
def test_who_does_not_want_to_be_disturbed_is_left_out(
    pushes: OfflinePushes, jpush: FakeJPush, database: Database[Document], option: int
) -> None:
    def mute(user: str, conversation_id: str) -> None:
        database["conversation"].insert_one(
            {"owner_user_id": user, "conversation_id": conversation_id, "recv_msg_opt": option}
        )

    mute("muted", "sg_g")
    mute("b", "si_a_b")
    mute("awake", "sg_other")
    database["user"].insert_many(
        [{"user_id": "asleep", "global_recv_msg_opt": option}, {"user_id": "awake", "global_recv_msg_opt": 0}]
    )

    pushes.add("a", ["muted", "awake", "asleep", "unknown"], group="g")
    pushes.add("a", ["b"])
    # The notices of a chat are as quiet as the chat.
    pushes.add_msg(make_notification("a", "b", stored=True), ["b"])
    pushes.run_until_idle()

    assert sorted(jpush.pushed_to) == ["awake", "unknown"]


def test_a_device_whose_time_is_over_is_not_pushed_to_and_users_without_one_are_counted(
    device_pushes: OfflinePushes, fcm: FakeFcm, database: Database[Document]
) -> None:
    add_token(database, "b", 1, "phone")
    add_token(database, "b", 2, "tablet")
    add_token(database, "c", 1, "old")
    database["device_token"].update_one({"token": "old"}, {"$set": {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}})
    counter = metrics.OFFLINE_PUSHES.labels("fcm", Outcome.NO_DEVICE)
    before = counter._value.get()

    device_pushes.add("a", ["b", "c", "d"], group="g")
    device_pushes.run_until_idle()

    assert sorted(fcm.pushed_to) == ["phone", "tablet"]
    assert counter._value.get() == before + 2


def test_the_badge_counts_each_message_once_however_often_it_is_tried(
    device_pushes: OfflinePushes, fcm: FakeFcm, database: Database[Document]
) -> None:
    add_token(database, "b", 1, "phone")

    def badges() -> list[int | None]:
        return [push.json["message"]["apns"]["payload"]["aps"].get("badge") for push in fcm.pushes]

    device_pushes.add("a", ["b"])
    device_pushes.run_until_idle()
    assert badges() == [None]

    fcm.answers = [fcm.broken, fcm.broken]
    device_pushes.add("a", ["b"], offlinePushInfo={"iOSBadgeCount": True})
    device_pushes.run_until_idle()
    assert badges() == [None, 1, 1, 1]

    device_pushes.client.set(keys.badge("b"), 7)
    device_pushes.add("a", ["b"], offlinePushInfo={"iOSBadgeCount": True})
    # What is pushed in one run, is pushed side by side.
    device_pushes.run_until_idle()
    device_pushes.add("a", ["b"])
    device_pushes.run_until_idle()
    assert badges()[4:] == [8, 8]


# -- how often


def test_a_message_that_comes_twice_is_pushed_once(pushes: OfflinePushes, jpush: FakeJPush) -> None:
    msg = make_msg("a", "b")
    pushes.add_msg(msg, ["b"])
    pushes.add_msg(msg, ["b", "b", "c"])
    pushes.run_until_idle()
    pushes.add_msg(msg, ["b", "c"])
    pushes.run_until_idle()

    assert sorted(jpush.pushed_to) == ["b", "c"]


def test_a_batch_whose_lease_is_lost_changes_nothing_and_its_next_run_pushes_nothing_twice(
    pushes: OfflinePushes, jpush: FakeJPush
) -> None:
    shard = pushes.add_msg(make_msg("a", "b"), ["b"])
    entries = read_log(pushes.client, keys.TO_OFFLINE_PUSH, shard)
    lease = Lease.acquire(pushes.client, "offline_push", shard)
    assert lease is not None
    pushes.client.set(lease.key, "somebody else")
    before = snapshot(pushes.client)

    with pytest.raises(LeaseLost):
        pushes.stage.process(lease, entries)

    changed = {key for key, value in snapshot(pushes.client).items() if before.get(key) != value}
    assert {key.decode().partition(":")[2].split(":")[0] for key in changed} == {"OFFLINE_PUSHED"}
    pushes.client.delete(lease.key)
    pushes.run_until_idle()
    assert jpush.pushed_to == ["b"]


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_call_that_is_under_way_when_its_worker_loses_the_shard_is_waited_for_by_the_next_one(
    pushes: OfflinePushes, jpush: FakeJPush, monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    monkeypatch.setattr(delivery, "MOST_REQUESTS", 5)
    # The vendor was made with a longer one.
    reconfigure(monkeypatch, lease_ms=8000, offline_push_timeout_seconds=1)
    called, answered = threading.Event(), threading.Event()

    def answer(_request: Request) -> Reply:
        called.set()
        answered.wait(20)
        return jpush.success if is_taken else jpush.broken

    jpush.answer = answer
    shard = pushes.add_msg(make_msg("a", "b"), ["b"])
    entries = read_log(pushes.client, keys.TO_OFFLINE_PUSH, shard)
    lease = Lease.acquire(pushes.client, "offline_push", shard)
    assert lease is not None
    with ThreadPoolExecutor() as threads:
        old = threads.submit(pushes.stage.process, lease, entries)
        assert called.wait(10)
        pushes.client.delete(lease.key)
        with pytest.raises(LeaseLost):
            old.result(20)

    # The next owner's run.
    run_stage(pushes.client, pushes.stage, shard)
    assert pushes.waiting() == 1
    jpush.answer = lambda _request: jpush.success
    answered.set()
    pushes.run_until_idle()

    assert jpush.pushed_to == ["b"] * (1 if is_taken else 2)


CHILD = """
import os, signal
from imserver import conf
from imserver.storage import clients, webhooks
from imserver.storage.clients import get_redis
from imserver.storage.offline_waits import PushMarks
from tasks.push.offline import OfflinePush
from tests.factories import run_stage

clients._MONGO_OPTIONS.update(serverSelectionTimeoutMS=20_000, connectTimeoutMS=20_000)
webhooks.PATIENCE_SECONDS = 20
mark = PushMarks.mark

async def mark_and_die(self, names, **options):
    await mark(self, names, **options)
    os.kill(os.getpid(), signal.SIGKILL)

if {dies_at_mark}:
    PushMarks.mark = mark_and_die
stage = OfflinePush()
run_stage(get_redis(), stage, {shard})
"""


@pytest.mark.parametrize("dies_at_mark", [True, False], ids=["between mark and call", "while the vendor answers"])
def test_a_worker_that_is_killed_pushes_at_most_once(
    pushes: OfflinePushes, jpush: FakeJPush, dies_at_mark: bool
) -> None:
    shard = pushes.add_msg(make_msg("a", "b"), ["b"])

    def hang(_request: Request) -> Reply | None:
        child.send_signal(signal.SIGKILL)
        return None

    jpush.answer = hang
    config = get_config()
    environ = {
        **os.environ,
        "KEY_PREFIX": config.key_prefix,
        "MONGO_DATABASE": config.mongo_database,
        "LEASE_MS": str(config.lease_ms),
        **{name.upper(): str(value) for name, value in jpush.settings.items()},
    }
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(dies_at_mark=dies_at_mark, shard=shard)], env=environ, cwd=BASE_DIR
    )
    assert child.wait(60) == -signal.SIGKILL
    assert len(jpush.pushes) == (0 if dies_at_mark else 1)

    # Its lease runs out; then somebody else comes.
    pushes.client.delete(keys.lease("offline_push", shard))
    jpush.answer = lambda _request: jpush.success
    pushes.add("a", ["b"], "the next one")
    pushes.run_until_idle()

    assert len(jpush.pushes) == (1 if dies_at_mark else 2)
    assert jpush.texts_of(jpush.pushes[-1])[1] == "the next one"


def test_of_several_devices_only_what_the_vendor_did_not_take_comes_again(
    device_pushes: OfflinePushes, fcm: FakeFcm, database: Database[Document]
) -> None:
    for platform in (1, 2, 5):
        add_token(database, "b", platform, f"device{platform}")
    failed: list[Request] = []

    def answer(request: Request) -> Reply:
        if fcm.targets_of(request) == ["device2"] and len(failed) < 3:
            failed.append(request)
            return fcm.broken
        return fcm.success

    fcm.answer = answer
    device_pushes.add("a", ["b"])
    device_pushes.run_until_idle()

    assert sorted(fcm.pushed_to) == ["device1", *["device2"] * 4, "device5"]


# -- what a failure holds up


def test_a_push_that_is_tried_again_holds_up_no_other(pushes: OfflinePushes, jpush: FakeJPush) -> None:
    jpush.answer = lambda request: jpush.broken if jpush.targets_of(request) == ["bad"] else jpush.success
    pushes.add("a", ["bad"], group="g")
    for number in range(20):
        pushes.add("a", [f"u{number}"], group="g")
    pushes.run()

    shard = shard_of("sg_g", SHARDS)
    assert [fields for _, fields in read_log(pushes.client, keys.TO_OFFLINE_PUSH, shard) if b"m" in fields] == []
    assert pushes.waiting() == 1
    assert len({*jpush.pushed_to} - {"bad"}) == 20

    jpush.answer = lambda _request: jpush.success
    pushes.run_until_idle()
    assert jpush.pushed_to[-1] == "bad"


def test_a_vendor_that_is_silent_costs_one_push_and_the_others_wait(
    database: Database[Document], redis_client: redis.Redis, jpush: FakeJPush, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconfigure(monkeypatch, offline_push_timeout_seconds=3, **jpush.settings)
    # Long enough that the others have looked before the next call may ask.
    monkeypatch.setattr(delivery, "BACKOFF_FIRST_SECONDS", 0.5)
    monkeypatch.setattr(delivery, "BACKOFF_MOST_SECONDS", 0.5)
    with OfflinePushes(redis_client) as pushes:
        pushes.add("a", ["first"])
        jpush.answer = lambda _request: None
        pushes.run()
        assert jpush.pushed_to == ["first"]
        for number in range(5):
            pushes.add("a", [f"u{number}"], group="g")
        pushes.run()
        silent = len(jpush.pushes)

        jpush.answer = lambda _request: jpush.success
        pushes.run_until_idle()

    # One call may have asked whether the vendor is back; what it was for is not repeated.
    assert silent <= 2
    assert len(set(jpush.pushed_to)) == len(jpush.pushed_to) == 6


def test_a_push_is_given_up_when_it_was_tried_long_enough(
    pushes: OfflinePushes, jpush: FakeJPush, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpush.answer = lambda _request: jpush.broken
    failed = metrics.OFFLINE_PUSHES_FAILED.labels("jpush")._value.get()

    def is_tried_again() -> bool:
        pushes.run()
        return len(jpush.pushes) > 2

    pushes.add("a", ["b", "c"], group="g")
    wait_until(is_tried_again, "it is tried again and again")
    assert pushes.waiting() == 1
    reconfigure(monkeypatch, offline_push_retry_minutes=0)
    pushes.run_until_idle()

    assert metrics.OFFLINE_PUSHES_FAILED.labels("jpush")._value.get() == failed + 2
    assert [fields for shard in range(SHARDS) for fields in read_log(pushes.client, keys.DEAD, shard)] == []


def given_up() -> float:
    count: float = metrics.OFFLINE_PUSHES.labels("jpush", "given up")._value.get()
    return count


def test_a_push_that_nobody_came_to_in_time_is_given_up_without_a_call(
    pushes: OfflinePushes, jpush: FakeJPush, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconfigure(monkeypatch, offline_push_retry_minutes=10)
    # Giving up takes no time of those that are called.
    monkeypatch.setattr(stage_module, "SLICE_SECONDS", 0.0)
    before = given_up()
    pushes.add_msg(make_msg("a", "b"), ["b", "c"], age_ms=11 * 60_000)
    pushes.add_msg(make_msg("a", "b"), ["d"], age_ms=9 * 60_000)
    pushes.run()

    assert given_up() == before + 2
    monkeypatch.setattr(stage_module, "SLICE_SECONDS", 30)
    pushes.run_until_idle()
    assert jpush.pushed_to == ["d"]


def test_a_push_that_waits_is_given_up_by_the_age_of_its_message(
    pushes: OfflinePushes, jpush: FakeJPush, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconfigure(monkeypatch, offline_push_retry_minutes=10)
    jpush.answer = lambda _request: jpush.broken
    before = given_up()
    pushes.add_msg(make_msg("a", "b"), ["b"], age_ms=9 * 60_000)
    pushes.run()
    assert (pushes.waiting(), given_up()) == (1, before)
    tried = len(jpush.pushes)

    reconfigure(monkeypatch, offline_push_retry_minutes=5)
    pushes.run_until_idle()

    assert given_up() == before + 1
    assert len(jpush.pushes) == tried


def test_nothing_waits_longer_than_it_is_worth_whatever_the_vendor_asks_for(
    pushes: OfflinePushes, jpush: FakeJPush, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconfigure(monkeypatch, offline_push_retry_minutes=10)
    jpush.answer = lambda _request: Reply(503, headers={"Retry-After": "3600"})
    shard = pushes.add_msg(make_msg("a", "b"), ["b"])
    pushes.run()

    waiting: Any = pushes.client.zrange(keys.offline_due(shard), 0, -1, withscores=True)
    ((_, due_ms),) = waiting
    assert due_ms <= now_ms() + 10 * 60_000


def test_where_nothing_is_tried_again_everything_is_tried_once(
    pushes: OfflinePushes, jpush: FakeJPush, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconfigure(monkeypatch, offline_push_retry_minutes=0)
    pushes.add_msg(make_msg("a", "b"), ["b"], age_ms=5_000)
    pushes.run()

    assert jpush.pushed_to == ["b"]


def test_what_does_not_get_its_turn_in_time_goes_on_in_the_next_batch(
    device_pushes: OfflinePushes, fcm: FakeFcm, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"m{number}" for number in range(40)]
    for user in users:
        add_token(database, user, 1, user)
    monkeypatch.setattr(delivery, "MOST_CALLS", 4)
    monkeypatch.setattr(stage_module, "SLICE_SECONDS", 0.0)
    device_pushes.add("a", users, group="g")
    device_pushes.run()
    assert fcm.pushes == []

    def answer(_request: Request) -> Reply:
        fcm.server.stopping.wait(0.1)
        return fcm.success

    fcm.answer = answer
    monkeypatch.setattr(stage_module, "SLICE_SECONDS", 0.3)
    device_pushes.run_until_idle()

    assert sorted(fcm.pushed_to) == sorted(users)


def test_without_a_vendor_nothing_is_pushed_and_nothing_stays(
    database: Database[Document], redis_client: redis.Redis
) -> None:
    with OfflinePushes(redis_client) as pushes:
        pushes.add("a", ["b"])
        pushes.run_until_idle()


@pytest.mark.parametrize(
    "change",
    [
        {"m": b"\xff"},
        {"u": b"nobody"},
        {"u": b"[1]"},
        {"u": b"{}"},
        {"s": b"x"},
        {"c": b"\xff"},
        {"m": None},
        {"u": None},
    ],
    ids=str,
)
def test_an_entry_that_is_none_becomes_a_dead_letter_with_all_its_fields(
    pushes: OfflinePushes, jpush: FakeJPush, change: dict[str, Any]
) -> None:
    fields: dict[str, Any] = {
        "c": "si_a_b",
        "s": 1,
        "m": make_msg("a", "b").SerializeToString(),
        "o": "op",
        "u": b'["b"]',
    }
    fields = {name: value for name, value in {**fields, **change}.items() if value is not None}
    shard = shard_of("si_a_b", SHARDS)
    pushes.client.xadd(keys.log(keys.TO_OFFLINE_PUSH, shard), fields)  # type: ignore[arg-type]
    run_stage(pushes.client, pushes.stage, shard)

    assert pushes.is_idle()
    assert jpush.pushes == []
    ((_, letter),) = read_log(pushes.client, keys.DEAD, shard)
    assert letter[b"origin"] == keys.TO_OFFLINE_PUSH.encode()
    assert letter[b"reason"].startswith(b"not an offline push")
    assert set(letter) == {b"origin", b"reason", *(name.encode() for name in fields)}


def test_nobody_to_push_to_is_done_at_once(pushes: OfflinePushes, jpush: FakeJPush) -> None:
    pushes.add_msg(make_msg("a", "b"), [])
    pushes.run()

    assert pushes.is_idle()
    assert jpush.pushes == []


def test_what_waits_is_stored_whole() -> None:
    job = Job("1-0", "si_a_b", b"\n\x00\xff", "op\n1", ["b", "ü"], is_decided=True, tries=2)

    assert Job.from_stored("1-0", job.to_stored()) == job


# -- the webhook


@pytest.fixture
def app() -> Iterator[AppServer]:
    with AppServer() as running:
        yield running


def switch_on(database: Database[Document], url: str, **settings: Any) -> None:
    document = {"command": HOOK, "url": url, "enable": True, "timeout": 5, **settings}
    database[webhooks.COLLECTION].replace_one({"command": HOOK}, document, upsert=True)
    webhooks.forget()


def agree(**changes: Any) -> HookReply:
    return HookReply(body={"actionCode": 0, "errCode": 0, "errMsg": "", "errDlt": "", "nextCode": 0, **changes})


def test_the_webhook_hears_of_the_push_and_may_change_receivers_and_texts(
    pushes: OfflinePushes, jpush: FakeJPush, database: Database[Document], app: AppServer
) -> None:
    switch_on(database, app.url)
    app.reply = lambda _call: agree(
        userIDList=["c", "a", "c", "d"], offlinePushInfo={"title": "New", "desc": "Text", "ex": "x"}
    )
    jpush.answers = [jpush.broken]

    msg = pushes.add("a", ["b"], offlinePushInfo={"title": "Old", "iOSBadgeCount": True}, senderPlatformID=2)
    pushes.run_until_idle()

    # A push that is tried again does not ask again. The sender is never among the receivers.
    (call,) = app.calls
    assert call.command == HOOK
    assert call.operation_id == "op1"
    assert call.body == {
        "callbackCommand": HOOK,
        "operationID": "op1",
        "platformID": 2,
        "platform": "Android",
        "userIDList": ["b"],
        "clientMsgID": msg.clientMsgID,
        "sendID": "a",
        "groupID": "",
        "contentType": 101,
        "sessionType": SessionType.SINGLE,
        "atUserIDList": None,
        "content": msg.content.decode(),
        "title": "Old",
        "desc": "",
        "ex": "",
        "iOSPushSound": "",
        "iOSBadgeCount": True,
        "signalInfo": "",
    }
    assert [sorted(jpush.targets_of(push)) for push in jpush.pushes] == [["c", "d"], ["c", "d"]]
    assert jpush.texts_of(jpush.pushes[0]) == ("New", "Text")


@pytest.mark.parametrize("answer", [{}, {"userIDList": None}, {"userIDList": []}, {"offlinePushInfo": None}], ids=str)
def test_an_answer_without_changes_changes_nothing(
    pushes: OfflinePushes, jpush: FakeJPush, database: Database[Document], app: AppServer, answer: dict[str, Any]
) -> None:
    switch_on(database, app.url)
    app.reply = lambda _call: agree(**answer)
    pushes.add("a", ["b"], offlinePushInfo={"title": "Old"})
    pushes.run_until_idle()

    assert jpush.pushed_to == ["b"]
    assert jpush.texts_of(jpush.pushes[0])[0] == "Old"


def test_the_webhook_may_forbid_a_push(
    pushes: OfflinePushes, jpush: FakeJPush, database: Database[Document], app: AppServer
) -> None:
    switch_on(database, app.url)
    app.reply = lambda _call: agree(nextCode=1, errCode=5001)
    pushes.add("a", ["b"])
    pushes.run_until_idle()

    assert len(app.calls) == 1
    assert jpush.pushes == []


def test_typing_and_content_types_that_the_webhook_does_not_want_are_pushed_without_it(
    pushes: OfflinePushes, jpush: FakeJPush, database: Database[Document], app: AppServer
) -> None:
    switch_on(database, app.url, denied_types=[102])
    pushes.add("a", ["b"], contentType=102)
    pushes.add("a", ["b"], contentType=113)
    pushes.run_until_idle()

    assert app.calls == []
    assert len(jpush.pushes) == 2


@pytest.mark.parametrize(
    "reply",
    [HookReply(500), HookReply(body=b"no JSON"), agree(userIDList="b"), agree(offlinePushInfo={"title": 5})],
    ids=["fault", "no JSON", "no list", "no text"],
)
def test_a_webhook_that_fails_is_asked_again_or_passed_over_as_it_is_set(
    pushes: OfflinePushes, jpush: FakeJPush, database: Database[Document], app: AppServer, reply: HookReply
) -> None:
    switch_on(database, app.url)
    app.reply = lambda _call: reply
    pushes.add("a", ["b"])
    pushes.run()
    assert (pushes.waiting(), jpush.pushes) == (1, [])

    app.reply = lambda _call: agree()
    pushes.run_until_idle()
    assert jpush.pushed_to == ["b"]

    switch_on(database, app.url, fail_open=True)
    app.reply = lambda _call: reply
    pushes.add("a", ["c"])
    pushes.run_until_idle()
    assert jpush.pushed_to == ["b", "c"]


def test_a_tick_wakes_what_is_due(pushes: OfflinePushes, jpush: FakeJPush) -> None:
    jpush.answers = [jpush.broken]
    shard = pushes.add_msg(make_msg("a", "b"), ["b"])
    run_stage(pushes.client, pushes.stage, shard)
    assert offline_waits.add_ticks(pushes.client, SHARDS) in (0, 1)

    pushes.run_until_idle()

    assert len(jpush.pushes) == 2
