"""OpenIM's SDK for browsers against the real servers: groups and friends."""

from __future__ import annotations

from typing import Any

import pytest

from imserver.constants import ContentType
from imserver.protocol.conversations import group_conversation_id
from tests.acceptance.wasm.driver import Json, Refused, SdkBrowser, SdkUser

GROUP_MUTED = 3

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]


def create_group(owner: SdkUser, *members: SdkUser, **info: Any) -> str:
    params = {
        "memberUserIDs": [member.user_id for member in members],
        "groupInfo": {"groupName": "Round table", "groupType": 2, **info},
    }
    group: Json = owner.call("createGroup", params)
    group_id: str = group["groupID"]
    return group_id


def members_of(user: SdkUser, group_id: str) -> dict[str, int]:
    """Role of each member, as the SDK's database has it."""
    params = {"groupID": group_id, "filter": 0, "offset": 0, "count": 100}
    return {item["userID"]: item["roleLevel"] for item in user.call("getGroupMemberList", params)}


def joined(user: SdkUser) -> list[str]:
    return [group["groupID"] for group in user.call("getJoinedGroupList")]


def the_group_of(user: SdkUser) -> Json:
    """The only one it is in."""
    (group,) = user.call("getJoinedGroupList")
    return dict(group)


def until_members(user: SdkUser, group_id: str, user_ids: set[str]) -> None:
    user.until(lambda: set(members_of(user, group_id)) == user_ids, f"the members {user_ids}")


def until_roles(user: SdkUser, group_id: str, roles: dict[str, int]) -> None:
    user.until(lambda: members_of(user, group_id) == roles, f"the roles {roles}")


def until_count(user: SdkUser, count: int) -> None:
    user.until(lambda: the_group_of(user)["memberCount"] == count, f"{count} members to be counted")


def until_member(user: SdkUser, group_id: str) -> None:
    user.until(lambda: group_id in joined(user), "the group to be among mine")


def until_groupless(user: SdkUser) -> None:
    user.until(lambda: joined(user) == [], "no group")


def test_a_group_is_made_and_chats(sdk: SdkBrowser) -> None:
    alice, bob, carol = sdk.login("Alice"), sdk.login("Bob"), sdk.login("Carol")

    group_id = create_group(alice, bob)
    until_member(bob, group_id)
    group = the_group_of(bob)
    assert (group["groupName"], group["ownerUserID"], group["memberCount"]) == ("Round table", alice.user_id, 2)
    until_roles(bob, group_id, {alice.user_id: 100, bob.user_id: 20})
    message = alice.say("hello all", group_id=group_id)
    assert bob.until_received(message["clientMsgID"])["groupID"] == group_id

    alice.call("inviteUserToGroup", {"groupID": group_id, "reason": "", "userIDList": [carol.user_id]})
    until_member(carol, group_id)
    bob.until_told("OnGroupMemberAdded", lambda member: member["userID"] == carol.user_id)
    everybody = {alice.user_id: 100, bob.user_id: 20, carol.user_id: 20}
    for user in (alice, bob, carol):
        until_roles(user, group_id, everybody)
    answer = carol.say("hello from me", group_id=group_id)
    conversation_id = group_conversation_id(group_id)
    for user in (alice, bob):
        user.until_received(answer["clientMsgID"])
    for user in (alice, bob, carol):
        assert user.texts(conversation_id) == ["hello all", "hello from me"]
        kinds = [message["contentType"] for message in user.history(conversation_id)]
        assert kinds == [ContentType.GROUP_CREATED, 101, ContentType.MEMBER_INVITED, 101]
        assert user.conversations()[conversation_id]["showName"] == "Round table"


def test_reading_in_a_group_clears_the_unread_count(sdk: SdkBrowser) -> None:
    alice, bob = sdk.login("Alice"), sdk.login("Bob")
    group_id = create_group(alice, bob)
    conversation_id = group_conversation_id(group_id)
    last = [alice.say(text, group_id=group_id) for text in ("one", "two")][-1]
    bob.until_received(last["clientMsgID"])
    bob.until(lambda: bob.conversations()[conversation_id]["unreadCount"] >= 2, "unread messages")

    bob.call("markConversationMessageAsRead", conversation_id)
    bob.until_unread(conversation_id, 0)

    bob = sdk.open(bob.user_id, is_fresh=True).login(sdk.stack)
    bob.until_unread(conversation_id, 0)


