"""What OpenIM's own test and stress programs, and its Go client after them, send: the bodies as Go's encoder writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.group_api import GroupApi
from tests.client import Api, Client, Connect

pytestmark = pytest.mark.acceptance

Json = dict[str, Any]

#: Fields of a group that a program leaves alone are there all the same, with their zero values.
UNSET: Json = {
    "notification": "",
    "introduction": "",
    "faceURL": "",
    "ownerUserID": "",
    "createTime": 0,
    "memberCount": 0,
    "ex": "",
    "status": 0,
    "creatorUserID": "",
    "needVerification": 0,
    "lookMemberInfo": 0,
    "applyMemberFriend": 0,
    "notificationUpdateTime": 0,
    "notificationUserID": "",
}


@pytest.fixture
def people(api: Api, names: Iterator[str]) -> GroupApi:
    return GroupApi(api, names)


def creation(group_id: str, owner: str, members: list[str] | None) -> Json:
    """A list that was never filled is null."""
    info = {**UNSET, "groupID": group_id, "groupName": group_id, "groupType": 2}
    return {
        "memberUserIDs": members,
        "groupInfo": info,
        "adminUserIDs": None,
        "ownerUserID": owner,
        "sendMessage": None,
    }


def group_text(sender: str, group_id: str, text: str) -> Json:
    return {
        "recvID": "",
        "sendID": sender,
        "groupID": group_id,
        "senderNickname": sender,
        "senderFaceURL": "",
        "senderPlatformID": 0,
        "content": {"content": text},
        "contentType": 101,
        "sessionType": 3,
        "isOnlineOnly": False,
        "notOfflinePush": False,
        "sendTime": 0,
        "offlinePushInfo": None,
        "ex": "",
    }


async def line(client: Client, group_id: str, content_type: int) -> int:
    """Seq of a line of this kind in the group's chat, when it has come."""
    chat = f"sg_{group_id}"
    await client.until(lambda: any(item.contentType == content_type for item in client.msgs[chat]))
    (seq,) = (item.seq for item in client.msgs[chat] if item.contentType == content_type)
    return int(seq)


async def test_the_stress_test_makes_its_group_and_talks_in_it(people: GroupApi, connect: Connect) -> None:
    owner, member, late = await people.users(3)
    group_id = f"StressTestGroup_0_{owner}"
    listener = await connect(member)

    data = await people.call(None, "create_group", **creation(group_id, owner, [member]))
    await people.call(
        None, "invite_user_to_group", groupID=group_id, reason="", invitedUserIDs=[late], sendMessage=None
    )
    await people.api.call("/msg/send_msg", group_text(owner, group_id, "index 0"))

    assert data["groupInfo"]["groupID"] == group_id
    assert set(await people.roles(group_id)) == {owner, member, late}
    chat = listener.msgs[f"sg_{group_id}"]
    await listener.until(lambda: any(item.contentType == 101 for item in chat))
    assert [item.seq for item in chat] == [1, 2, 3]
    events = listener.msgs[f"n_{group_id}"]
    await listener.until(lambda: [item.contentType for item in events] == [1501, 1509])


async def test_a_group_may_start_with_nobody_but_its_owner(people: GroupApi) -> None:
    (owner,) = await people.users(1)

    for name, members in (("empty", []), ("null", None)):
        await people.call(None, "create_group", **creation(f"v2_StressTest_{name}_{owner}", owner, members))

        assert await people.roles(f"v2_StressTest_{name}_{owner}") == {owner: 100}


async def test_a_group_may_start_with_a_thousand_members_beside_its_owner(people: GroupApi) -> None:
    owner, *members = await people.users(1000)
    (one_more, another) = await people.users(2)

    assert await people.code(None, "create_group", **creation("", owner, [*members, one_more, another])) == 1001
    data = await people.call(owner, "create_group", **creation("", owner, [*members, one_more]))

    assert data["groupInfo"]["memberCount"] == 1001


async def test_a_group_must_not_be_named_like_the_chat_of_two_users(people: GroupApi) -> None:
    first, second = sorted(await people.users(2))

    assert await people.code(None, "create_group", **creation(f"{first}_{second}", first, [])) == 1001
    assert await people.code(None, "create_group", **creation(f"{first}_{first}", second, [])) == 1001
    assert await people.code(None, "create_group", **creation(f"{second}_{first}", first, [])) == 0
    assert await people.code(None, "create_group", **creation(f"{first}_nobody", first, [])) == 0


async def test_a_user_must_not_give_a_group_id_with_underscores(people: GroupApi) -> None:
    owner, member = await people.users(2)

    assert await people.code(owner, "create_group", **creation(f"team_{owner}", owner, [member])) == 1001
    assert await people.code(owner, "create_group", **creation(f"team-{owner}", owner, [member])) == 0


@pytest.mark.parametrize(("ending", "content_type"), [("kick_group", 1508), ("dismiss_group", 1511)])
async def test_the_line_that_ends_a_group_for_somebody_can_be_marked_as_read(
    people: GroupApi, connect: Connect, ending: str, content_type: int
) -> None:
    owner, member = await people.users(2)
    listener = await connect(member)
    group_id = await people.create(owner, member)
    await line(listener, group_id, 1501)
    body: Json = {"kickedUserIDs": [member]} if ending == "kick_group" else {}
    await people.call(owner, ending, groupID=group_id, **body)
    seq = await line(listener, group_id, content_type)
    token = await people.token(member)
    read = {"userID": member, "conversationID": f"sg_{group_id}", "hasReadSeq": seq}

    set_read = await people.api.post("/msg/set_conversation_has_read_seq", read, token=token)
    marked = await people.api.post("/msg/mark_conversation_as_read", read, token=token)
    beyond = await people.api.post("/msg/mark_conversation_as_read", {**read, "hasReadSeq": seq + 1}, token=token)

    assert (set_read["errCode"], marked["errCode"], beyond["errCode"]) == (0, 0, 1001)
    asked = {"userID": member, "conversationIDs": [f"sg_{group_id}"]}
    data = await people.api.call("/msg/get_conversations_has_read_and_max_seq", asked, token=token)
    seqs = data["seqs"][f"sg_{group_id}"]
    assert seqs["hasReadSeq"] == seqs["maxSeq"] <= seq
