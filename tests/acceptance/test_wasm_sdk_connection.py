"""OpenIM's SDK for browsers against the real servers: what happens when a connection ends."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

import jwt
import pytest

from imserver.conf import get_config
from imserver.constants import Platform, TokenState
from imserver.storage import keys
from tests.acceptance.wasm.driver import Refused, SdkBrowser, SdkUser
from tests.acceptance.wasm.relay import HoldingRelay
from tests.stack import Stack

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]

#: The SDK's back-off: 1, 2, 4, 8, 16 s.
RECONNECT_SECONDS = 40


def connections(user: SdkUser) -> int:
    return len(user.told("OnConnectSuccess"))


def until_connected_again(user: SdkUser) -> None:
    user.until(lambda: connections(user) == 2, "the connection", RECONNECT_SECONDS)


def until_connected_often(user: SdkUser, times: int) -> None:
    user.until(lambda: connections(user) > times, "the connection", RECONNECT_SECONDS)


def until_numbered(user: SdkUser, conversation_id: str, count: int) -> None:
    """Scrolling up fetches what a short connection could not, and the numbers of one's own messages."""
    numbers = set(range(1, count + 1))

    def seqs() -> list[int]:
        return [message["seq"] for message in user.history(conversation_id)]

    try:
        user.until(lambda: set(seqs()) == numbers, f"{count} messages with their seqs", RECONNECT_SECONDS)
    except AssertionError as error:
        found = seqs()
        missing, unnumbered = sorted(numbers - set(found)), found.count(0)
        raise AssertionError(f"{len(found)} messages, without seqs {missing}, {unnumbered} without a seq") from error


def said(users: Iterable[SdkUser]) -> int:
    return sum(int(user.page.evaluate("() => said")) for user in users)


def until_said(users: Sequence[SdkUser], count: int) -> None:
    users[0].until(lambda: said(users) >= count, f"{count} messages said", RECONNECT_SECONDS)


def token_for(stack: Stack, user_id: str, seconds: int) -> str:
    """A token that the server knows, of an unusual lifetime."""
    now = int(time.time())
    claims = {"UserID": user_id, "PlatformID": int(Platform.WEB), "exp": now + seconds, "iat": now - 60}
    token = jwt.encode(claims, "openIM123", algorithm="HS256")
    key = keys.tokens(user_id, Platform.WEB).removeprefix(get_config().key_prefix)
    stack.redis.hset(f"{stack.prefix}{key}", token, int(TokenState.NORMAL))
    return token


def test_a_second_login_kicks_the_first(sdk: SdkBrowser) -> None:
    first, bob = sdk.login("Alice"), sdk.login("Bob")

    second = sdk.open(first.user_id, is_fresh=True).login(sdk.stack)

    first.until_told("OnKickedOffline")
    with pytest.raises(Refused):
        first.say("still here", bob)
    message = second.say("from elsewhere", bob)
    bob.until_received(message["clientMsgID"])
    assert connections(first) == 1


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_an_expired_token_is_told_and_not_tried_again(sdk: SdkBrowser) -> None:
    alice = sdk.open(sdk.app_server.register("Alice"))
    alice.token = token_for(sdk.stack, alice.user_id, -10)

    alice.log_in(sdk.stack)

    alice.until_told("OnUserTokenExpired")
    assert connections(alice) == 0


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_a_token_that_expires_meanwhile_ends_the_login(sdk: SdkBrowser) -> None:
    alice = sdk.open(sdk.app_server.register("Alice"))
    # Long enough for the login itself.
    alice.token = token_for(sdk.stack, alice.user_id, 20)
    alice.login(sdk.stack)

    def ask() -> bool:
        """Something that only the server knows."""
        try:
            alice.call("getSpecifiedGroupsInfo", ["1"])
        except Refused as refused:
            return refused.code == 1501
        return False

    alice.until(ask, "the token to expire", 60)
    alice.until_told("OnUserTokenExpired")


def test_everybody_is_back_after_the_gateway_restarted(sdk: SdkBrowser, stack: Stack) -> None:
    alice, bob = sdk.login("Alice"), sdk.login("Bob")
    conversation_id = alice.with_user(bob)
    bob.until_received(alice.say("before", bob)["clientMsgID"])

    stack.kill_gateway()
    for user in (alice, bob):
        user.until_told("OnConnectFailed")
    sdk.app_server.send_text(alice, bob, "meanwhile")
    stack.start_gateway()
    stack.wait_gateway()
    for user in (alice, bob):
        until_connected_again(user)

    bob.until_received(alice.say("after", bob)["clientMsgID"])
    alice.until_received(bob.say("here, too", alice)["clientMsgID"])
    for user in (alice, bob):
        assert user.texts(conversation_id) == ["before", "meanwhile", "after", "here, too"]
    bob.until_unread(conversation_id, 3)


