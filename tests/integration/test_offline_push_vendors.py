"""Each push vendor against a real server that checks the request by the vendor's documented format.

The stage runs as in a worker, so what a failure leads to is seen too: a dead token is gone, a throttled push comes again
after the time the vendor asked for, a time-out is not repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pymongo.database import Database

from imserver import metrics
from imserver.conf import Config
from imserver.storage import clients, device_tokens, offline_waits
from imserver.storage.clients import Document
from imserver.vendors import getui
from imserver.vendors.base import Notice, Outcome, Target
from imserver.vendors.registry import create_vendor
from tasks.push import delivery
from tasks.push import offline as stage_module
from tests.factories import reconfigure, wait_until
from tests.offline_pushes import OfflinePushes, add_token
from tests.push_servers import Reply, Request
from tests.push_vendors import FAKES, FakeApns, FakeFcm, FakeGetui, FakeVendor

COLLECTION = device_tokens.COLLECTION


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "BACKOFF_FIRST_SECONDS", 0.02)
    monkeypatch.setattr(delivery, "BACKOFF_MOST_SECONDS", 0.05)
    # One run is to do all that is there.
    monkeypatch.setattr(stage_module, "SLICE_SECONDS", 30)
    monkeypatch.setattr(getui, "TOO_OFTEN_SECONDS", FakeGetui.wait_seconds)


@pytest.fixture
def database(config: Config) -> Database[Document]:
    """Without the indexes, which take longer than all else and are not what is shown here."""
    return clients.get_mongo()


@pytest.fixture(params=FAKES, ids=lambda kind: kind.name)
def vendor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeVendor]:
    fake: FakeVendor = request.param(tmp_path)
    with fake.server:
        yield fake
    assert fake.server.complaints == []


@pytest.fixture
def pushes(
    config: Config,
    redis_client: redis.Redis,
    database: Database[Document],
    vendor: FakeVendor,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[OfflinePushes]:
    reconfigure(monkeypatch, **vendor.settings)
    with OfflinePushes(redis_client) as running:
        yield running


def targets(database: Database[Document], vendor: FakeVendor, *user_ids: str) -> list[str]:
    """What the vendor is to be called with for these users, each with one device."""
    if not vendor.is_by_token:
        return list(user_ids)
    return [add_token(database, user_id, 1, f"token{user_id}") for user_id in user_ids]


def counted(vendor: FakeVendor, result: str) -> float:
    value: float = metrics.OFFLINE_PUSHES.labels(vendor.name, result)._value.get()
    return value


def test_a_push_has_the_documented_form_and_the_messages_texts(
    pushes: OfflinePushes, database: Database[Document], vendor: FakeVendor
) -> None:
    expected = targets(database, vendor, "b")
    before = counted(vendor, Outcome.OK)

    pushes.add(
        "a", ["b"], text="hello 漢字", senderNickname="Ann", offlinePushInfo={"ex": '{"k":1}', "iOSPushSound": "ding"}
    )
    pushes.run()

    (push,) = vendor.pushes
    assert vendor.server.complaints == []
    assert vendor.targets_of(push) == expected
    assert vendor.texts_of(push) == ("Ann", "hello 漢字")
    assert counted(vendor, Outcome.OK) == before + 1
    assert pushes.is_idle()


def test_many_users_of_a_message_are_pushed_in_as_few_calls_as_the_vendor_allows(
    pushes: OfflinePushes, database: Database[Document], vendor: FakeVendor
) -> None:
    users = [f"m{number}" for number in range(30)]
    expected = targets(database, vendor, *users)

    pushes.add("a", users, group="g")
    pushes.run_until_idle()

    assert vendor.server.complaints == []
    assert sorted(vendor.pushed_to) == sorted(expected)
    assert len(vendor.pushes) == (30 if vendor.is_by_token else 1)


def test_an_unknown_device_is_not_tried_again_and_its_token_is_removed(
    pushes: OfflinePushes, database: Database[Document], vendor: FakeVendor
) -> None:
    targets(database, vendor, "b")
    vendor.answers = [vendor.invalid]

    pushes.add("a", ["b"])
    pushes.run_until_idle()

    assert len(vendor.pushes) == 1
    assert database[COLLECTION].count_documents({}) == 0


def test_a_throttled_push_comes_again_after_the_time_that_the_vendor_asks_for(
    pushes: OfflinePushes, database: Database[Document], vendor: FakeVendor
) -> None:
    expected = targets(database, vendor, "b")
    vendor.answers = [vendor.throttled]

    pushes.add("a", ["b"])
    pushes.run()
    assert pushes.waiting() == 1
    pushes.run_until_idle()

    first, second = vendor.pushes
    assert second.at - first.at >= vendor.wait_seconds
    assert vendor.pushed_to == expected * 2


def test_a_push_comes_again_after_a_fault_of_the_vendor(
    pushes: OfflinePushes, database: Database[Document], vendor: FakeVendor
) -> None:
    expected = targets(database, vendor, "b")
    vendor.answers = [vendor.broken, vendor.broken]

    pushes.add("a", ["b"])
    pushes.run_until_idle()

    assert vendor.pushed_to == expected * 3


def test_a_time_out_may_have_been_taken_and_is_not_repeated(
    pushes: OfflinePushes, database: Database[Document], vendor: FakeVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets(database, vendor, "b")
    before = counted(vendor, Outcome.UNKNOWN)
    vendor.answers = [None]

    reconfigure(monkeypatch, offline_push_timeout_seconds=1)
    with OfflinePushes(pushes.client) as impatient:
        impatient.add("a", ["b"])
        impatient.run_until_idle()

    # It may be given up before it left.
    assert len(vendor.pushes) <= 1
    assert counted(vendor, Outcome.UNKNOWN) == before + 1


def test_a_vendor_that_cannot_be_reached_is_tried_again(
    pushes: OfflinePushes, database: Database[Document], vendor: FakeVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = targets(database, vendor, "b")
    url = next(name for name in vendor.settings if name.endswith("_url"))
    address = vendor.settings[url]
    reconfigure(monkeypatch, **{url: address.replace(str(address.split(":")[2].split("/")[0]), "1", 1)})
    with OfflinePushes(pushes.client) as unreachable:
        unreachable.add("a", ["b"])
        unreachable.run()
        assert unreachable.waiting() == 1

    pushes.run_until_idle()

    assert vendor.pushed_to == expected


def test_what_the_vendor_refuses_is_not_tried_again(
    pushes: OfflinePushes, database: Database[Document], vendor: FakeVendor
) -> None:
    targets(database, vendor, "b")
    vendor.answers = [Reply(403, {})]
    before = counted(vendor, Outcome.REFUSED)
    failed = metrics.OFFLINE_PUSHES_FAILED.labels(vendor.name)._value.get()

    pushes.add("a", ["b"])
    pushes.run_until_idle()

    assert len(vendor.pushes) == 1
    assert counted(vendor, Outcome.REFUSED) == before + 1
    assert metrics.OFFLINE_PUSHES_FAILED.labels(vendor.name)._value.get() == failed + 1
    # Wrong credentials say nothing about the device.
    assert database[COLLECTION].count_documents({}) == (1 if vendor.is_by_token else 0)


# -- what only one of them has


@pytest.fixture
def fcm(tmp_path: Path) -> Iterator[FakeFcm]:
    fake = FakeFcm(tmp_path)
    with fake.server:
        yield fake


async def push_directly(config: Config, *names: str) -> list[Any]:
    vendor = create_vendor(config)
    assert vendor is not None
    try:
        return [(await vendor.push(Notice("t", "d", "m"), [Target("b", 1, name)]))[0] for name in names]
    finally:
        await vendor.close()


async def test_fcm_asks_for_an_access_token_once_and_again_when_it_is_refused(
    config: Config, fcm: FakeFcm, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcm.answers = [fcm.success, fcm.success, Reply(401, {"error": {"status": "UNAUTHENTICATED"}}), fcm.success]

    results = await push_directly(reconfigure(monkeypatch, **fcm.settings), *"abcd")

    assert [result.outcome for result in results] == [Outcome.OK, Outcome.OK, Outcome.RETRY, Outcome.OK]
    assert [request.path for request in fcm.server.requests].count("/token") == 2


async def test_an_fcm_token_service_that_does_not_answer_loses_no_push(
    config: Config, fcm: FakeFcm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Request) -> Reply | None:
        return None if request.path == "/token" else Reply(599)

    fcm.server.answer = answer
    changed = reconfigure(monkeypatch, offline_push_timeout_seconds=1, **fcm.settings)

    (result,) = await push_directly(changed, "a")

    assert result.outcome is Outcome.RETRY
    assert result.is_down


async def test_an_fcm_message_that_is_wrong_only_in_its_token_condemns_the_token_and_no_other_one(
    config: Config, fcm: FakeFcm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad(field: str) -> Reply:
        violation = {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": field, "description": "…"}],
        }
        code = {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "INVALID_ARGUMENT"}
        return Reply(400, {"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [code, violation]}})

    mismatch = FakeFcm._error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH")
    fcm.answers = [bad("message.token"), bad("message.data[0].value"), mismatch]

    results = await push_directly(reconfigure(monkeypatch, **fcm.settings), *"abc")

    assert [result.outcome for result in results] == [Outcome.INVALID, Outcome.REFUSED, Outcome.REFUSED]


async def test_apns_signs_anew_when_its_provider_token_is_too_old_and_keeps_one_connection(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeApns(tmp_path)
    fake.answers = [
        Reply(403, {"reason": "ExpiredProviderToken"}),
        fake.success,
        Reply(400, {"reason": "BadDeviceToken"}),
    ]
    with fake.server:
        results = await push_directly(reconfigure(monkeypatch, **fake.settings), *"abc")

    assert [result.outcome for result in results] == [Outcome.RETRY, Outcome.OK, Outcome.INVALID]
    old, new, same = [request.headers["authorization"] for request in fake.server.requests]
    assert old != new == same


async def test_apns_whose_certificate_nobody_vouches_for_is_not_pushed_to(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeApns(tmp_path)
    with fake.server:
        changed = reconfigure(monkeypatch, **{**fake.settings, "offline_push_ca_file": ""})
        (result,) = await push_directly(changed, "a")

    assert result.outcome is Outcome.RETRY
    assert fake.server.requests == []


async def test_getui_replaces_a_token_that_the_vendor_no_longer_takes_at_once(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeGetui(tmp_path)
    fake.answers = [Reply(401, {"code": 10001, "msg": "token is invalid"}), fake.success]
    with fake.server:
        (result,) = await push_directly(reconfigure(monkeypatch, **fake.settings), "a")

    assert result.outcome is Outcome.OK
    assert [request.path for request in fake.server.requests].count("/v2/appid/auth") == 2


def test_the_dummy_takes_everything(
    config: Config, redis_client: redis.Redis, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    reconfigure(monkeypatch, offline_push_vendor="dummy")
    with OfflinePushes(redis_client) as pushes:
        pushes.add("a", ["b", "c"])
        pushes.run()
        wait_until(pushes.is_idle, "it is done")
    assert offline_waits.count_waiting(redis_client, 16) == 0
