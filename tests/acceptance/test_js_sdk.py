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
    # One by one: what comes between the answer for a new conversation and its own push, the SDK counts twice.
    messages = [alice.say("one", bob)["clientMsgID"]]
    bob.until_unread(conversation_id, 1)
    messages.append(alice.say("two", bob)["clientMsgID"])
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


@pytest.mark.parametrize("size", [10, 6 * 1024 * 1024], ids=["one part", "two parts"])
def test_a_file_is_uploaded(pair: tuple[SdkUser, SdkUser], size: int) -> None:
    alice, _ = pair

    answer = alice.page.evaluate(
        """async (size) => {
            const file = new File([crypto.getRandomValues(new Uint8Array(10)), new Uint8Array(size - 10)], "Bild 9\u202fAM.png");
            const { errCode, errMsg, data } = await call("uploadFile", { file });
            if (errCode) return errMsg;
            const answer = await fetch(data.url);
            return [answer.status, answer.headers.get("content-type"), (await answer.blob()).size];
        }""",
        size,
    )

    assert answer == [200, "image/png", size]


def test_the_list_is_there_after_a_conversation_was_cleared(pair: tuple[SdkUser, SdkUser], stack: Stack) -> None:
    """The SDK loads its whole list anew, and takes an empty answer for what it asks for amiss."""
    alice, bob = pair
    conversation_id = alice.with_user(bob)
    bob.until_received(alice.say("hello Bob", bob)["clientMsgID"])

    bob.call("deleteConversationAndDeleteAllMsg", conversation_id)
    bob.page.reload()
    bob.page.wait_for_function("window.isReady")
    bob.login(stack)

    assert bob.conversations()[conversation_id]["latestMsg"] == ""
    assert bob.texts(conversation_id) == []
    bob.until_received(alice.say("hello again", bob)["clientMsgID"])
    assert bob.texts(conversation_id) == ["hello again"]
    bob.until_unread(conversation_id, 1)


def test_friends_are_made_and_seen(pair: tuple[SdkUser, SdkUser]) -> None:
    alice, bob = pair

    alice.call("addFriend", {"toUserID": bob.user_id, "reqMsg": "hi"})
    bob.until_told("OnFriendApplicationAdded")
    applications = bob.call("getFriendApplicationListAsRecipient", {"offset": 0, "count": 10})
    assert [item["fromUserID"] for item in applications] == [alice.user_id]
    bob.call("acceptFriendApplication", {"toUserID": alice.user_id, "handleMsg": "yes"})

    alice.until_told("OnFriendApplicationAccepted")
    for one, other in (pair, pair[::-1]):
        assert [item["userID"] for item in one.call("getFriendListPage", {"offset": 0, "count": 10})] == [other.user_id]


def test_a_group_is_made_spoken_in_and_left(pair: tuple[SdkUser, SdkUser]) -> None:
    alice, bob = pair
    made = {"memberUserIDs": [bob.user_id], "groupInfo": {"groupName": "Round table", "groupType": 2}}

    group_id = alice.call("createGroup", made)["groupID"]
    bob.until_told("OnJoinedGroupAdded", lambda group: group["groupID"] == group_id)
    bob.until_received(alice.say("hello all", group_id=group_id)["clientMsgID"])
    members = bob.call("getGroupMemberList", {"groupID": group_id, "filter": 0, "offset": 0, "count": 10})
    assert {item["userID"] for item in members} == {alice.user_id, bob.user_id}
    bob.call("quitGroup", group_id)

    alice.until_told("OnGroupMemberDeleted", lambda member: member["userID"] == bob.user_id)
    alice.call("dismissGroup", group_id)
    alice.until_told("OnGroupDismissed")
