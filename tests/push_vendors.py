"""Each push vendor as tests play it: settings, what its documentation says a request looks like, and its answers."""

from __future__ import annotations

import base64
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.push_servers import Http1Server, Http2Server, PushServer, Reply, Request

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
#: Seconds that a throttling vendor asks to wait.
WAIT_SECONDS = 1


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def exactly(values: dict[str, Any], *names: str) -> None:
    """The object has these members and no other: vendors refuse what they do not know."""
    assert set(values) == set(names), sorted(values)


class FakeVendor(ABC):
    """``answers`` are given to the pushes in turn; when there are none left, success."""

    name: ClassVar[str]
    is_by_token: ClassVar[bool] = False
    #: Seconds that it asks to wait when it throttles: by a header, or by a rule of its documentation.
    wait_seconds: ClassVar[float] = WAIT_SECONDS

    def __init__(self, folder: Path) -> None:
        self.answers: list[Reply | None] = []
        #: What stands in place of ``answers``, by request.
        self.answer: Callable[[Request], Reply | None] = self._next_answer
        self.server: PushServer = self._make_server(folder)

    def _make_server(self, _folder: Path) -> PushServer:
        return Http1Server(self.handle)

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]: ...

    @abstractmethod
    def targets_of(self, request: Request) -> list[str]:
        """Device tokens or users of a push."""

    @abstractmethod
    def check(self, request: Request) -> Reply | None:
        """Check by the vendor's documentation; the answer of a request that is no push."""

    @property
    @abstractmethod
    def success(self) -> Reply: ...

    @property
    @abstractmethod
    def invalid(self) -> Reply:
        """The token or the user is not known."""

    @property
    @abstractmethod
    def throttled(self) -> Reply: ...

    @property
    @abstractmethod
    def broken(self) -> Reply: ...

    @abstractmethod
    def texts_of(self, request: Request) -> tuple[str, str]:
        """Title and description that a device shows."""

    def handle(self, request: Request) -> Reply | None:
        reply = self.check(request)
        return reply if reply is not None else self.answer(request)

    def _next_answer(self, _request: Request) -> Reply | None:
        return self.answers.pop(0) if self.answers else self.success

    @property
    def pushes(self) -> list[Request]:
        return [request for request in list(self.server.requests) if self.is_push(request)]

    def is_push(self, _request: Request) -> bool:
        return True

    @property
    def pushed_to(self) -> list[str]:
        return [target for request in self.pushes for target in self.targets_of(request)]


class FakeFcm(FakeVendor):
    name = "fcm"
    is_by_token = True

    @property
    def settings(self) -> dict[str, Any]:
        account = {
            "type": "service_account",
            "project_id": "chat-1",
            "private_key_id": "kid-1",
            "private_key": pem(RSA_KEY),
            "client_email": "push@chat-1.iam.gserviceaccount.com",
            "token_uri": f"{self.server.url}/token",
        }
        return {
            "offline_push_vendor": "fcm",
            "fcm_service_account": orjson.dumps(account).decode(),
            "fcm_url": self.server.url,
        }

    def is_push(self, request: Request) -> bool:
        return request.path != "/token"

    def check(self, request: Request) -> Reply | None:
        if request.path == "/token":
            form = parse_qs(request.body.decode(), strict_parsing=True)
            assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
            url = f"{self.server.url}/token"
            claims = jwt.decode(form["assertion"][0], RSA_KEY.public_key(), algorithms=["RS256"], audience=url)
            assert claims["iss"] == "push@chat-1.iam.gserviceaccount.com"
            assert claims["scope"] == "https://www.googleapis.com/auth/firebase.messaging"
            assert 0 < claims["exp"] - claims["iat"] <= 3600
            assert jwt.get_unverified_header(form["assertion"][0])["kid"] == "kid-1"
            return Reply(body={"access_token": "ya29.token", "expires_in": 3599, "token_type": "Bearer"})
        assert request.path == "/v1/projects/chat-1/messages:send"
        assert request.headers["authorization"] == "Bearer ya29.token"
        assert request.headers["content-type"].startswith("application/json")
        exactly(request.json, "message")
        message = request.json["message"]
        exactly(message, "token", "notification", "data", "android", "apns")
        exactly(message["notification"], "title", "body")
        assert all(isinstance(value, str) for value in message["data"].values())
        assert message["android"]["priority"] in ("NORMAL", "HIGH")
        assert set(message["apns"]["payload"]["aps"]) <= {"sound", "badge"}
        return None

    def targets_of(self, request: Request) -> list[str]:
        return [request.json["message"]["token"]]

    def texts_of(self, request: Request) -> tuple[str, str]:
        shown = request.json["message"]["notification"]
        return shown["title"], shown["body"]

    @staticmethod
    def _error(status: int, name: str, code: str, headers: dict[str, str] | None = None) -> Reply:
        details = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}]
        return Reply(
            status, {"error": {"code": status, "message": "…", "status": name, "details": details}}, headers or {}
        )

    @property
    def success(self) -> Reply:
        return Reply(body={"name": "projects/chat-1/messages/0:1500415314455276%31bd1c9631bd1c96"})

    @property
    def invalid(self) -> Reply:
        return self._error(404, "NOT_FOUND", "UNREGISTERED")

    @property
    def throttled(self) -> Reply:
        return self._error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", {"Retry-After": str(WAIT_SECONDS)})

    @property
    def broken(self) -> Reply:
        return self._error(503, "UNAVAILABLE", "UNAVAILABLE")


