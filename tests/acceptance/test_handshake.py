"""The handshake, by the protocol's table: which check fails with which code, in which form."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import jwt
import orjson
import pytest
import websockets

from imserver.conf import get_config
from tests.client import Api, Client, Connect
from tests.stack import Stack, on_both_servers

pytestmark = [pytest.mark.acceptance, on_both_servers]


def query(user_id: str, valid_token: str, **changes: Any) -> dict[str, Any]:
    wanted = {"sendID": user_id, "token": valid_token, "platformID": 1, "operationID": "op", "isBackground": "false"}
    return {name: value for name, value in {**wanted, **changes}.items() if value is not None}


async def refused(url: str) -> dict[str, Any]:
    """The JSON body of a refused upgrade."""
    with pytest.raises(websockets.InvalidStatus) as error:
        await websockets.connect(url)
    assert error.value.response.status_code == 200
    assert error.value.response.headers["content-type"] == "application/json; charset=utf-8"
    answer: dict[str, Any] = orjson.loads(error.value.response.body or b"")
    return answer


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"operationID": ""}, 1602),
        ({"token": ""}, 1602),
        ({"sendID": ""}, 1602),
        ({"platformID": 12}, 1602),
        ({"platformID": "one"}, 1602),
        ({"sdkType": "xml"}, 1602),
        ({"v": "%%%"}, 1602),
        ({"isBackground": None}, 500),
        ({"isBackground": "perhaps"}, 500),
        ({"token": "not-a-token"}, 1503),
        ({"sendID": "somebody"}, 1502),
        ({"platformID": 2}, 1502),
    ],
)
async def test_a_bad_request_is_refused_in_the_http_answer_with_its_code(
    stack: Stack, api: Api, names: Iterator[str], changes: dict[str, Any], code: int
) -> None:
    alice = next(names)
    await api.register(alice)
    token = await api.token(alice)

    answer = await refused(f"{stack.gateway_url}/?{urlencode(query(alice, token, **changes))}")

    assert answer["errCode"] == code


async def test_a_refusal_is_no_error_of_the_server(stack: Stack) -> None:
    # What is said of the first is in the log before the second is answered.
    for _ in range(2):
        await refused(f"{stack.gateway_url}/?sendID=a")

    assert "handshake refused" in stack.log(stack.gateway_name)
    assert "without completing handshake" not in stack.log(stack.gateway_name)


def encode(claims: dict[str, Any], secret: str) -> str:
    with warnings.catch_warnings(action="ignore"):
        return jwt.encode(claims, secret, "HS256")


def forged(user_id: str, **claims: Any) -> str:
    return encode({"UserID": user_id, "PlatformID": 1, "exp": 4e9, **claims}, get_config().auth_secret)


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (forged("x", exp=1), 1501),
        (forged("x", nbf=4e9), 1504),
        (encode({"UserID": "x", "PlatformID": 1, "exp": 4e9}, "another secret"), 1505),
        (forged("x"), 1507),
        ("garbage", 1503),
    ],
)
async def test_a_client_that_asks_for_it_gets_the_token_error_as_a_text_frame(
    stack: Stack, token: str, code: int
) -> None:
    async with Client(stack.gateway_url, "x", token, wants_result=True) as client:
        assert client.handshake["errCode"] == code
        assert await client.wait_closed() == 4105


async def test_the_packed_form_is_accepted(stack: Stack, api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)
    values = {
        "token": await api.token(alice),
        "userID": alice,
        "operationID": "op",
        "platformID": 1,
        "sendResponse": True,
    }
    packed = base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")

    async with websockets.connect(f"{stack.gateway_url}/?v={packed}") as socket:
        assert orjson.loads(await socket.recv())["errCode"] == 0


async def test_a_text_ping_is_answered_and_other_text_closes(connect: Connect, api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)
    client = await connect(alice)
    socket = client.socket

    await socket.send('{"type":"ping","body":"b"}')
    await socket.send('{"type":"pong"}')
    await client.until(lambda: client.texts)
    await socket.send("hello")

    assert await client.wait_closed() == 4101
    assert [orjson.loads(text) for text in client.texts] == [{"type": "pong", "body": "b"}]


@pytest.mark.parametrize("frame", [b"garbage", b"\x00" * 100, b""])
async def test_a_frame_that_is_not_understood_closes_the_connection(
    connect: Connect, api: Api, names: Iterator[str], frame: bytes
) -> None:
    alice = next(names)
    await api.register(alice)
    client = await connect(alice)

    await client.socket.send(frame)

    assert await client.wait_closed() == 4101


async def test_a_second_login_on_a_platform_kicks_the_first(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice = next(names)
    await api.register(alice)
    phone = await connect(alice, platform_id=1)
    browser = await connect(alice, platform_id=5)

    await connect(alice, platform_id=1)

    assert await phone.wait_closed() == 4104
    assert phone.kicked
    assert await browser.max_seqs() == {}
