"""Friends and blacklists on the wire: what the two sides are told, and what they may send from then on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from imserver.constants import MsgFrom
from imserver.protocol.gen.sdkws_pb2 import MsgData
from tests.acceptance.friend_api import FriendApi, version_of
from tests.client import Api, Client, Connect, RequestRefused
from tests.stack import Stack

pytestmark = pytest.mark.acceptance


@pytest.fixture
def people(api: Api, names: Iterator[str]) -> FriendApi:
    return FriendApi(api, names)


def tips_of(msg: MsgData) -> dict[str, Any]:
    tips: dict[str, Any] = orjson.loads(orjson.loads(msg.content)["detail"])
    return tips


async def told(client: Client, content_type: int, first: str, second: str) -> MsgData:
    """The last notification of a type between two users, when it has come; not stored, from the server."""
    conversation_id = f"n_{min(first, second)}_{max(first, second)}"

    def found() -> list[MsgData]:
        return [msg for msg in client.msgs[conversation_id] if msg.contentType == content_type]

    await client.until(found)
    msg = found()[-1]
    assert (msg.seq, msg.msgFrom, msg.sessionType) == (0, MsgFrom.SYSTEM, 1)
    return msg


async def test_both_sides_hear_of_an_application_and_its_answer(people: FriendApi, connect: Connect) -> None:
    alice, bob = await people.users(2)
    sockets = [await connect(user) for user in (alice, bob)]
    from_to = {"fromUserID": alice, "toUserID": bob}

    await people.apply(alice, bob, reqMsg="hi")
    for socket in sockets:
        msg = await told(socket, 1203, alice, bob)
        assert (msg.sendID, msg.recvID) == (alice, bob)
        request = (await people.sent(alice))[0]
        assert tips_of(msg) == {"fromToUserID": from_to, "request": request}

    await people.answer(bob, alice, -1, handleMsg="no")
    for socket in sockets:
        msg = await told(socket, 1202, alice, bob)
        assert (msg.sendID, msg.recvID) == (bob, alice)
        request = (await people.sent(alice))[0]
        assert tips_of(msg) == {"fromToUserID": from_to, "handleMsg": "no", "request": request}
        assert request["handleResult"] == -1

    await people.apply(alice, bob)
    await people.answer(bob, alice, handleMsg="yes")
    version = version_of(await people.changed(alice))
    for socket in sockets:
        event = await told(socket, 1201, alice, bob)
        assert (event.sendID, event.recvID, event.senderNickname) == (bob, alice, bob)
        tips = tips_of(event)
        assert tips == {
            "fromToUserID": from_to,
            "handleMsg": "yes",
            "request": (await people.sent(alice))[0],
            "friendVersion": version["version"],
            "friendVersionID": version["versionID"],
        }
        # The chat shows it as well, as its first line.
        await socket.until(lambda socket=socket: socket.chat_with(bob if socket.user_id == alice else alice))
        (line,) = socket.chat_with(bob if socket.user_id == alice else alice)
        assert (line.seq, line.contentType, line.clientMsgID) == (1, 1201, event.clientMsgID)


async def test_both_sides_hear_of_an_import_a_deletion_and_a_remark(people: FriendApi, connect: Connect) -> None:
    alice, bob, carol = await people.users(3)
    sockets = [await connect(user) for user in (alice, bob)]

    await people.befriend(alice, bob, carol)
    for socket in sockets:
        tips = tips_of(await told(socket, 1201, alice, bob))
        assert (tips["fromToUserID"], tips["request"]) == ({"fromUserID": alice, "toUserID": bob}, None)
    await people.call(alice, "set_friend_remark", ownerUserID=alice, friendUserID=bob, remark="b")
    version = version_of(await people.changed(alice))
    for socket in sockets:
        tips = tips_of(await told(socket, 1206, alice, bob))
        assert tips["fromToUserID"] == {"fromUserID": alice, "toUserID": bob}
        assert (tips["friendVersion"], tips["friendVersionID"]) == (version["version"], version["versionID"])
    await people.delete(alice, bob)
    version = version_of(await people.changed(alice))
    for socket in sockets:
        msg = await told(socket, 1205, alice, bob)
        assert (msg.sendID, msg.recvID) == (alice, bob)
        assert tips_of(msg) == {
            "fromToUserID": {"fromUserID": alice, "toUserID": bob},
            "friendVersion": version["version"],
            "friendVersionID": version["versionID"],
        }


async def test_notes_on_friends_are_told_to_the_owners_devices_only(people: FriendApi, connect: Connect) -> None:
    alice, bob = await people.users(2)
    await people.befriend(alice, bob)
    owner, friend = await connect(alice), await connect(bob)

    await people.update(alice, bob)
    await people.update(alice, bob, isPinned=True, ex="{}")
    await people.block(alice, bob)

    tips = tips_of(await told(owner, 1210, alice, alice))
    assert (tips["fromToUserID"], tips["friendIDs"]) == ({"fromUserID": alice, "toUserID": alice}, [bob])
    version = version_of(await people.changed(alice))
    assert (tips["friendVersion"], tips["friendVersionID"]) == (version["version"], version["versionID"])
    await told(friend, 1207, alice, bob)
    assert len([msg for msgs in owner.msgs.values() for msg in msgs if msg.contentType == 1210]) == 1
    assert not [msg for msgs in friend.msgs.values() for msg in msgs if msg.contentType == 1210]


async def test_a_blocked_user_is_told_and_sends_nothing_until_it_is_unblocked(
    people: FriendApi, connect: Connect
) -> None:
    alice, bob = await people.users(2)
    sockets = [await connect(user) for user in (alice, bob)]
    sender = sockets[1]
    await sender.send_text(alice, "hello")
    from_to = {"fromToUserID": {"fromUserID": alice, "toUserID": bob}}

    await people.block(alice, bob)

    for socket in sockets:
        msg = await told(socket, 1207, alice, bob)
        assert (msg.sendID, msg.recvID, tips_of(msg)) == (alice, bob, from_to)
    # The notification went through log and worker after the change was published.
    with pytest.raises(RequestRefused, match="1302"):
        await sender.send_text(alice, "hello?")
    await sockets[0].send_text(bob, "no")
    await people.unblock(alice, bob)
    for socket in sockets:
        assert tips_of(await told(socket, 1208, alice, bob)) == from_to
    await sender.send_text(alice, "again")


async def test_a_friends_new_name_is_in_the_list_at_once(people: FriendApi, stack: Stack) -> None:
    alice, bob = await people.users(2)
    await people.befriend(alice, bob)
    stack.database["user"].update_one({"user_id": bob}, {"$set": {"nickname": "Robert"}})

    (friend,) = await people.friends(alice)

    assert friend["friendUser"]["nickname"] == "Robert"
