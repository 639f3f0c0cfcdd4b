"""Groups on the wire: what members are told, and who may speak."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from imserver.constants import MsgFrom, SessionType
from imserver.protocol.gen.sdkws_pb2 import MsgData
from tests.acceptance.group_api import GroupApi
from tests.client import Api, Client, Connect, RequestRefused, text_message, text_of

pytestmark = pytest.mark.acceptance

#: Notification -> entities in its tips that a client dereferences unseen.
NEVER_NULL = {
    1501: {"group", "opUser", "groupOwnerUser", "memberList"},
    1502: {"group", "opUser"},
    1504: {"group", "quitUser"},
    1507: {"group", "opUser", "newGroupOwner", "oldGroupOwnerInfo"},
    1508: {"group", "opUser", "kickedUserList"},
    1509: {"group", "opUser", "invitedUserList", "inviterUser"},
    1510: {"group", "entrantUser"},
    1511: {"group", "opUser"},
    1512: {"group", "opUser", "mutedUser"},
    1513: {"group", "opUser", "mutedUser"},
    1514: {"group", "opUser"},
    1515: {"group", "opUser"},
    1516: {"group", "opUser", "changedUser"},
    1517: {"group", "opUser", "changedUser"},
    1518: {"group", "opUser", "changedUser"},
    1519: {"group", "opUser"},
    1520: {"group", "opUser"},
}
#: Those that are no line in the chat.
SILENT = {1502, 1516, 1517, 1518}


@pytest.fixture
def people(api: Api, names: Iterator[str]) -> GroupApi:
    return GroupApi(api, names)


def group_message(sender: str, group_id: str, text: str) -> MsgData:
    msg = text_message(sender, "", text)
    msg.sessionType, msg.groupID = SessionType.GROUP, group_id
    return msg


def tips_of(msg: MsgData) -> dict[str, Any]:
    tips: dict[str, Any] = orjson.loads(orjson.loads(msg.content)["detail"])
    return tips


async def told(client: Client, group_id: str, *content_types: int) -> dict[int, MsgData]:
    """The group's notifications of these types, when all of them have come."""

    def found() -> dict[int, MsgData]:
        return {msg.contentType: msg for msg in client.msgs[f"n_{group_id}"]}

    await client.until(lambda: found().keys() >= set(content_types))
    return found()


async def test_a_new_group_is_told_twice_as_a_line_and_as_an_event(people: GroupApi, connect: Connect) -> None:
    owner, member = await people.users(2)
    sockets = [await connect(user) for user in (owner, member)]

    group_id = await people.create(owner, member)

    for socket in sockets:
        event = (await told(socket, group_id, 1501))[1501]
        await socket.until(lambda socket=socket: socket.msgs[f"sg_{group_id}"])
        (line,) = socket.msgs[f"sg_{group_id}"]
        assert (line.seq, event.seq, line.contentType) == (1, 0, 1501)
        assert (line.clientMsgID, line.content) == (event.clientMsgID, event.content)
        assert (event.sessionType, event.groupID, event.recvID, event.sendID) == (3, group_id, group_id, owner)
        assert (event.msgFrom, event.senderNickname, event.options["isNotNotification"]) == (
            MsgFrom.SYSTEM,
            owner,
            False,
        )
        tips = tips_of(event)
        assert (tips["group"]["groupID"], tips["group"]["memberCount"]) == (group_id, 2)
        assert [item["userID"] for item in tips["memberList"]] == [owner, member]
        assert tips["groupOwnerUser"]["roleLevel"] == 100


async def test_what_is_not_to_be_said_aloud_is_an_event_only(people: GroupApi, connect: Connect) -> None:
    owner, member, other = await people.users(3)
    socket = await connect(owner)

    group_id = await people.create(owner, member, send_message=False)
    body = {"groupID": group_id, "sendMessage": False}
    await people.call(owner, "invite_user_to_group", invitedUserIDs=[other], **body)
    await people.call(owner, "kick_group", kickedUserIDs=[other], **body)
    await people.call(owner, "dismiss_group", **body)

    await told(socket, group_id, 1501, 1509, 1508, 1511)
    assert socket.msgs[f"sg_{group_id}"] == []