class FakeApns(FakeVendor):
    name = "apns"
    is_by_token = True

    def _make_server(self, folder: Path) -> PushServer:
        return Http2Server(self.handle, folder)

    @property
    def settings(self) -> dict[str, Any]:
        assert isinstance(self.server, Http2Server)
        return {
            "offline_push_vendor": "apns",
            "apns_key": pem(EC_KEY),
            "apns_key_id": "KEY1234567",
            "apns_team_id": "TEAM123456",
            "apns_topic": "org.example.chat",
            "apns_url": self.server.url,
            "offline_push_ca_file": str(self.server.ca_file),
        }

    def check(self, request: Request) -> Reply | None:
        assert request.protocol == "HTTP/2"
        assert request.method == "POST"
        assert request.path.startswith("/3/device/")
        kind, _, token = request.headers["authorization"].partition(" ")
        assert kind == "bearer"
        head = jwt.get_unverified_header(token)
        assert (head["alg"], head["kid"]) == ("ES256", "KEY1234567")
        claims = jwt.decode(token, EC_KEY.public_key(), algorithms=["ES256"])
        assert claims["iss"] == "TEAM123456"
        assert time.time() - claims["iat"] < 3600
        assert request.headers["apns-topic"] == "org.example.chat"
        assert request.headers["apns-push-type"] == "alert"
        assert request.headers["apns-priority"] in ("5", "10")
        assert int(request.headers["apns-expiration"]) > time.time()
        assert len(request.body) <= 4096
        aps = request.json["aps"]
        assert set(aps) <= {"alert", "badge", "sound", "mutable-content"}
        exactly(aps["alert"], "title", "body")
        return None

    def targets_of(self, request: Request) -> list[str]:
        return [request.path.removeprefix("/3/device/")]

    def texts_of(self, request: Request) -> tuple[str, str]:
        alert = request.json["aps"]["alert"]
        return alert["title"], alert["body"]

    @property
    def success(self) -> Reply:
        return Reply(headers={"apns-id": "eabeae54-14a8-11e5-b60b-1697f925ec7b"})

    @property
    def invalid(self) -> Reply:
        return Reply(410, {"reason": "Unregistered", "timestamp": int(time.time() * 1000)})

    @property
    def throttled(self) -> Reply:
        return Reply(429, {"reason": "TooManyRequests"}, {"Retry-After": str(WAIT_SECONDS)})

    @property
    def broken(self) -> Reply:
        return Reply(503, {"reason": "ServiceUnavailable"})


class FakeJPush(FakeVendor):
    name = "jpush"

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "offline_push_vendor": "jpush",
            "jpush_app_key": "7d431e42dfa6",
            "jpush_master_secret": "e0309053730c",
            "jpush_url": self.server.url,
        }

    def check(self, request: Request) -> Reply | None:
        assert request.path == "/v3/push"
        assert request.headers["authorization"] == "Basic " + base64.b64encode(b"7d431e42dfa6:e0309053730c").decode()
        assert request.headers["content-type"] == "application/json"
        exactly(request.json, "platform", "audience", "notification", "options")
        exactly(request.json["audience"], "alias")
        assert 1 <= len(request.json["audience"]["alias"]) <= 1000
        exactly(request.json["notification"], "alert", "android", "ios")
        exactly(request.json["notification"]["android"], "alert", "title", "extras")
        exactly(request.json["notification"]["ios"], "alert", "sound", "badge", "mutable-content", "extras")
        exactly(request.json["options"], "time_to_live", "apns_production")
        return None

    def targets_of(self, request: Request) -> list[str]:
        return list(request.json["audience"]["alias"])

    def texts_of(self, request: Request) -> tuple[str, str]:
        android = request.json["notification"]["android"]
        return android["title"], android["alert"]

    @property
    def success(self) -> Reply:
        return Reply(body={"sendno": "0", "msg_id": "1828256757"})

    @property
    def invalid(self) -> Reply:
        return Reply(400, {"error": {"code": 1011, "message": "cannot find user by this audience"}})

    @property
    def throttled(self) -> Reply:
        headers = {"X-Rate-Limit-Limit": "600", "X-Rate-Limit-Remaining": "0", "X-Rate-Limit-Reset": str(WAIT_SECONDS)}
        return Reply(429, {"error": {"code": 2002, "message": "Rate limit exceeded"}}, headers)

    @property
    def broken(self) -> Reply:
        return Reply(500, {"error": {"code": 1000, "message": "Server error"}})


