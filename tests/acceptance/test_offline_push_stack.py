"""From the app's device token to the vendor's call, through real processes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from imserver.conf import BASE_DIR
from imserver.devservices.servers import EmbeddedServers
from imserver.protocol.conversations import shard_of
from tests.client import ANSWER_SECONDS, Api
from tests.factories import make_msg
from tests.offline_pushes import add_token
from tests.push_vendors import FakeFcm
from tests.stack import Stack, wait_until

pytestmark = pytest.mark.acceptance

PASSWORD = "not-a-common-one-7"


@pytest.fixture(scope="module")
def fcm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFcm]:
    fake = FakeFcm(tmp_path_factory.mktemp("fcm"))
    with fake.server:
        yield fake
    assert fake.server.complaints == []


@pytest.fixture(scope="module")
def push_stack(servers: EmbeddedServers, fcm: FakeFcm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings: Any = {name.upper(): str(value) for name, value in fcm.settings.items()}
    with Stack(servers, tmp_path_factory.mktemp("stack"), **settings) as running:
        yield running


@pytest.fixture
async def app(push_stack: Stack) -> AsyncIterator[Api]:
    async with Api(push_stack.web_url) as running:
        yield running


async def register(app: Api, *user_ids: str) -> None:
    await app.call("/user/user_register", {"users": [{"userID": user_id, "nickname": "N"} for user_id in user_ids]})


def token_body(user_id: str, token: str, **more: Any) -> dict[str, Any]:
    return {"platformID": 1, "fcmToken": token, "account": user_id, "expireTime": 0, **more}


def stored(stack: Stack) -> dict[tuple[str, int], str]:
    return {(item["user_id"], item["platform_id"]): item["token"] for item in stack.database["device_token"].find()}


async def test_a_registered_device_is_pushed_to_by_the_worker_and_forgotten_when_it_is_dead(
    push_stack: Stack, app: Api, fcm: FakeFcm, names: Iterator[str]
) -> None:
    sender, receiver = next(names), next(names)
    await register(app, sender, receiver)
    await app.call("/third/fcm_update_token", token_body(receiver, f"device-of-{receiver}"))
    await app.call("/third/set_app_badge", {"userID": receiver, "appUnreadCount": 4})

    def push(text: str) -> None:
        msg = make_msg(sender, receiver, text)
        msg.offlinePushInfo.iOSBadgeCount = True
        conversation_id = f"si_{'_'.join(sorted((sender, receiver)))}"
        entry: Any = {
            "c": conversation_id,
            "s": 1,
            "m": msg.SerializeToString(),
            "o": "op",
            "u": orjson.dumps([receiver]),
        }
        push_stack.redis.xadd(f"{push_stack.prefix}log:toOfflinePush:{{{shard_of(conversation_id, 16):02d}}}", entry)

    push("first")
    wait_until(lambda: len(fcm.pushes) == 1, "the first push")
    assert fcm.pushed_to == [f"device-of-{receiver}"]
    assert fcm.texts_of(fcm.pushes[0])[1] == "first"
    assert fcm.pushes[0].json["message"]["apns"]["payload"]["aps"]["badge"] == 5

    # Throttled, then dead: the worker comes back by itself after the time the vendor asked for.
    fcm.answers = [fcm.throttled, fcm.invalid]
    push("second")
    wait_until(lambda: len(fcm.pushes) == 3, "the repeated push")
    wait_until(lambda: stored(push_stack) == {}, "the token to be removed")
    assert fcm.pushes[2].at - fcm.pushes[1].at >= 1
    assert f"device-of-{receiver}" not in push_stack.log("worker0")
    # It is counted after the token was removed.
    counted = re.compile(r'im_offline_push_total\{result="invalid token",vendor="fcm"\} 1\.0')
    wait_until(
        lambda: counted.search(httpx.get(f"{push_stack.web_url}/metrics", timeout=ANSWER_SECONDS).text),
        "the invalid token to be counted",
    )


async def test_a_token_belongs_to_one_user_and_a_user_has_one_a_platform(
    push_stack: Stack, app: Api, names: Iterator[str]
) -> None:
    first, second = next(names), next(names)
    await register(app, first, second)
    await app.call("/third/fcm_update_token", token_body(first, "one"))
    await app.call("/third/fcm_update_token", token_body(first, "two"))
    await app.call("/third/fcm_update_token", token_body(first, "two"))
    await app.call("/third/fcm_update_token", token_body(first, "three", platformID=2))
    assert stored(push_stack) == {(first, 1): "two", (first, 2): "three"}

    await app.call("/third/fcm_update_token", token_body(second, "two", expireTime=3600))

    assert stored(push_stack) == {(first, 2): "three", (second, 1): "two"}
    found = push_stack.database["device_token"].find_one({"user_id": second})
    assert found is not None
    left = found["expires_at"].replace(tzinfo=UTC) - datetime.now(UTC)
    assert 3500 < left.total_seconds() <= 3600
    push_stack.database["device_token"].delete_many({})


async def test_a_token_lives_for_ten_years_at_the_most(push_stack: Stack, app: Api, names: Iterator[str]) -> None:
    user = next(names)
    await register(app, user)

    await app.call("/third/fcm_update_token", token_body(user, "t", expireTime=2**62))

    found = push_stack.database["device_token"].find_one({"user_id": user})
    assert found is not None
    left = found["expires_at"].replace(tzinfo=UTC) - datetime.now(UTC)
    assert 3649 <= left.days < 3650
    push_stack.database["device_token"].delete_many({})


async def test_wrong_tokens_and_badges_are_refused_and_change_nothing(
    push_stack: Stack, app: Api, names: Iterator[str]
) -> None:
    user, other = next(names), next(names)
    await register(app, user, other)
    own = {"token": await app.token(user, 1)}
    wrong = [
        token_body(user, ""),
        token_body(user, "x" * 4097),
        token_body(user, "a b"),
        token_body(user, "a\u0000"),
        token_body(user, "t", platformID=0),
        token_body(user, "t", platformID=12),
        token_body(user, "t", expireTime=-1),
        token_body(user, "t", expireTime="soon"),
    ]

    async with httpx.AsyncClient(
        base_url=push_stack.web_url, timeout=ANSWER_SECONDS, headers={"operationID": "op", **own}
    ) as client:

        async def code(path: str, body: dict[str, Any]) -> int:
            answer: int = (await client.post(path, json=body)).json()["errCode"]
            return answer

        assert [await code("/third/fcm_update_token", body) for body in wrong] == [1001] * len(wrong)
        assert await code("/third/fcm_update_token", token_body(other, "t")) == 1002
        assert await code("/third/set_app_badge", {"userID": user, "appUnreadCount": -1}) == 1001
        assert await code("/third/set_app_badge", {"userID": other, "appUnreadCount": 1}) == 1002
    assert (await app.post("/third/fcm_update_token", token_body("nobody_there", "t")))["errCode"] == 1101
    assert (await app.post("/third/set_app_badge", {"userID": "nobody_there", "appUnreadCount": 1}))["errCode"] == 1101

    assert stored(push_stack) == {}
    assert push_stack.redis.get(f"{push_stack.prefix}BADGE:{user}") is None


async def test_log_files_of_clients_are_noted_found_and_removed(
    push_stack: Stack, app: Api, names: Iterator[str]
) -> None:
    user = next(names)
    await register(app, user)
    headers = {"operationID": "op", "token": await app.token(user, 2)}
    files = [{"filename": "a.log", "URL": "http://f/a"}, {"filename": "b.log", "URL": "http://f/b"}]
    body = {"platform": 2, "fileURLs": files, "appFramework": "flutter", "version": "3.8", "ex": "e"}
    page = {"pageNumber": 1, "showNumber": 10}

    async def search(**wanted: Any) -> tuple[int, list[dict[str, Any]]]:
        data = await app.call("/third/logs/search", {"pagination": page, "keyword": user, **wanted})
        return data["total"], data["logsInfos"]

    async with httpx.AsyncClient(base_url=push_stack.web_url, timeout=ANSWER_SECONDS, headers=headers) as client:

        async def code(path: str, body: dict[str, Any]) -> int:
            answer: int = (await client.post(path, json=body)).json()["errCode"]
            return answer

        wrong: list[dict[str, Any]] = [
            {"platform": 0},
            {"fileURLs": []},
            {"fileURLs": [{"filename": "x"}]},
            {"ex": "x" * 2049},
        ]
        assert [await code("/third/logs/upload", {**body, **change}) for change in wrong] == [1001] * len(wrong)
        assert await search() == (0, [])
        assert await code("/third/logs/upload", body) == 0
        assert await code("/third/logs/search", {"pagination": page}) == 1002
        assert await code("/third/logs/delete", {"logIDs": ["x"]}) == 1002

    total, found = await search()
    assert total == 2
    assert sorted(item["filename"] for item in found) == ["a.log", "b.log"]
    first = next(item for item in found if item["filename"] == "a.log")
    assert {name: first[name] for name in ("userID", "platform", "url", "nickname", "systemType", "version", "ex")} == {
        "userID": user,
        "platform": "Android",
        "url": "http://f/a",
        "nickname": "N",
        "systemType": "flutter",
        "version": "3.8",
        "ex": "e",
    }
    assert (await search(keyword=".*"))[0] == 0
    assert (await search(endTime=first["createTime"] - 1))[0] == 0
    assert (await app.post("/third/logs/search", {"pagination": page, "startTime": 2, "endTime": 1}))["errCode"] == 1001
    assert (await app.post("/third/logs/search", {}))["errCode"] == 1001

    assert (await app.post("/third/logs/delete", {"logIDs": [first["logID"], "unknown"]}))["errCode"] == 1004
    assert (await search())[0] == 2
    await app.call("/third/logs/delete", {"logIDs": [item["logID"] for item in found]})
    assert await search() == (0, [])


def test_the_admin_lists_devices_without_their_tokens(push_stack: Stack, names: Iterator[str]) -> None:
    user = next(names)
    add_token(push_stack.database, user, 1, "very-secret-token")
    command = [sys.executable, "manage.py", "createsuperuser", "--noinput", "--username", "op", "--email", "op@x.org"]
    environ = {**push_stack.environ, "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    subprocess.run(command, env=environ, cwd=BASE_DIR, check=True, capture_output=True)

    with httpx.Client(base_url=push_stack.web_url, timeout=ANSWER_SECONDS, follow_redirects=True) as browser:
        browser.get("/admin/login/")
        form = {"csrfmiddlewaretoken": browser.cookies["csrftoken"], "username": "op", "password": PASSWORD}
        browser.post("/admin/login/?next=/admin/", data=form, headers={"Referer": push_stack.web_url})
        listed = browser.get("/admin/imserver/devicetoken/", params={"q": user})
        link = re.search(r'href="(/admin/imserver/devicetoken/[^"]+/change/[^"]*)"', listed.text)
        assert link is not None
        shown = browser.get(link.group(1))

    assert listed.status_code == shown.status_code == 200
    assert user in listed.text
    assert "IOS" in listed.text
    assert "very-secret-token" not in listed.text + shown.text
    push_stack.database["device_token"].delete_many({})


def test_checkconfig_names_what_a_vendor_lacks(tmp_path: Path) -> None:
    def check(**settings: str) -> str:
        command = [sys.executable, "manage.py", "checkconfig"]
        environ = {"PATH": "/usr/bin:/bin", **settings}
        done = subprocess.run(command, env=environ, cwd=BASE_DIR, capture_output=True, text=True, check=False)
        return done.stderr if done.returncode else ""

    key = tmp_path / "key.p8"
    key.write_text("no key", encoding="utf-8")

    assert "missing APNS_KEY, APNS_KEY_ID, APNS_TEAM_ID" in check(OFFLINE_PUSH_VENDOR="apns", APNS_TOPIC="org.x")
    assert "missing JPUSH_MASTER_SECRET" in check(OFFLINE_PUSH_VENDOR="jpush", JPUSH_APP_KEY="k")
    assert "expected one of" in check(OFFLINE_PUSH_VENDOR="pigeon")
    assert "FCM_SERVICE_ACCOUNT: expected the JSON" in check(OFFLINE_PUSH_VENDOR="fcm", FCM_SERVICE_ACCOUNT="{}")
    whole = {"APNS_KEY_ID": "k", "APNS_TEAM_ID": "t", "APNS_TOPIC": "org.x"}
    assert "APNS_KEY: expected the text" in check(OFFLINE_PUSH_VENDOR="apns", APNS_KEY_FILE=str(key), **whole)