async def test_a_new_group_tells_its_announcement_after_its_beginning(people: GroupApi, connect: Connect) -> None:
    owner, member = await people.users(2)
    socket = await connect(member)

    group_id = await people.create(owner, member, notification="read this", send_message=False)

    events = await told(socket, group_id, 1501, 1519)
    assert [msg.contentType for msg in socket.msgs[f"n_{group_id}"]] == [1501, 1519]
    assert tips_of(events[1519])["group"]["notification"] == "read this"
    await socket.until(lambda: socket.msgs[f"sg_{group_id}"])
    assert [msg.contentType for msg in socket.msgs[f"sg_{group_id}"]] == [1519]


async def test_an_announcement_is_a_line_and_taking_it_down_is_none(people: GroupApi, connect: Connect) -> None:
    owner, member = await people.users(2)
    socket = await connect(member)
    group_id = await people.create(owner, member, send_message=False)

    def announcements() -> list[str]:
        events = [msg for msg in socket.msgs[f"n_{group_id}"] if msg.contentType == 1519]
        return [tips_of(msg)["group"]["notification"] for msg in events]

    for text in (" read this\n", " \n"):
        await people.call(owner, "set_group_info_ex", groupID=group_id, notification=text)
    await people.call(owner, "set_group_info_ex", groupID=group_id, groupName="new")

    await told(socket, group_id, 1520)
    assert announcements() == ["read this", ""]
    lines = socket.msgs[f"sg_{group_id}"]
    await socket.until(lambda: len(lines) == 2)
    assert [(msg.contentType, msg.seq) for msg in lines] == [(1519, 1), (1520, 2)]


async def test_a_setting_that_sets_nothing_is_told_nobody(people: GroupApi, connect: Connect) -> None:
    owner, member = await people.users(2)
    socket = await connect(member)
    group_id = await people.create(owner, member)
    before = await people.changed(owner, group_id, {})

    await people.call(owner, "set_group_info_ex", groupID=group_id)
    nothing = {"groupID": group_id, "groupName": " ", "notification": " ", "introduction": "", "faceURL": ""}
    await people.call(owner, "set_group_info", groupInfoForSet=nothing)
    await people.call(owner, "mute_group", groupID=group_id)

    muted = await told(socket, group_id, 1514)
    assert [msg.contentType for msg in socket.msgs[f"n_{group_id}"]] == [1501, 1514]
    assert tips_of(muted[1514])["groupMemberVersion"] == before["version"] + 1


