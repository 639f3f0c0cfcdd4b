"""OpenIM's SDK for browsers (Go compiled to WebAssembly) against the real servers: chats."""

from __future__ import annotations

import pytest

from tests.acceptance.wasm.driver import SdkBrowser, SdkUser

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]


def pair(sdk: SdkBrowser) -> tuple[SdkUser, SdkUser]:
    return sdk.login("Alice"), sdk.login("Bob")


def test_a_fresh_profile_logs_in_and_syncs(sdk: SdkBrowser) -> None:
    alice = sdk.login("Alice")

    assert alice.told("OnSyncServerStart") == [True]
    assert alice.told("OnSyncServerFailed") == []
    assert alice.told("OnSyncServerProgress")[-1] == 100
    assert alice.call("getSelfUserInfo")["nickname"] == "Alice"
    assert alice.conversations() == {}


def test_text_goes_both_ways(sdk: SdkBrowser) -> None:
    alice, bob = pair(sdk)

    first = alice.say("hello Bob", bob)
    assert bob.until_received(first["clientMsgID"])["textElem"]["content"] == "hello Bob"
    second = bob.say("hello Alice", alice)
    received = alice.until_received(second["clientMsgID"])

    assert received["sendID"] == bob.user_id
    assert received["senderNickname"] == "Bob"
    assert alice.texts(alice.with_user(bob)) == bob.texts(bob.with_user(alice)) == ["hello Bob", "hello Alice"]
    assert [(seq, text) for seq, _, text, _ in alice.stored(alice.with_user(bob))] == [
        (1, "hello Bob"),
        (2, "hello Alice"),
    ]


def test_the_list_of_conversations_has_order_names_and_unread_counts(sdk: SdkBrowser) -> None:
    alice, bob, carol = *pair(sdk), sdk.login("Carol")
    with_bob, with_carol = alice.with_user(bob), alice.with_user(carol)

    bob.say("one", alice)
    bob.say("two", alice)
    alice.until_unread(with_bob, 2)
    last = carol.say("three", alice)
    alice.until_received(last["clientMsgID"])
    alice.until_unread(with_carol, 1)

    conversations = alice.conversations()
    assert list(conversations) == [with_carol, with_bob]
    assert [item["showName"] for item in conversations.values()] == ["Carol", "Bob"]
    assert alice.call("getTotalUnreadMsgCount") == 3
    last = bob.say("four", alice)
    alice.until_received(last["clientMsgID"])
    alice.until_unread(with_bob, 3)
    assert list(alice.conversations()) == [with_bob, with_carol]
    alice.call("setConversation", {"conversationID": with_carol, "isPinned": True})
    alice.until(lambda: list(alice.conversations()) == [with_carol, with_bob], "the pinned conversation to be first")


def test_the_sender_sees_that_messages_were_read(sdk: SdkBrowser) -> None:
    alice, bob = pair(sdk)
    conversation_id = alice.with_user(bob)
    messages = [alice.say(text, bob)["clientMsgID"] for text in ("one", "two")]
    bob.until_unread(conversation_id, 2)

    bob.call("markConversationMessageAsRead", conversation_id)

    receipts = alice.until_told("OnRecvC2CReadReceipt")
    assert sorted(receipts[0]["msgIDList"]) == sorted(messages)
    assert [message["isRead"] for message in alice.history(conversation_id)] == [True, True]
    bob.until_unread(conversation_id, 0)
    assert bob.call("getTotalUnreadMsgCount") == 0


def test_a_revoked_message_disappears_on_both_sides(sdk: SdkBrowser) -> None:
    alice, bob = pair(sdk)
    conversation_id = alice.with_user(bob)
    wrong, right = alice.say("wrong", bob), alice.say("right", bob)
    bob.until_received(right["clientMsgID"])

    alice.call("revokeMessage", {"conversationID": conversation_id, "clientMsgID": wrong["clientMsgID"]})

    told = bob.until_told("OnNewRecvMessageRevoked")
    assert (told["clientMsgID"], told["revokerID"]) == (wrong["clientMsgID"], alice.user_id)
    for user in (alice, bob):
        assert user.texts(conversation_id) == ["right"]
        assert [message["contentType"] for message in user.history(conversation_id)] == [2101, 101]


def test_deleting_hides_a_message_for_oneself_only(sdk: SdkBrowser) -> None:
    alice, bob = pair(sdk)
    conversation_id = alice.with_user(bob)
    alice.say("one", bob)
    last = alice.say("two", bob)
    bob.until_received(last["clientMsgID"])

    bob.call("deleteMessage", {"conversationID": conversation_id, "clientMsgID": last["clientMsgID"]})
    assert bob.texts(conversation_id) == ["one"]
    assert alice.texts(conversation_id) == ["one", "two"]

    bob.call("clearConversationAndDeleteAllMsg", conversation_id)
    assert bob.texts(conversation_id) == []
    assert alice.texts(conversation_id) == ["one", "two"]


def test_history_of_over_300_messages_is_paged_up_to_its_beginning(sdk: SdkBrowser) -> None:
    alice, bob = pair(sdk)
    conversation_id = alice.with_user(bob)
    bob.call("logout")
    for number in range(310):
        sdk.app_server.send_text(alice, bob, f"message {number}")

    bob = sdk.open(bob.user_id, is_fresh=True).login(sdk.stack)

    bob.until_unread(conversation_id, 310)
    page = bob.history_page(conversation_id, 20)
    assert [message["textElem"]["content"] for message in page["messageList"]] == [
        f"message {n}" for n in range(290, 310)
    ]
    assert not page["isEnd"]
    assert bob.texts(conversation_id) == [f"message {number}" for number in range(310)]
    assert [seq for seq, *_ in bob.stored(conversation_id)] == list(range(1, 311))


def test_typing_is_seen_by_the_other_side(sdk: SdkBrowser) -> None:
    alice, bob = pair(sdk)
    conversation_id = alice.with_user(bob)
    bob.until_received(alice.say("hello", bob)["clientMsgID"])

    alice.call("changeInputStates", {"conversationID": conversation_id, "focus": True})
    told = bob.until_told("OnConversationUserInputStatusChanged")
    assert (told["conversationID"], told["userID"], told["platformIDs"]) == (conversation_id, alice.user_id, [5])

    alice.call("changeInputStates", {"conversationID": conversation_id, "focus": False})
    bob.until_told("OnConversationUserInputStatusChanged", lambda data: not data["platformIDs"])


@pytest.mark.parametrize("size", [3_000, 11_000_000], ids=["one part", "several parts"])
def test_a_picture_is_uploaded_and_seen(sdk: SdkBrowser, size: int) -> None:
    alice, bob = pair(sdk)

    sent = alice.send(alice.create_picture("tree.png", size), bob)
    received = bob.until_received(sent["clientMsgID"])

    picture = received["pictureElem"]["sourcePicture"]
    assert (picture["size"], picture["width"], picture["height"]) == (size, 20, 10)
    seen = bob.page.evaluate("(url) => fetchPicture(url)", picture["url"])
    assert seen == {"status": 200, "type": "image/png", "size": size, "isSame": True}
