"""Token states and what issuing a token does to the others: websocket.md sections 7 and 8."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
import redis
from pymongo.database import Database

from imserver.actions import auth
from imserver.clock import now_ms
from imserver.conf import Config
from imserver.constants import Platform, TokenState
from imserver.errors import TokenExpired, TokenInvalid, TokenKicked, TokenMalformed, TokenNotExist, TokenUnknown
from imserver.storage import keys
from imserver.storage import tokens as tokens_module
from imserver.storage.clients import Document, close_async_clients, get_async_redis
from imserver.storage.tokens import Tokens
from imserver.storage.users import new_user
from tests.factories import reconfigure

IOS, ANDROID, WINDOWS, OSX, WEB = 1, 2, 3, 4, 5

#: As long as RFC 7518 wants it, else PyJWT warns.
SECRET = "a secret of the tests, quite long enough"


@pytest.fixture(autouse=True)
def secret(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    reconfigure(monkeypatch, auth_secret=SECRET)


@pytest.fixture
async def tokens(redis_client: redis.Redis) -> AsyncIterator[Tokens]:
    yield Tokens(get_async_redis())
    await close_async_clients()


@pytest.fixture
def users(database: Database[Document]) -> None:
    database["user"].insert_many([new_user(user_id, user_id) for user_id in ("a", "b")])


async def issue(user_id: str, platform_id: int) -> str:
    return (await auth.get_user_token(user_id, platform_id)).token


async def is_valid(token: str) -> bool:
    try:
        await auth.check_claims(token)
    except TokenKicked:
        return False
    return True


async def test_a_token_is_normal_until_it_is_kicked(tokens: Tokens) -> None:
    await tokens.add("a", IOS, "t1")
    await tokens.add("a", IOS, "t2")

    await tokens.kick("a", IOS, ["t1"])

    assert await tokens.get_state("a", IOS, "t1") == TokenState.KICKED
    assert await tokens.get_state("a", IOS, "t2") == TokenState.NORMAL


async def test_an_unknown_token_has_no_state(tokens: Tokens) -> None:
    await tokens.add("a", IOS, "t1")

    assert await tokens.get_state("a", IOS, "t2") is None
    assert await tokens.get_state("a", ANDROID, "t1") is None
    assert await tokens.get_state("b", IOS, "t1") is None


@pytest.mark.parametrize(
    ("value", "state"), [("1", TokenState.INVALID), ("3", TokenState.EXPIRED), ("99", TokenState.INVALID)]
)
async def test_every_stored_value_is_a_state(
    tokens: Tokens, redis_client: redis.Redis, value: str, state: TokenState
) -> None:
    redis_client.hset(keys.tokens("a", IOS), "t1", value)

    assert await tokens.get_state("a", IOS, "t1") == state


async def test_tokens_are_told_by_platform_and_user(tokens: Tokens) -> None:
    for user_id, platform_id, token in (("a", IOS, "t1"), ("a", IOS, "t2"), ("a", WEB, "t3"), ("b", IOS, "t4")):
        await tokens.add(user_id, platform_id, token)
    await tokens.kick("a", IOS, ["t2"])
    await tokens.kick("a", WEB, [])

    assert await tokens.get_all("a") == {
        IOS: {"t1": TokenState.NORMAL, "t2": TokenState.KICKED},
        WEB: {"t3": TokenState.NORMAL},
    }
    assert await tokens.get_all("nobody") == {}


async def test_kicking_one_users_tokens_leaves_other_users_and_platforms_alone(tokens: Tokens) -> None:
    for user_id, platform_id in (("a", IOS), ("a", WEB), ("b", IOS)):
        await tokens.add(user_id, platform_id, "same")

    await tokens.kick("a", IOS, ["same"])

    assert await tokens.get_state("a", WEB, "same") == TokenState.NORMAL
    assert await tokens.get_state("b", IOS, "same") == TokenState.NORMAL


async def test_forgotten_tokens_are_gone(tokens: Tokens) -> None:
    await tokens.add("a", IOS, "t1")
    await tokens.add("a", IOS, "t2")

    await tokens.forget("a", IOS, ["t1", "never there"])
    await tokens.forget("a", IOS, [])

    assert await tokens.get_all("a") == {IOS: {"t2": TokenState.NORMAL}}


async def test_states_are_kept_as_long_as_a_token_lives(
    tokens: Tokens, redis_client: redis.Redis, config: Config
) -> None:
    await tokens.add("a", IOS, "t1")

    seconds: Any = redis_client.ttl(keys.tokens("a", IOS))
    assert config.token_expire_days * 86_400 - 30 < seconds <= config.token_expire_days * 86_400


@pytest.mark.parametrize(
    ("policy", "platform", "survivors"),
    [
        (0, IOS, {IOS, ANDROID, WINDOWS, OSX, WEB}),
        (1, IOS, {ANDROID, WINDOWS, OSX, WEB}),
        (4, IOS, {WINDOWS, WEB}),
        (4, OSX, {IOS, WEB}),
        (5, IOS, {WINDOWS, OSX}),
        (5, WINDOWS, {IOS, WINDOWS, OSX}),
    ],
)
@pytest.mark.usefixtures("users", "tokens")
async def test_issuing_a_token_makes_room_by_the_policy_for_this_user_only(
    monkeypatch: pytest.MonkeyPatch, policy: int, platform: int, survivors: set[int]
) -> None:
    reconfigure(monkeypatch, multi_login_policy=0)
    mine = {at: await issue("a", at) for at in (IOS, ANDROID, WINDOWS, OSX, WEB)}
    others = [await issue("b", at) for at in (IOS, WINDOWS, WEB)]
    reconfigure(monkeypatch, multi_login_policy=policy)

    new = await issue("a", platform)

    assert await is_valid(new)
    assert all([await is_valid(token) for token in others])
    valid = {at for at, token in mine.items() if await is_valid(token)}
    by_class = {IOS: "m", ANDROID: "m", WINDOWS: "pc", OSX: "pc", WEB: "w"}
    if policy == 4:
        # Which one of another class stays is not laid down.
        assert sorted(by_class[at] for at in valid) == sorted(by_class[at] for at in survivors)
    elif policy == 5 and platform == WINDOWS:
        assert {WINDOWS, OSX} <= valid
        assert len(valid - {WINDOWS, OSX}) == 1
    else:
        assert valid == survivors


@pytest.mark.usefixtures("users", "tokens")
async def test_policy_0_keeps_no_more_tokens_of_a_platform_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    reconfigure(monkeypatch, multi_login_policy=0, max_tokens_per_end=2)

    issued = [await issue("a", IOS) for _ in range(5)]

    assert sum([await is_valid(token) for token in issued]) == 2
    assert await is_valid(issued[-1])


@pytest.mark.usefixtures("users")
async def test_tokens_that_ran_out_are_forgotten_when_a_new_one_is_issued(tokens: Tokens, config: Config) -> None:
    old = jwt.encode({"UserID": "a", "PlatformID": IOS, "exp": 1}, SECRET, algorithm="HS256")
    await tokens.add("a", IOS, old)

    with pytest.raises(TokenExpired):
        await auth.check_claims(old)
    await issue("a", IOS)

    assert await tokens.get_state("a", IOS, old) is None


@pytest.mark.usefixtures("users", "tokens")
async def test_a_token_speaks_for_one_user_on_one_platform() -> None:
    token = await issue("a", IOS)

    await auth.check_token(token, "a", IOS)
    for user_id, platform_id in (("b", IOS), ("a", ANDROID)):
        with pytest.raises(TokenInvalid):
            await auth.check_token(token, user_id, platform_id)


@pytest.mark.usefixtures("users")
async def test_a_token_needs_signature_and_store(tokens: Tokens, config: Config) -> None:
    token = await issue("a", IOS)
    forged = jwt.encode({"UserID": "a", "PlatformID": IOS, "exp": 1 << 40}, SECRET[::-1], algorithm="HS256")
    await tokens.add("a", IOS, forged)

    with pytest.raises(TokenUnknown):
        await auth.check_claims(forged)
    with pytest.raises(TokenMalformed):
        await auth.check_claims("nonsense")
    await tokens.forget("a", IOS, [token])
    with pytest.raises(TokenNotExist):
        await auth.check_claims(token)


@pytest.mark.usefixtures("users", "tokens")
async def test_claims_are_openims(config: Config) -> None:
    issued = await auth.get_user_token("a", WEB)

    claims = jwt.decode(issued.token, SECRET, algorithms=["HS256"])
    assert (claims["UserID"], claims["PlatformID"]) == ("a", WEB)
    assert claims["exp"] - claims["iat"] == issued.lifetime_seconds + 5
    assert issued.lifetime_seconds == config.token_expire_days * 86_400


@pytest.mark.usefixtures("users", "tokens")
async def test_logins_at_the_same_time_get_tokens_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    reconfigure(monkeypatch, multi_login_policy=0)

    issued = await asyncio.gather(*(issue("a", IOS) for _ in range(10)))

    assert len(set(issued)) == 10


async def test_older_admin_tokens_count_for_their_grace_and_no_longer(
    tokens: Tokens, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token in ("t1", "t2", "t3"):
        await tokens.replace("imAdmin", Platform.ADMIN, token, 300)
    states = [await tokens.get_state("imAdmin", Platform.ADMIN, token) for token in ("t1", "t2", "t3")]
    assert states == [TokenState.NORMAL] * 3

    later = now_ms() + 300_000
    monkeypatch.setattr(tokens_module, "now_ms", lambda: later)

    assert await tokens.get_all("imAdmin") == {Platform.ADMIN: {"t3": TokenState.NORMAL}}
    await tokens.replace("imAdmin", Platform.ADMIN, "t4", 300)
    assert redis_client.hlen(keys.tokens("imAdmin", Platform.ADMIN)) == 2, "what is over is forgotten"