def test_the_end_of_a_chat_is_there_after_two_short_connections(sdk: SdkBrowser, stack: Stack) -> None:
    """The SDK does not sync again within 5 s, and nothing more is said from which it could see the gap."""
    with HoldingRelay(urlsplit(stack.gateway_url).port or 0) as relay:
        alice, bob = sdk.login("Alice"), sdk.login("Bob", relay.url)
        conversation_id = alice.with_user(bob)
        bob.until_received(alice.say("before", bob)["clientMsgID"])

        with relay.absence():
            for text in ("missed", "missed, too"):
                alice.say(text, bob)
            until_numbered(alice, conversation_id, 3)
        until_connected_again(bob)

        # Counted by seqs, which the SDK may learn before it has the messages.
        bob.until_unread(conversation_id, 3)
        expected = ["before", "missed", "missed, too"]
        bob.until(
            lambda: [text for _, _, text, _ in bob.stored(conversation_id)] == expected, "what was said meanwhile"
        )
        assert bob.texts(conversation_id) == expected


def test_a_fresh_profile_gets_everything_again(sdk: SdkBrowser) -> None:
    alice, bob, carol = sdk.login("Alice"), sdk.login("Bob"), sdk.login("Carol")
    with_bob, with_carol = alice.with_user(bob), alice.with_user(carol)
    group = alice.call(
        "createGroup", {"memberUserIDs": [bob.user_id], "groupInfo": {"groupName": "Round table", "groupType": 2}}
    )
    in_group = f"sg_{group['groupID']}"
    alice.say("to Bob", bob)
    wrong = alice.say("wrong", bob)
    bob.until_received(wrong["clientMsgID"])
    alice.call("revokeMessage", {"conversationID": with_bob, "clientMsgID": wrong["clientMsgID"]})
    carol.say("to Alice", alice)
    alice.until_received(bob.say("to all", group_id=group["groupID"])["clientMsgID"])
    alice.until_received(carol.say("to Alice again", alice)["clientMsgID"])
    alice.call("setConversation", {"conversationID": with_bob, "isPinned": True})
    alice.until(lambda: alice.conversations()[with_bob]["isPinned"], "the pinned conversation")

    conversations = alice.conversations()
    texts = {conversation_id: alice.texts(conversation_id) for conversation_id in conversations}
    assert list(conversations) == [with_bob, with_carol, in_group]
    assert texts == {with_bob: ["to Bob"], with_carol: ["to Alice", "to Alice again"], in_group: ["to all"]}

    again = sdk.open(alice.user_id, is_fresh=True).login(sdk.stack)

    again.until_unread(with_carol, 2)
    for key in ("conversationID", "showName", "unreadCount", "isPinned"):
        assert [item[key] for item in again.conversations().values()] == [item[key] for item in conversations.values()]
    assert {conversation_id: again.texts(conversation_id) for conversation_id in texts} == texts
    assert [item["groupID"] for item in again.call("getJoinedGroupList")] == [group["groupID"]]


def restart_gateway(stack: Stack, users: tuple[SdkUser, SdkUser], number: int) -> None:
    """Every other time it is killed. While nobody waits for an answer, but for every seventh: that costs the SDK 10 s."""
    waits = number % 7 != 0
    for user in users:
        if waits:
            user.page.evaluate("() => hold()")
    if number % 2:
        stack.kill_gateway()
        stack.start_gateway()
    else:
        stack.restart_gateway()
    for user in users:
        user.page.evaluate("() => goOn()")
    stack.wait_gateway()


@pytest.mark.timeout(600)
def test_twenty_restarts_of_the_gateway_lose_double_and_reorder_nothing(sdk: SdkBrowser, stack: Stack) -> None:
    each, restarts, pause_ms = 250, 20, 20
    with HoldingRelay(urlsplit(stack.gateway_url).port or 0) as relay:
        users = alice, bob = sdk.login("Alice", relay.url), sdk.login("Bob", relay.url)
        conversation_id = alice.with_user(bob)

        alice.page.evaluate("(args) => void talk(...args)", [bob.user_id, each, pause_ms, "alice"])
        bob.page.evaluate("(args) => void talk(...args)", [alice.user_id, each, pause_ms, "bob"])
        for number in range(1, restarts + 1):
            until_said(users, number * 2 * each // (restarts + 1))
            # The two may say much in a moment: each meets every other restart at least.
            for user in users:
                until_connected_often(user, number // 2)
            restart_gateway(stack, users, number)
        until_said(users, 2 * each)

        expected = {name: [f"{name} {number}" for number in range(each)] for name in ("alice", "bob")}
        for user in users:
            until_numbered(user, conversation_id, 2 * each)
            stored = user.stored(conversation_id)
            assert [seq for seq, *_ in stored] == list(range(1, 2 * each + 1))
            for name, texts in expected.items():
                assert [text for _, _, text, _ in stored if text.startswith(f"{name} ")] == texts
        told = [message["textElem"]["content"] for message in bob.received]
        assert told == [text for text in expected["alice"] if text in told]
        assert alice.stored(conversation_id) == bob.stored(conversation_id)