def test_who_is_kicked_leaves_the_group_and_can_say_nothing_more(sdk: SdkBrowser) -> None:
    alice, bob, carol = sdk.login("Alice"), sdk.login("Bob"), sdk.login("Carol")
    group_id = create_group(alice, bob, carol)
    for user in (bob, carol):
        until_member(user, group_id)
    until_members(bob, group_id, {alice.user_id, bob.user_id, carol.user_id})

    alice.call("kickGroupMember", {"groupID": group_id, "reason": "", "userIDList": [carol.user_id]})

    assert carol.until_told("OnJoinedGroupDeleted")["groupID"] == group_id
    assert joined(carol) == []
    bob.until_told("OnGroupMemberDeleted", lambda member: member["userID"] == carol.user_id)
    for user in (alice, bob):
        until_members(user, group_id, {alice.user_id, bob.user_id})
    with pytest.raises(Refused) as refused:
        carol.say("still here?", group_id=group_id)
    assert refused.value.code == 1203
    later = alice.say("she is gone", group_id=group_id)
    bob.until_received(later["clientMsgID"])
    assert "she is gone" not in carol.texts(group_conversation_id(group_id))


def test_members_are_counted_as_they_come_and_go_and_after_another_login(sdk: SdkBrowser) -> None:
    alice, bob, carol, dave = (sdk.login(name) for name in ("Alice", "Bob", "Carol", "Dave"))
    group_id = create_group(alice, bob)
    until_member(bob, group_id)
    until_count(bob, 2)
    # The SDK fetches its groups, then their members. Of a change between the two it learns with the members, takes the
    # notification for old news, and keeps the old count until the next change; with OpenIM's own server too.
    until_members(bob, group_id, {alice.user_id, bob.user_id})

    alice.call("inviteUserToGroup", {"groupID": group_id, "reason": "", "userIDList": [carol.user_id]})
    for user in (alice, bob):
        until_count(user, 3)
    alice.call("kickGroupMember", {"groupID": group_id, "reason": "", "userIDList": [carol.user_id]})
    for user in (alice, bob):
        until_count(user, 2)
    bob.call("logout")
    alice.call("inviteUserToGroup", {"groupID": group_id, "reason": "", "userIDList": [carol.user_id, dave.user_id]})
    until_count(alice, 4)

    bob.login(sdk.stack)
    until_count(bob, 4)


def test_who_leaves_is_gone_for_the_others(sdk: SdkBrowser) -> None:
    alice, bob = sdk.login("Alice"), sdk.login("Bob")
    group_id = create_group(alice, bob)
    until_member(bob, group_id)

    bob.call("quitGroup", group_id)

    alice.until_told("OnGroupMemberDeleted", lambda member: member["userID"] == bob.user_id)
    until_groupless(bob)
    until_members(alice, group_id, {alice.user_id})


def test_a_dismissed_group_is_nobodys(sdk: SdkBrowser) -> None:
    alice, bob = sdk.login("Alice"), sdk.login("Bob")
    group_id = create_group(alice, bob)
    until_member(bob, group_id)

    alice.call("dismissGroup", group_id)

    assert bob.until_told("OnGroupDismissed")["groupID"] == group_id
    for user in (alice, bob):
        until_groupless(user)
    with pytest.raises(Refused) as refused:
        bob.say("anybody?", group_id=group_id)
    assert refused.value.code == 1204


def test_settings_of_a_group_reach_its_members(sdk: SdkBrowser) -> None:
    alice, bob = sdk.login("Alice"), sdk.login("Bob")
    group_id = create_group(alice, bob)
    until_members(bob, group_id, {alice.user_id, bob.user_id})

    alice.call("setGroupInfo", {"groupID": group_id, "groupName": "Square table"})
    bob.until(lambda: the_group_of(bob)["groupName"] == "Square table", "the name")
    alice.call("setGroupMemberInfo", {"groupID": group_id, "userID": bob.user_id, "nickname": "Robert"})
    bob.until_told("OnGroupMemberInfoChanged", lambda member: member["nickname"] == "Robert")
    # The package's own wrapper hands over an argument more than its binary takes.
    alice.call_core("changeGroupMute", group_id, True)
    bob.until(lambda: the_group_of(bob)["status"] == GROUP_MUTED, "the mute")

    with pytest.raises(Refused) as refused:
        bob.say("may I?", group_id=group_id)
    assert refused.value.code == 1403
    alice.call("transferGroupOwner", {"groupID": group_id, "newOwnerUserID": bob.user_id})
    roles = {alice.user_id: 20, bob.user_id: 100}
    for user in (alice, bob):
        until_roles(user, group_id, roles)


def test_an_application_is_accepted(sdk: SdkBrowser) -> None:
    alice, bob = sdk.login("Alice"), sdk.login("Bob")
    group_id = create_group(alice, needVerification=1)

    bob.call("joinGroup", {"groupID": group_id, "reqMsg": "may I?", "joinSource": 3})
    told = alice.until_told("OnGroupApplicationAdded")
    assert (told["userID"], told["reqMsg"]) == (bob.user_id, "may I?")
    alice.call("acceptGroupApplication", {"groupID": group_id, "fromUserID": bob.user_id, "handleMsg": "come in"})

    assert bob.until_told("OnGroupApplicationAccepted")["handledMsg"] == "come in"
    until_member(bob, group_id)
    until_members(alice, group_id, {alice.user_id, bob.user_id})