async def test_every_notification_names_all_that_clients_read_unseen(people: GroupApi, connect: Connect) -> None:
    owner, member, guest, visitor = await people.users(4)
    socket = await connect(owner)
    group_id = await people.create(owner, member, needVerification=2)

    async def do(by: str, route: str, **body: Any) -> None:
        await people.call(by, route, groupID=group_id, **body)

    async def set_member(user_id: str, **changes: Any) -> None:
        change = {"groupID": group_id, "userID": user_id, **changes}
        await people.call(owner, "set_group_member_info", members=[change])

    await do(owner, "set_group_info_ex", introduction="x", groupName="new", notification="read")
    await do(member, "invite_user_to_group", invitedUserIDs=[guest])
    await do(visitor, "join_group", joinSource=3)
    await do(owner, "mute_group_member", userID=guest, mutedSeconds=60)
    await do(owner, "cancel_mute_group_member", userID=guest)
    await do(owner, "mute_group")
    await do(owner, "cancel_mute_group")
    await set_member(guest, nickname="g", roleLevel=60)
    await set_member(guest, roleLevel=20)
    await do(visitor, "quit_group", userID=visitor)
    await do(owner, "kick_group", kickedUserIDs=[guest])
    await do(owner, "transfer_group", oldOwnerUserID=owner, newOwnerUserID=member)
    before = await people.changed(owner, group_id, {})
    await do(member, "dismiss_group")

    found = await told(socket, group_id, *NEVER_NULL)
    for content_type, names in NEVER_NULL.items():
        tips = tips_of(found[content_type])
        assert [name for name in names if not tips[name]] == [], content_type
        assert tips["group"]["groupID"] == group_id
        if content_type != 1511:
            assert (tips["groupMemberVersionID"], tips["groupMemberVersion"] > 0) == (before["versionID"], True)
    assert tips_of(found[1507])["groupMemberVersion"] == before["version"]
    assert tips_of(found[1512])["mutedSeconds"] == 60
    assert tips_of(found[1517])["groupSortVersion"] > 0
    assert tips_of(found[1509])["inviterUser"]["userID"] == member
    lines = [msg.contentType for msg in socket.msgs[f"sg_{group_id}"]]
    await socket.until(lambda: {msg.contentType for msg in socket.msgs[f"sg_{group_id}"]} >= NEVER_NULL.keys() - SILENT)
    assert SILENT & set(lines) == set()
    assert [msg.seq for msg in socket.msgs[f"sg_{group_id}"]] == list(range(1, len(NEVER_NULL) - len(SILENT) + 1))


async def test_versions_in_notifications_count_on_without_a_hole(people: GroupApi, connect: Connect) -> None:
    owner, member, first, second = await people.users(4)
    socket = await connect(owner)
    group_id = await people.create(owner, member)
    start = (await people.changed(owner, group_id, {}))["version"]

    await people.call(owner, "invite_user_to_group", groupID=group_id, invitedUserIDs=[first, second])
    await people.call(owner, "mute_group", groupID=group_id)
    await people.call(owner, "kick_group", groupID=group_id, kickedUserIDs=[first, second])

    found = await told(socket, group_id, 1509, 1514, 1508)
    versions = [tips_of(found[content_type])["groupMemberVersion"] for content_type in (1509, 1514, 1508)]
    assert versions == [start + 1, start + 2, start + 3]


async def test_who_leaves_is_told_and_hears_nothing_more(people: GroupApi, connect: Connect) -> None:
    owner, kicked, quitting = await people.users(3)
    sockets = {user: await connect(user) for user in (owner, kicked, quitting)}
    group_id = await people.create(owner, kicked, quitting)

    await people.call(owner, "kick_group", groupID=group_id, kickedUserIDs=[kicked])
    await people.call(quitting, "quit_group", groupID=group_id, userID=quitting)
    await people.call(owner, "mute_group", groupID=group_id)

    await told(sockets[owner], group_id, 1508, 1504, 1514)
    assert tips_of((await told(sockets[kicked], group_id, 1508))[1508])["kickedUserList"][0]["userID"] == kicked
    assert tips_of((await told(sockets[quitting], group_id, 1504))[1504])["quitUser"]["userID"] == quitting
    for user in (kicked, quitting):
        assert 1514 not in {msg.contentType for msg in sockets[user].msgs[f"n_{group_id}"]}


async def test_the_end_of_a_group_is_told_to_all_its_members(people: GroupApi, connect: Connect) -> None:
    owner, member = await people.users(2)
    sockets = [await connect(user) for user in (owner, member)]
    group_id = await people.create(owner, member)

    await people.call(owner, "dismiss_group", groupID=group_id)

    for socket in sockets:
        tips = tips_of((await told(socket, group_id, 1511))[1511])
        assert (tips["group"]["status"], tips["opUser"]["userID"], tips["opUser"]["roleLevel"]) == (2, owner, 100)


