"""What all REST routes share: headers, token, body, envelope, CORS (protocol: rest.md 1).

Rights and values of each are tried in test_rest_rights.py and test_rest_bad_input.py.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import orjson
import pytest

from imserver.urls import API
from tests.client import ANSWER_SECONDS, Api
from tests.stack import Stack

pytestmark = [
    pytest.mark.acceptance,
    # OpenIM's shipped secret is short, and so are the wrong ones here.
    pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning"),
]

SECRET = "openIM123"
ROUTES = [f"/{route.pattern}" for route in API]
OPEN_ROUTES = ["/auth/get_admin_token", "/auth/parse_token"]
TOKEN_ROUTES = [route for route in ROUTES if route not in OPEN_ROUTES]
#: One for each way to read a body.
ROUTES_BY_READER = ["/user/get_users_info", "/msg/send_simple_msg", "/jssdk/get_conversations"]
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "*",
    "access-control-allow-headers": "*",
    "access-control-allow-credentials": "false",
    "access-control-max-age": "172800",
}
#: Largest body taken.
MAX_BODY_BYTES = 8 * 1024 * 1024


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """For requests that ``Api`` would not make."""
    # No TLS here, and reading the certificates of the machine takes longer than most of these tests.
    async with httpx.AsyncClient(base_url=stack.web_url, timeout=ANSWER_SECONDS, verify=False) as client:  # noqa: S501
        yield client


@pytest.fixture
async def admin(http: httpx.AsyncClient) -> dict[str, str]:
    """Headers of an admin."""
    headers = {"operationID": secrets.token_hex(8)}
    answer = await http.post("/auth/get_admin_token", json={"secret": SECRET, "userID": "imAdmin"}, headers=headers)
    return {**headers, "token": answer.json()["data"]["token"]}


#: The tokens are made when the tests are collected, and are the same thing until the last one ran.
DAY_SECONDS = 86_400


def signed(secret: str = SECRET, **claims: Any) -> str:
    now = int(time.time())
    known = {"UserID": "imAdmin", "PlatformID": 10, "exp": now + DAY_SECONDS, "iat": now - 5}
    return jwt.encode({**known, **claims}, secret, algorithm="HS256")


@dataclass(frozen=True)
class BadToken:
    """A token, and the code it is refused with."""

    why: str
    token: str
    code: int

    def __str__(self) -> str:
        return self.why


def bad_tokens() -> list[BadToken]:
    now = int(time.time())
    return [
        BadToken("not a token", "abc", 1503),
        BadToken("three parts of nothing", "a.b.c", 1503),
        BadToken("wrong signature", signed("another secret"), 1505),
        BadToken(
            "signature of another token",
            signed(PlatformID=1).rpartition(".")[0] + "." + signed().rpartition(".")[2],
            1505,
        ),
        BadToken(
            "unsigned", jwt.encode({"UserID": "imAdmin", "PlatformID": 10, "exp": now + DAY_SECONDS}, "", "none"), 1505
        ),
        BadToken("without user", jwt.encode({"PlatformID": 10, "exp": now + DAY_SECONDS}, SECRET), 1505),
        BadToken("without expiry", jwt.encode({"UserID": "imAdmin", "PlatformID": 10}, SECRET), 1505),
        BadToken("expired", signed(exp=now - 1), 1501),
        BadToken("not valid yet", signed(nbf=now + DAY_SECONDS), 1504),
        BadToken("unknown to the store", signed(), 1507),
    ]


# -- headers


@pytest.mark.parametrize("headers", [{}, {"token": "not a token"}, {"operationID": ""}])
async def test_a_missing_operation_id_is_refused_before_the_token_is_looked_at(
    http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    for route in ROUTES:
        answer = await http.post(route, content=b"{}", headers=headers)

        assert answer.status_code == 200
        assert (answer.json()["errCode"], answer.json()["errMsg"]) == (1001, "ArgsError")
        assert "operationID" in answer.json()["errDlt"]


async def test_a_missing_token_is_a_bad_argument_and_logs_nobody_out(http: httpx.AsyncClient) -> None:
    for route in TOKEN_ROUTES:
        answer = await http.post(route, content=b"{}", headers={"operationID": "x"})

        assert (answer.status_code, answer.json()["errCode"]) == (200, 1001)
        assert "token" in answer.json()["errDlt"]


@pytest.mark.parametrize("bad", bad_tokens(), ids=str)
async def test_a_bad_token_is_refused_everywhere_with_its_code(http: httpx.AsyncClient, bad: BadToken) -> None:
    codes = {}
    for route in TOKEN_ROUTES:
        answer = await http.post(route, content=b"{}", headers={"operationID": "x", "token": bad.token})
        codes[route] = answer.json()["errCode"]

    assert codes == dict.fromkeys(TOKEN_ROUTES, bad.code)


async def test_a_kicked_token_is_refused_everywhere_as_kicked(api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)
    token = await api.token(alice)
    await api.call("/auth/force_logout", {"userID": alice, "platformID": 1})

    codes = {route: (await api.post(route, {}, token=token))["errCode"] for route in TOKEN_ROUTES}

    assert codes == dict.fromkeys(TOKEN_ROUTES, 1506)


@pytest.mark.parametrize("route", OPEN_ROUTES)
async def test_the_two_open_routes_do_not_look_at_a_token_header(api: Api, route: str) -> None:
    good = {"secret": SECRET, "userID": "imAdmin"}
    body = good if route == "/auth/get_admin_token" else {"token": (await api.call(OPEN_ROUTES[0], good))["token"]}

    assert (await api.post(route, body, token="not a token"))["errCode"] == 0


# -- methods, CORS, unknown routes


async def test_a_browsers_preflight_is_answered_without_any_check(http: httpx.AsyncClient) -> None:
    asked = {"Origin": "http://app.example", "Access-Control-Request-Method": "POST"}

    for route in ROUTES:
        answer = await http.options(route, headers={**asked, "Access-Control-Request-Headers": "token,operationid"})

        assert answer.status_code == 200
        assert {name: value for name, value in answer.headers.items() if name.startswith("access-control")} == CORS


@pytest.mark.parametrize("body", [b"{}", b"not json"])
async def test_every_answer_carries_the_cors_headers(http: httpx.AsyncClient, body: bytes) -> None:
    for route in ROUTES:
        answer = await http.post(route, content=body, headers={"operationID": "x", "Origin": "http://app.example"})

        assert {name: value for name, value in answer.headers.items() if name.startswith("access-control")} == CORS
        assert answer.headers["content-type"] == "application/json"
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_another_method_than_post_is_refused_in_the_envelope(
    http: httpx.AsyncClient, admin: dict[str, str], method: str
) -> None:
    for route in ROUTES:
        answer = await http.request(method, route, headers=admin)

        assert (answer.status_code, answer.json()["errCode"]) == (200, 1001)


async def test_an_unknown_route_is_a_plain_text_404(http: httpx.AsyncClient, admin: dict[str, str]) -> None:
    for route in ("/user/no_such_route", "/auth", "/auth/parse_token/", "/Auth/parse_token"):
        answer = await http.post(route, content=b"{}", headers=admin)

        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/plain")
        assert "<" not in answer.text


async def test_routes_that_only_clients_believe_in_are_unknown(http: httpx.AsyncClient, admin: dict[str, str]) -> None:
    # The Python SDK goes on to its next way of pulling at a 404, and at nothing else.
    pulls = ("/msg/pull_message_by_seqs", "/msg/pull_msg_by_seqs", "/msg/pull_msg_by_range")

    for route in (*pulls, "/conversation/get_conversations_has_read_and_max_seq"):
        assert (await http.post(route, content=b"{}", headers=admin)).status_code == 404


async def test_a_browser_may_ask_about_an_unknown_route_and_then_sees_its_404(http: httpx.AsyncClient) -> None:
    answer = await http.options("/no/such/route")

    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


# -- the body


@pytest.mark.parametrize("body", [b"not json", b"[{}]"])
async def test_every_route_refuses_a_body_that_is_no_json_object(
    http: httpx.AsyncClient, admin: dict[str, str], body: bytes
) -> None:
    codes = {route: (await http.post(route, content=body, headers=admin)).json()["errCode"] for route in ROUTES}

    assert codes == dict.fromkeys(ROUTES, 1001)


@pytest.mark.parametrize("route", ROUTES_BY_READER)
async def test_whatever_is_no_json_object_is_refused(
    http: httpx.AsyncClient, admin: dict[str, str], route: str
) -> None:
    no_json = [b"{", b'{"a":1}x', b"\xff\xfe", b"{'a':1}", b"[" * 100_000]
    no_object = [b"[]", b'"text"', b"1", b"null", b"true"]

    for body in (*no_json, *no_object):
        answer = await http.post(route, content=body, headers=admin)

        assert (answer.status_code, answer.json()["errCode"]) == (200, 1001), body[:20]


async def test_a_body_of_up_to_8_mib_is_read(http: httpx.AsyncClient, admin: dict[str, str]) -> None:
    body = orjson.dumps({"userIDs": ["imAdmin"], "padding": "x" * (MAX_BODY_BYTES - 100)})

    answer = await http.post("/user/get_users_info", content=body, headers=admin)

    assert len(answer.json()["data"]["usersInfo"]) == 1


async def test_a_larger_body_is_the_callers_mistake_and_not_the_servers(
    http: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    body = orjson.dumps({"userIDs": ["imAdmin"], "padding": "x" * MAX_BODY_BYTES})

    answer = await http.post("/user/get_users_info", content=body, headers=admin)

    assert (answer.status_code, answer.json()["errCode"]) == (200, 1001)


async def test_a_body_without_a_declared_length_is_read(http: httpx.AsyncClient, admin: dict[str, str]) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b'{"userIDs":'
        yield b'["imAdmin"]}'

    answer = await http.post("/user/get_users_info", content=parts(), headers=admin)

    assert len(answer.json()["data"]["usersInfo"]) == 1


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "text/plain", ""])
async def test_the_body_is_read_whatever_its_content_type_says(
    http: httpx.AsyncClient, admin: dict[str, str], content_type: str
) -> None:
    headers = {**admin, "Content-Type": content_type}

    answer = await http.post("/user/get_users_info", content=b'{"userIDs":["imAdmin"]}', headers=headers)

    assert len(answer.json()["data"]["usersInfo"]) == 1


WRONG_TYPES: list[tuple[str, str, dict[str, Any]]] = [
    ("/auth/get_admin_token", "secret", {"secret": 1, "userID": "imAdmin"}),
    ("/auth/get_admin_token", "userID", {"secret": SECRET, "userID": ["imAdmin"]}),
    ("/auth/get_user_token", "platformID", {"userID": "imAdmin", "platformID": "1"}),
    ("/auth/get_user_token", "platformID", {"userID": "imAdmin", "platformID": 1.5}),
    ("/auth/get_user_token", "platformID", {"userID": "imAdmin", "platformID": True}),
    ("/auth/get_user_token", "platformID", {"userID": "imAdmin", "platformID": 1 << 40}),
    ("/auth/get_user_token", "userID", {"userID": {}, "platformID": 1}),
    ("/auth/parse_token", "token", {"token": 5}),
    ("/auth/force_logout", "platformID", {"userID": "imAdmin", "platformID": [1]}),
    ("/user/user_register", "users", {"users": {}}),
    ("/user/user_register", "UserInfo", {"users": [1]}),
    ("/user/user_register", "userID", {"users": [{"userID": 1, "nickname": "n"}]}),
    ("/user/get_users_info", "userIDs", {"userIDs": "imAdmin"}),
    ("/user/get_users_info", "userIDs", {"userIDs": [1]}),
    ("/user/get_users_info", "userIDs", {"userIDs": [None]}),
    ("/msg/mark_conversation_as_read", "hasReadSeq", {"userID": "imAdmin", "hasReadSeq": "1"}),
    ("/msg/mark_conversation_as_read", "hasReadSeq", {"userID": "imAdmin", "hasReadSeq": 1e30}),
    ("/msg/mark_conversation_as_read", "seqs", {"userID": "imAdmin", "hasReadSeq": 1, "seqs": 1}),
    ("/msg/get_conversations_has_read_and_max_seq", "conversationIDs", {"conversationIDs": "si_a_b"}),
    ("/msg/get_conversations_has_read_and_max_seq", "returnPinned", {"userID": "imAdmin", "returnPinned": 1}),
]


async def test_a_value_of_the_wrong_type_is_refused_and_named(api: Api) -> None:
    for route, field, body in WRONG_TYPES:
        envelope = await api.post(route, body)

        assert envelope["errCode"] == 1001, (route, body)
        assert envelope["errDlt"].startswith(f"{field}:"), (route, body)


async def test_keys_are_read_without_regard_to_case_at_every_depth(api: Api, names: Iterator[str]) -> None:
    alice = next(names)

    await api.call("/user/user_register", {"USERS": [{"userid": alice, "NickName": "Alice", "faceurl": "http://f"}]})
    data = await api.call("/user/get_users_info", {"userids": [alice]})

    assert (data["usersInfo"][0]["nickname"], data["usersInfo"][0]["faceURL"]) == ("Alice", "http://f")


async def test_unknown_keys_are_ignored_at_every_depth(api: Api, names: Iterator[str]) -> None:
    alice = next(names)

    await api.call("/user/user_register", {"users": [{"userID": alice, "nickname": "A", "age": {"years": 7}}], "x": []})

    assert (await api.call("/user/get_users_info", {"userIDs": [alice], "verbose": True}))["usersInfo"]


async def test_null_is_the_same_as_absent(api: Api) -> None:
    assert await api.call("/user/get_users_info", {"userIDs": None}) == {"usersInfo": []}


# -- the envelope


async def test_a_success_says_code_zero_and_empty_texts(api: Api) -> None:
    envelope = await api.post("/user/get_users_info", {"userIDs": []})

    assert envelope == {"errCode": 0, "errMsg": "", "errDlt": "", "data": {"usersInfo": []}}


async def test_data_is_left_out_when_there_is_nothing_to_return(api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    nothing = {"errCode": 0, "errMsg": "", "errDlt": ""}

    assert await api.post("/user/user_register", {"users": [{"userID": alice, "nickname": "A"}]}) == nothing
    assert await api.post("/auth/force_logout", {"userID": alice, "platformID": 1}) == nothing


async def test_a_failure_says_code_name_and_what_to_do_and_has_no_data(api: Api) -> None:
    envelope = await api.post("/user/user_register", {"users": []})

    assert set(envelope) == {"errCode", "errMsg", "errDlt"}
    assert (envelope["errCode"], envelope["errMsg"]) == (1001, "ArgsError")
    assert envelope["errDlt"]


async def test_zero_values_are_present_and_64_bit_numbers_are_numbers(api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    before = time.time_ns() // 1_000_000
    await api.register(alice)

    (user,) = (await api.call("/user/get_users_info", {"userIDs": [alice]}))["usersInfo"]

    assert before <= user.pop("createTime") <= time.time_ns() // 1_000_000
    assert user == {
        "userID": alice,
        "nickname": alice,
        "faceURL": "",
        "ex": "",
        "appMangerLevel": 0,
        "globalRecvMsgOpt": 0,
    }
    seqs = await api.call("/msg/get_conversations_has_read_and_max_seq", {"userID": alice})
    assert seqs == {"seqs": {}, "pinnedConversationIDs": []}