class FakeGetui(FakeVendor):
    name = "getui"
    #: Its documentation names no header, only "per minute"; tests shorten the minute.
    wait_seconds = 0.3

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "offline_push_vendor": "getui",
            "getui_app_id": "appid",
            "getui_app_key": "appkey",
            "getui_master_secret": "master",
            "getui_url": f"{self.server.url}/v2",
        }

    def is_push(self, request: Request) -> bool:
        return request.path in ("/v2/appid/push/single/alias", "/v2/appid/push/list/alias")

    def check(self, request: Request) -> Reply | None:
        assert request.headers["content-type"].startswith("application/json")
        body = request.json
        if request.path == "/v2/appid/auth":
            exactly(body, "sign", "timestamp", "appkey")
            stamp = body["timestamp"]
            assert body["sign"] == hashlib.sha256(f"appkey{stamp}master".encode()).hexdigest()
            assert abs(int(stamp) / 1000 - time.time()) < 600
            expires = str(int(time.time() * 1000) + 86_400_000)
            return self._ok({"expire_time": expires, "token": "getui-token"})
        assert request.headers["token"] == "getui-token"
        if request.path == "/v2/appid/push/list/message":
            exactly(body, "settings", "push_message", "push_channel")
            self._check_message(body)
            return self._ok({"taskid": "RASL_1"})
        if request.path == "/v2/appid/push/list/alias":
            exactly(body, "audience", "taskid", "is_async")
            assert body["taskid"] == "RASL_1"
            assert 1 <= len(body["audience"]["alias"]) <= 1000
            return None
        assert request.path == "/v2/appid/push/single/alias"
        exactly(body, "request_id", "audience", "settings", "push_message", "push_channel")
        assert 10 <= len(body["request_id"]) <= 32
        assert len(body["audience"]["alias"]) == 1
        self._check_message(body)
        return None

    @staticmethod
    def _check_message(body: dict[str, Any]) -> None:
        shown = body["push_message"]["notification"]
        assert shown["click_type"] in ("startapp", "payload")
        assert ("payload" in shown) == (shown["click_type"] == "payload")
        assert shown["title"]
        assert shown["body"]
        exactly(body["push_channel"], "ios", "android")
        assert body["push_channel"]["ios"]["type"] == "notify"

    def targets_of(self, request: Request) -> list[str]:
        return list(request.json["audience"]["alias"])

    def texts_of(self, request: Request) -> tuple[str, str]:
        shown = request.json["push_message"]["notification"]
        return shown["title"], shown["body"]

    @staticmethod
    def _ok(data: dict[str, Any]) -> Reply:
        return Reply(body={"code": 0, "msg": "success", "data": data})

    @property
    def success(self) -> Reply:
        return self._ok({"RASS_1": {"cid": "successed_offline"}})

    @property
    def invalid(self) -> Reply:
        return Reply(400, {"code": 20001, "msg": "target user is invalid"})

    @property
    def throttled(self) -> Reply:
        return Reply(401, {"code": 10005, "msg": "request frequency over limit"})

    @property
    def broken(self) -> Reply:
        return Reply(502, b"<html>bad gateway</html>")


class FakeXiaomi(FakeVendor):
    name = "xiaomi"

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "offline_push_vendor": "xiaomi",
            "xiaomi_app_secret": "secret",
            "xiaomi_package": "org.example.chat",
            "xiaomi_url": self.server.url,
        }

    @staticmethod
    def form_of(request: Request) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(request.body.decode(), keep_blank_values=True).items()}

    def check(self, request: Request) -> Reply | None:
        assert request.path == "/v3/message/alias"
        assert request.headers["authorization"] == "key=secret"
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        form = self.form_of(request)
        assert 1 <= len(form["alias"].split(",")) <= 1000
        assert form["restricted_package_name"] == "org.example.chat"
        assert form["pass_through"] == "0"
        assert 0 < len(form["title"]) < 50
        assert 0 < len(form["description"]) < 128
        assert int(form["time_to_live"]) > 0
        assert 0 <= int(form["notify_id"]) < 2**31
        assert isinstance(form["payload"], str)
        return None

    def targets_of(self, request: Request) -> list[str]:
        return self.form_of(request)["alias"].split(",")

    def texts_of(self, request: Request) -> tuple[str, str]:
        form = self.form_of(request)
        return form["title"], form["description"]

    @staticmethod
    def _error(code: int, headers: dict[str, str] | None = None) -> Reply:
        return Reply(200, {"result": "error", "code": code, "trace_id": "X", "reason": "…"}, headers or {})

    @property
    def success(self) -> Reply:
        return Reply(body={"result": "ok", "code": 0, "trace_id": "X", "description": "ok", "data": {"id": "scm1"}})

    @property
    def invalid(self) -> Reply:
        return self._error(65003)

    @property
    def throttled(self) -> Reply:
        return self._error(10027, {"Retry-After": str(WAIT_SECONDS)})

    @property
    def broken(self) -> Reply:
        return Reply(503)


FAKES: tuple[type[FakeVendor], ...] = (FakeFcm, FakeApns, FakeJPush, FakeGetui, FakeXiaomi)