async def test_more_members_than_a_notification_names_are_invited_in_parts(people: GroupApi, connect: Connect) -> None:
    owner, *guests = await people.users(121)
    socket = await connect(owner)
    last = await connect(guests[-1])
    group_id = await people.create(owner)

    await people.call(owner, "invite_user_to_group", groupID=group_id, invitedUserIDs=guests)

    def invited() -> list[str]:
        events = [msg for msg in socket.msgs[f"n_{group_id}"] if msg.contentType == 1509]
        return [item["userID"] for msg in events for item in tips_of(msg)["invitedUserList"]]

    await socket.until(lambda: len(invited()) == 120)
    assert invited() == guests
    await last.until(lambda: any(guests[-1] in msg.content.decode() for msg in last.msgs[f"n_{group_id}"]))


async def test_an_application_is_told_to_owner_admins_and_applicant(people: GroupApi, connect: Connect) -> None:
    owner, admin, member, user = await people.users(4)
    group_id = await people.create(owner, member, admins=(admin,))
    sockets = {name: await connect(name) for name in (owner, admin, member, user)}

    def seen(name: str, content_type: int) -> list[MsgData]:
        return [msg for msgs in sockets[name].msgs.values() for msg in msgs if msg.contentType == content_type]

    await people.call(user, "join_group", groupID=group_id, joinSource=3, reqMessage="please")
    for name in (owner, admin, user):
        await sockets[name].until(lambda name=name: seen(name, 1503))
        tips = tips_of(seen(name, 1503)[0])
        assert (tips["applicant"]["userID"], tips["reqMsg"], len(tips["uuid"])) == (user, "please", 32)
        assert tips["request"]["userInfo"]["userID"] == user
        assert tips["request"]["groupInfo"]["groupID"] == tips["group"]["groupID"] == group_id
    answer = {"groupID": group_id, "fromUserID": user, "handledMsg": "yes", "handleResult": 1}
    await people.call(admin, "group_application_response", **answer)

    await sockets[user].until(lambda: seen(user, 1505))
    accepted = tips_of(seen(user, 1505)[0])
    assert (accepted["receiverAs"], accepted["handleMsg"], accepted["opUser"]["userID"]) == (0, "yes", admin)
    assert accepted["request"]["handleResult"] == 1
    await sockets[owner].until(lambda: seen(owner, 1505))
    assert tips_of(seen(owner, 1505)[0])["receiverAs"] == 1
    entered = await told(sockets[user], group_id, 1510)
    assert tips_of(entered[1510])["entrantUser"]["userID"] == user
    assert seen(member, 1503) == seen(member, 1505) == []


async def test_an_invitation_that_waits_is_told_to_owner_admins_and_who_invites(
    people: GroupApi, connect: Connect
) -> None:
    owner, admin, member, other, user = await people.users(5)
    group_id = await people.create(owner, member, other, admins=(admin,), needVerification=1)
    sockets = {name: await connect(name) for name in (owner, admin, member, other, user)}

    def seen(name: str, content_type: int) -> list[MsgData]:
        return [msg for msgs in sockets[name].msgs.values() for msg in msgs if msg.contentType == content_type]

    await people.call(member, "invite_user_to_group", groupID=group_id, invitedUserIDs=[user], reason="a friend")
    for name in (owner, admin, member):
        await sockets[name].until(lambda name=name: seen(name, 1503))
        tips = tips_of(seen(name, 1503)[0])
        assert (tips["applicant"]["userID"], tips["reqMsg"]) == (user, "a friend")
        assert tips["request"]["inviterUserID"] == member
    await people.call(owner, "group_application_response", groupID=group_id, fromUserID=user, handleResult=-1)

    await sockets[user].until(lambda: seen(user, 1506))
    assert seen(user, 1503) == seen(other, 1503) == []


# -- speaking


