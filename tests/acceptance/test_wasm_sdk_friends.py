"""OpenIM's SDK for browsers against the real servers: friends and blocks."""

from __future__ import annotations

import pytest

from tests.acceptance.wasm.driver import Refused, SdkBrowser, SdkUser

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]


def friends_of(user: SdkUser) -> list[str]:
    return [friend["userID"] for friend in user.call("getFriendList")]


def until_friends(user: SdkUser, other: SdkUser) -> None:
    user.until(lambda: friends_of(user) == [other.user_id], "a friend")


def befriend(alice: SdkUser, bob: SdkUser) -> None:
    alice.call("addFriend", {"toUserID": bob.user_id, "reqMsg": "may I?"})
    bob.until_told("OnFriendApplicationAdded")
    bob.call("acceptFriendApplication", {"toUserID": alice.user_id, "handleMsg": "gladly"})
    for user, other in ((alice, bob), (bob, alice)):
        until_friends(user, other)


def test_an_application_is_accepted_and_both_have_a_friend(sdk: SdkBrowser) -> None:
    alice, bob = sdk.login("Alice"), sdk.login("Bob")

    alice.call("addFriend", {"toUserID": bob.user_id, "reqMsg": "may I?"})
    told = bob.until_told("OnFriendApplicationAdded")
    assert (told["fromUserID"], told["reqMsg"]) == (alice.user_id, "may I?")
    (application,) = bob.call("getFriendApplicationListAsRecipient")
    assert (application["fromNickname"], application["handleResult"]) == ("Alice", 0)
    bob.call("acceptFriendApplication", {"toUserID": alice.user_id, "handleMsg": "gladly"})

    assert alice.until_told("OnFriendApplicationAccepted")["handleMsg"] == "gladly"
    assert alice.until_told("OnFriendAdded")["userID"] == bob.user_id
    assert bob.until_told("OnFriendAdded")["userID"] == alice.user_id
    assert (friends_of(alice), friends_of(bob)) == ([bob.user_id], [alice.user_id])
    again = sdk.open(alice.user_id, is_fresh=True).login(sdk.stack)
    assert friends_of(again) == [bob.user_id]
    assert [item["handleResult"] for item in again.call("getFriendApplicationListAsApplicant")] == [1]


def test_an_application_is_refused(sdk: SdkBrowser) -> None:
    alice, bob = sdk.login("Alice"), sdk.login("Bob")

    alice.call("addFriend", {"toUserID": bob.user_id, "reqMsg": "may I?"})
    bob.until_told("OnFriendApplicationAdded")
    bob.call("refuseFriendApplication", {"toUserID": alice.user_id, "handleMsg": "no"})

    assert alice.until_told("OnFriendApplicationRejected")["handleMsg"] == "no"
    assert (friends_of(alice), friends_of(bob)) == ([], [])


def test_a_remark_is_kept_and_a_friend_is_deleted(sdk: SdkBrowser) -> None:
    alice, bob = sdk.login("Alice"), sdk.login("Bob")
    befriend(alice, bob)

    alice.call("updateFriends", {"friendUserIDs": [bob.user_id], "remark": "Bobby"})
    assert alice.until_told("OnFriendInfoChanged")["remark"] == "Bobby"
    alice.call("deleteFriend", bob.user_id)

    alice.until_told("OnFriendDeleted")
    assert friends_of(alice) == []


def test_who_is_blocked_cannot_write(sdk: SdkBrowser) -> None:
    alice, bob = sdk.login("Alice"), sdk.login("Bob")

    alice.call("addBlack", {"toUserID": bob.user_id})
    alice.until_told("OnBlackAdded")
    assert [item["userID"] for item in alice.call("getBlackList")] == [bob.user_id]
    with pytest.raises(Refused) as refused:
        bob.say("hello?", alice)
    assert refused.value.code == 1302

    alice.call("removeBlack", bob.user_id)
    alice.until_told("OnBlackDeleted")
    alice.until_received(bob.say("hello!", alice)["clientMsgID"])
