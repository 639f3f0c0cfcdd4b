"""OpenIM's JavaScript SDK, which keeps no database, in a browser against the real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.wasm.driver import JS_PAGE, SdkBrowser, SdkUser, what_is_missing
from tests.stack import Stack

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]


@pytest.fixture(scope="module")
def js_browser(stack: Stack) -> Iterator[SdkBrowser]:
    if missing := what_is_missing():
        pytest.skip(missing)
    with SdkBrowser(stack, JS_PAGE) as browser:
        yield browser


@pytest.fixture
def pair(js_browser: SdkBrowser) -> Iterator[tuple[SdkUser, SdkUser]]:
    js_browser.errors.clear()
    yield js_browser.login("Alice"), js_browser.login("Bob")
    js_browser.log_everybody_out()
    assert js_browser.errors == []


def test_a_login_syncs_and_text_goes_both_ways(pair: tuple[SdkUser, SdkUser]) -> None:
    alice, bob = pair
    assert alice.call("getSelfUserInfo")["nickname"] == "Alice"

    first = alice.say("hello Bob", bob)
    assert bob.until_received(first["clientMsgID"])["textElem"]["content"] == "hello Bob"
    second = bob.say("hello Alice", alice)
    assert alice.until_received(second["clientMsgID"])["senderNickname"] == "Bob"

    for user in pair:
        assert user.texts(alice.with_user(bob)) == ["hello Bob", "hello Alice"]


def test_conversations_have_unread_counts_until_they_are_read(pair: tuple[SdkUser, SdkUser]) -> None:
    alice, bob = pair
    conversation_id = alice.with_user(bob)
    messages = [alice.say(text, bob)["clientMsgID"] for text in ("one", "two")]
    bob.until_unread(conversation_id, 2)
    assert bob.conversations()[conversation_id]["showName"] == "Alice"

    bob.call("markConversationMessageAsRead", conversation_id)

    receipts = alice.until_told("OnRecvC2CReadReceipt")
    assert sorted(receipts[0]["msgIDList"]) == sorted(messages)
    bob.until_unread(conversation_id, 0)
    assert bob.call("getTotalUnreadMsgCount") == 0


def test_a_revoked_message_disappears(pair: tuple[SdkUser, SdkUser]) -> None:
    alice, bob = pair
    conversation_id = alice.with_user(bob)
    wrong, right = alice.say("wrong", bob), alice.say("right", bob)
    bob.until_received(right["clientMsgID"])

    alice.call("revokeMessage", {"conversationID": conversation_id, "clientMsgID": wrong["clientMsgID"]})

    assert bob.until_told("OnNewRecvMessageRevoked")["clientMsgID"] == wrong["clientMsgID"]
    assert bob.texts(conversation_id) == ["right"]