async def test_a_message_to_a_group_reaches_every_member_and_nobody_else(people: GroupApi, connect: Connect) -> None:
    owner, member, stranger = await people.users(3)
    group_id = await people.create(owner, member)
    sockets = {user: await connect(user) for user in (owner, member, stranger)}
    chat = f"sg_{group_id}"

    answer = await sockets[member].send_msg(group_message(member, group_id, "hello"))

    for user in (owner, member):
        await sockets[user].until(lambda user=user: [m for m in sockets[user].msgs[chat] if m.contentType == 101])
        (msg,) = [item for item in sockets[user].msgs[chat] if item.contentType == 101]
        assert (msg.seq, text_of(msg), msg.serverMsgID, msg.groupID) == (2, "hello", answer.serverMsgID, group_id)
    assert sockets[stranger].msgs[chat] == []
    late = await connect(owner, platform_id=2)
    assert (await late.max_seqs())[chat] == 2
    assert [item.contentType for item in await late.pull(chat, 1, 2)] == [1501, 101]


async def test_who_may_not_speak_is_told_why(people: GroupApi, connect: Connect) -> None:
    owner, admin, member, muted, stranger = await people.users(5)
    group_id = await people.create(owner, member, muted, admins=(admin,))
    sockets = {user: await connect(user) for user in (owner, admin, member, muted, stranger)}

    async def code(user: str, group: str = group_id) -> int:
        try:
            await sockets[user].send_msg(group_message(user, group, "may I?"))
        except RequestRefused as refused:
            return refused.code
        return 0

    await people.call(owner, "mute_group_member", groupID=group_id, userID=muted, mutedSeconds=60)
    await people.call(None, "mute_group_member", groupID=group_id, userID=owner, mutedSeconds=60)
    assert await code(stranger) == 1203
    assert await code(member, "none") == 1004
    assert await code(muted) == 1402
    assert await code(owner) == 0
    await people.call(owner, "cancel_mute_group_member", groupID=group_id, userID=muted)
    assert await code(muted) == 0
    await people.call(owner, "mute_group", groupID=group_id)
    assert await code(member) == 1403
    assert (await code(admin), await code(owner)) == (0, 0)
    await people.call(owner, "cancel_mute_group", groupID=group_id)
    await people.call(owner, "invite_user_to_group", groupID=group_id, invitedUserIDs=[stranger])
    assert await code(stranger) == 0
    second = await people.create(owner, member)
    await people.call(owner, "dismiss_group", groupID=second)
    assert await code(member, second) == 1204


async def test_who_left_pulls_what_was_said_until_then(people: GroupApi, connect: Connect) -> None:
    owner, member = await people.users(2)
    speaker, leaver = await connect(owner), await connect(member)
    group_id = await people.create(owner, member)
    chat = f"sg_{group_id}"
    await speaker.send_msg(group_message(owner, group_id, "for all"))
    await leaver.until(lambda: len(leaver.msgs[chat]) == 2)

    await people.call(owner, "kick_group", groupID=group_id, kickedUserIDs=[member])
    await told(leaver, group_id, 1508)
    await speaker.send_msg(group_message(owner, group_id, "for us"))
    await speaker.until(
        lambda: any(item.contentType == 101 and text_of(item) == "for us" for item in speaker.msgs[chat])
    )

    seen = [item for item in await leaver.pull(chat, 1, 10) if item.status < 4]
    assert [item.contentType for item in seen] == [1501, 101]
    assert b"for us" not in b"".join(item.content for item in leaver.msgs[chat])


async def test_who_joins_later_reads_what_was_said_before(people: GroupApi, connect: Connect) -> None:
    owner, member = await people.users(2)
    speaker = await connect(owner)
    group_id = await people.create(owner)
    await speaker.send_msg(group_message(owner, group_id, "before"))
    await speaker.until(lambda: len(speaker.msgs[f"sg_{group_id}"]) == 2)

    await people.call(owner, "invite_user_to_group", groupID=group_id, invitedUserIDs=[member])

    reader = await connect(member)
    assert [item.contentType for item in (await reader.pull(f"sg_{group_id}", 1, 2))] == [1501, 101]
