"""/msg: sending from the app server, and how far a conversation was read (protocol: rest.md 2.3, 2.4, 3.4)."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from imserver.constants import Option, SessionType
from imserver.protocol.conversations import notification_twin, single_conversation_id
from imserver.protocol.gen import sdkws_pb2
from tests.client import ANSWER_SECONDS, Api, Client, Connect, text_of
from tests.stack import POLL_SECONDS, Stack, wait_until

pytestmark = pytest.mark.acceptance

CONTENT_TYPES = (101, 102, 103, 104, 105, 106, 110, 114, 118)
REFUSED_CONTENT_TYPES = (-1, 0, 100, 107, 108, 109, 111, 113, 115, 119, 1201, 1399, 1401, 2101, 2200, 5000, 9999)
#: More than a message may hold, less than a body may.
TOO_LARGE_BYTES = 200_000
STORED_SECONDS = 5


def message(sender: str, receiver: str, text: str = "hello", /, **change: Any) -> dict[str, Any]:
    """Body of /msg/send_msg."""
    return {
        "sendID": sender,
        "recvID": receiver,
        "senderPlatformID": 1,
        "sessionType": 1,
        "contentType": 101,
        "content": {"content": text},
        **change,
    }


def oa_conversation_id(user_a: str, user_b: str) -> str:
    return single_conversation_id(user_a, user_b).replace("si_", "sn_", 1)


async def pulled(client: Client, conversation_id: str, count: int) -> list[sdkws_pb2.MsgData]:
    """The first messages of a conversation, once they have their seqs."""
    async with asyncio.timeout(ANSWER_SECONDS):
        while True:
            if (await client.max_seqs()).get(conversation_id, 0) >= count:
                return await client.pull(conversation_id, 1, count)
            await asyncio.sleep(POLL_SECONDS)


async def pair(api: Api, names: Iterator[str]) -> tuple[str, str]:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    return alice, bob


# -- sending


async def test_the_answer_names_the_message_and_the_receiver_gets_it_as_it_was_sent(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = await pair(api, names)
    receiver = await connect(bob)
    push = {"title": "t", "desc": "d", "ex": "e", "iOSPushSound": "s", "iOSBadgeCount": True}
    more = {"senderNickname": "Ålice", "senderFaceURL": "http://f", "ex": "extra", "offlinePushInfo": push}
    before = time.time_ns() // 1_000_000

    data = await api.call("/msg/send_msg", message(alice, bob, "héllo", **more))

    assert set(data) == {"serverMsgID", "clientMsgID", "sendTime"}
    await receiver.until(lambda: receiver.chat_with(alice))
    (msg,) = receiver.chat_with(alice)
    assert (msg.serverMsgID, msg.clientMsgID, msg.sendTime) == (
        data["serverMsgID"],
        data["clientMsgID"],
        data["sendTime"],
    )
    assert len(msg.serverMsgID) == 32
    assert before <= msg.sendTime <= time.time_ns() // 1_000_000
    assert msg.createTime == msg.sendTime
    assert (msg.sendID, msg.recvID, msg.senderPlatformID) == (alice, bob, 1)
    assert (msg.senderNickname, msg.senderFaceURL, msg.ex) == ("Ålice", "http://f", "extra")
    assert (msg.seq, msg.status, msg.msgFrom, msg.sessionType) == (1, 2, 200, 1)
    assert orjson.loads(msg.content) == {"content": "héllo"}
    assert (msg.offlinePushInfo.title, msg.offlinePushInfo.iOSBadgeCount) == ("t", True)


async def test_the_push_carries_the_operation_id_of_the_request(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = await pair(api, names)
    receiver = await connect(bob)
    operation_id = f"op-{secrets.token_hex(8)}"

    assert (await api.post("/msg/send_msg", message(alice, bob), operationID=operation_id))["errCode"] == 0

    await receiver.until(lambda: receiver.pushes)
    assert receiver.pushes[0].operation_id == operation_id


async def test_every_content_type_of_an_app_server_is_delivered_in_order(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = await pair(api, names)
    receiver = await connect(bob)

    for content_type in CONTENT_TYPES:
        content = {"data": str(content_type), "nested": {"list": [1, 2.5, None]}}
        await api.call("/msg/send_msg", message(alice, bob, contentType=content_type, content=content))

    msgs = await pulled(receiver, single_conversation_id(alice, bob), len(CONTENT_TYPES))
    assert [msg.contentType for msg in msgs] == list(CONTENT_TYPES)
    assert [orjson.loads(msg.content)["data"] for msg in msgs] == [str(item) for item in CONTENT_TYPES]
    assert orjson.loads(msgs[0].content)["nested"] == {"list": [1, 2.5, None]}


async def test_other_content_types_are_refused_and_leave_no_trace(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = await pair(api, names)

    codes = {
        content_type: (await api.post("/msg/send_msg", message(alice, bob, contentType=content_type)))["errCode"]
        for content_type in REFUSED_CONTENT_TYPES
    }

    assert codes == dict.fromkeys(REFUSED_CONTENT_TYPES, 1001)
    assert await (await connect(bob)).max_seqs() == {}


@pytest.mark.parametrize("session_type", [1, 3, 4, None])
async def test_an_oa_notification_is_always_of_session_4_and_the_receivers_alone(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str], session_type: int | None
) -> None:
    alice, bob = await pair(api, names)
    receiver = await connect(bob)
    conversation_id = oa_conversation_id(alice, bob)

    content = {"notificationName": "Bank", "text": "Überweisung", "mixType": 0}

    await api.call("/msg/send_msg", message(alice, bob, contentType=1400, sessionType=session_type, content=content))

    await receiver.until(lambda: receiver.msgs[conversation_id])
    (msg,) = receiver.msgs[conversation_id]
    # Clients read it as they read notifications.
    assert orjson.loads(orjson.loads(msg.content)["detail"]) == content
    assert (msg.sessionType, msg.contentType, msg.seq) == (SessionType.NOTIFICATION, 1400, 1)
    rows = stack.database["conversation"]
    wait_until(lambda: rows.count_documents({"conversation_id": conversation_id}) == 1, "the receiver's row")
    row = rows.find_one({"conversation_id": conversation_id}) or {}
    assert (row["owner_user_id"], row["conversation_type"]) == (bob, 4)


REFUSED: list[tuple[dict[str, Any], int]] = [
    ({"sessionType": 4}, 1001),
    ({"sessionType": 2}, 1001),
    ({"sessionType": 0}, 1001),
    ({"sessionType": 9}, 1001),
    ({"sessionType": 3}, 1001),
    ({"sessionType": 3, "groupID": "no_such_group"}, 1004),
    ({"recvID": ""}, 1001),
    ({"recvID": None}, 1001),
    ({"recvID": "nobody_at_all"}, 1004),
    ({"sendID": "nobody_at_all"}, 1004),
    ({"contentType": 1400, "recvID": "nobody_at_all"}, 1004),
    ({"content": None}, 1001),
    ({"content": "text"}, 1001),
    ({"content": 5}, 1001),
    ({"content": ["text"]}, 1001),
    ({"content": '{"content":"json in a string"}'}, 1001),
    ({"content": {"content": "x" * TOO_LARGE_BYTES}}, 1001),
    ({"sendTime": "now"}, 1001),
    ({"senderPlatformID": "1"}, 1001),
    ({"offlinePushInfo": "title"}, 1001),
    ({"ex": 5}, 1001),
]


async def test_a_bad_message_is_refused_with_its_code_and_changes_nothing(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = await pair(api, names)

    for change, code in REFUSED:
        envelope = await api.post("/msg/send_msg", message(alice, bob, **change))

        assert (envelope["errCode"], "data" in envelope) == (code, False), str(change)[:100]
    assert await (await connect(bob)).max_seqs() == {}


async def test_a_message_of_nobody_is_refused(api: Api, connect: Connect, names: Iterator[str]) -> None:
    alice, bob = await pair(api, names)

    codes = [(await api.post("/msg/send_msg", message(alice, bob, sendID=sender)))["errCode"] for sender in ("", None)]

    assert codes == [1001, 1001]
    assert await (await connect(bob)).max_seqs() == {}


async def test_an_online_only_message_is_pushed_once_and_kept_nowhere(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = await pair(api, names)
    receiver, sender = await connect(bob), await connect(alice)

    await api.call("/msg/send_msg", message(alice, bob, "blink", isOnlineOnly=True))
    await api.call("/msg/send_msg", message(alice, bob, "stay", isOnlineOnly=False))

    await receiver.until(lambda: len(receiver.chat_with(alice)) >= 2)
    await sender.until(lambda: sender.chat_with(bob))
    blink, stay = receiver.chat_with(alice)
    assert (text_of(blink), blink.seq) == ("blink", 0)
    off = (Option.HISTORY, Option.PERSISTENT, Option.SENDER_SYNC, Option.CONVERSATION_UPDATE)
    assert dict(blink.options) == dict.fromkeys(off, False)
    assert (text_of(stay), stay.seq, dict(stay.options)) == ("stay", 1, {})
    assert [text_of(msg) for msg in sender.chat_with(bob)] == ["stay"]
    assert (await receiver.max_seqs())[single_conversation_id(alice, bob)] == 1


async def test_a_message_that_shall_not_be_pushed_offline_says_so_in_its_options(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = await pair(api, names)
    receiver = await connect(bob)

    await api.call("/msg/send_msg", message(alice, bob, "quiet", notOfflinePush=True))
    await api.call("/msg/send_msg", message(alice, bob, "loud", notOfflinePush=False))

    quiet, loud = await pulled(receiver, single_conversation_id(alice, bob), 2)
    assert dict(quiet.options) == {Option.OFFLINE_PUSH: False}
    assert dict(loud.options) == {}


@pytest.mark.parametrize("key", ["isOnlineOnly", "notOfflinePush"])
async def test_a_switch_that_is_neither_true_nor_false_is_refused(api: Api, names: Iterator[str], key: str) -> None:
    alice, bob = await pair(api, names)

    codes = [
        (await api.post("/msg/send_msg", message(alice, bob, **{key: value})))["errCode"] for value in ("false", 1)
    ]

    assert codes == [1001, 1001]


async def test_the_keys_of_a_message_are_read_without_regard_to_case(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = await pair(api, names)
    body = {key.upper(): value for key, value in message(alice, bob, notOfflinePush=True).items()}

    assert (await api.post("/msg/send_msg", body))["errCode"] == 0

    (msg,) = await pulled(await connect(bob), single_conversation_id(alice, bob), 1)
    assert (text_of(msg), dict(msg.options)) == ("hello", {Option.OFFLINE_PUSH: False})


async def test_keys_that_the_route_does_not_have_do_not_reach_the_message(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = await pair(api, names)
    foreign = {
        "serverMsgID": "mine",
        "seq": 77,
        "status": 4,
        "msgFrom": 100,
        "isRead": True,
        "options": {Option.UNREAD_COUNT: False},
        "attachedInfo": "mine",
    }

    data = await api.call("/msg/send_msg", message(alice, bob, **foreign))

    assert "mine" not in data.values()
    (msg,) = await pulled(await connect(bob), single_conversation_id(alice, bob), 1)
    assert (msg.seq, msg.status, msg.msgFrom, msg.isRead) == (1, 2, 200, False)
    assert (dict(msg.options), msg.attachedInfo) == ({}, "")


async def test_the_app_servers_own_send_time_is_kept(api: Api, connect: Connect, names: Iterator[str]) -> None:
    alice, bob = await pair(api, names)
    receiver = await connect(bob)

    given = await api.call("/msg/send_msg", message(alice, bob, sendTime=1_700_000_000_123))
    now = await api.call("/msg/send_msg", message(alice, bob, sendTime=0))

    assert given["sendTime"] == 1_700_000_000_123
    assert abs(now["sendTime"] - time.time() * 1000) < 60_000
    msgs = await pulled(receiver, single_conversation_id(alice, bob), 2)
    assert [msg.sendTime for msg in msgs] == [given["sendTime"], now["sendTime"]]


async def test_the_same_body_sent_twice_is_two_messages(api: Api, connect: Connect, names: Iterator[str]) -> None:
    alice, bob = await pair(api, names)

    first, second = [await api.call("/msg/send_msg", message(alice, bob)) for _ in range(2)]

    assert first["clientMsgID"] != second["clientMsgID"]
    assert len(await pulled(await connect(bob), single_conversation_id(alice, bob), 2)) == 2


async def test_the_admin_may_send_in_its_own_name_and_to_oneself(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    bob = next(names)
    await api.register(bob)

    for sender, receiver in (("imAdmin", bob), (bob, bob)):
        assert (await api.post("/msg/send_msg", message(sender, receiver)))["errCode"] == 0

    client = await connect(bob)
    await pulled(client, single_conversation_id(bob, bob), 1)
    await pulled(client, single_conversation_id("imAdmin", bob), 1)


# -- marking as read


async def chat(api: Api, client: Client, sender: str, receiver: str, count: int) -> str:
    """Sends messages; returns the conversation once they have seqs."""
    for number in range(count):
        await api.call("/msg/send_msg", message(sender, receiver, str(number)))
    conversation_id = single_conversation_id(sender, receiver)
    await pulled(client, conversation_id, count)
    return conversation_id


async def read_seq(api: Api, user_id: str, conversation_id: str) -> int:
    data = await api.call("/msg/get_conversations_has_read_and_max_seq", {"userID": user_id})
    seq: int = data["seqs"][conversation_id]["hasReadSeq"]
    return seq


async def test_the_read_seq_moves_forward_only(api: Api, connect: Connect, names: Iterator[str]) -> None:
    alice, bob = await pair(api, names)
    conversation_id = await chat(api, await connect(bob), alice, bob, 4)
    token = await api.token(bob)
    body = {"userID": bob, "conversationID": conversation_id}

    seen = []
    for seq in (2, 4, 3, 4):
        envelope = await api.post("/msg/mark_conversation_as_read", {**body, "hasReadSeq": seq}, token=token)
        seen.append(await read_seq(api, bob, conversation_id))

        assert envelope == {"errCode": 0, "errMsg": "", "errDlt": ""}
    assert seen == [2, 4, 4, 4]


async def test_marking_as_read_tells_the_peer_which_messages_and_how_far(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = await pair(api, names)
    sender = await connect(alice)
    conversation_id = await chat(api, sender, alice, bob, 5)
    twin = notification_twin(conversation_id)
    token = await api.token(bob)
    body = {"userID": bob, "conversationID": conversation_id}

    await api.call("/msg/mark_conversation_as_read", {**body, "hasReadSeq": 2, "seqs": [1, 2]}, token=token)
    await api.call("/msg/mark_conversation_as_read", {**body, "hasReadSeq": 4, "seqs": [1]}, token=token)

    await sender.until(lambda: len(sender.msgs[twin]) >= 2)
    first, second = [orjson.loads(orjson.loads(msg.content)["detail"]) for msg in sender.msgs[twin]]
    assert first == {"markAsReadUserID": bob, "conversationID": conversation_id, "seqs": [1, 2], "hasReadSeq": 2}
    assert second == {"markAsReadUserID": bob, "conversationID": conversation_id, "seqs": [1, 3, 4], "hasReadSeq": 4}


async def test_messages_that_were_read_are_stored_as_read(api: Api, connect: Connect, names: Iterator[str]) -> None:
    alice, bob = await pair(api, names)
    sender = await connect(alice)
    conversation_id = await chat(api, sender, alice, bob, 3)
    body = {"userID": bob, "conversationID": conversation_id, "hasReadSeq": 2, "seqs": [1, 2]}

    await api.call("/msg/mark_conversation_as_read", body)

    deadline = time.monotonic() + STORED_SECONDS
    marks: list[bool] = []
    while marks != [True, True, False] and time.monotonic() < deadline:
        marks = [msg.isRead for msg in await sender.pull(conversation_id, 1, 3)]
        await asyncio.sleep(POLL_SECONDS)
    assert marks == [True, True, False]


REFUSED_READ_MARKS: list[tuple[dict[str, Any], int]] = [
    ({"hasReadSeq": 0}, 1001),
    ({"hasReadSeq": -1}, 1001),
    ({"hasReadSeq": None}, 1001),
    ({"hasReadSeq": 4}, 1001),
    ({"hasReadSeq": 1, "seqs": [0]}, 1001),
    ({"hasReadSeq": 1, "seqs": [1, 4]}, 1001),
    ({"hasReadSeq": 1, "conversationID": "si_somebody_else"}, 1002),
    ({"hasReadSeq": 1, "userID": ""}, 1001),
    ({"hasReadSeq": 1, "userID": "imAdmin"}, 1002),
]


async def test_a_bad_read_mark_is_refused_with_its_code_and_changes_nothing(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = await pair(api, names)
    conversation_id = await chat(api, await connect(bob), alice, bob, 3)
    token = await api.token(bob, 5)

    for change, code in REFUSED_READ_MARKS:
        body = {"userID": bob, "conversationID": conversation_id, **change}

        assert (await api.post("/msg/mark_conversation_as_read", body, token=token))["errCode"] == code, change
    assert await read_seq(api, bob, conversation_id) == 0


async def test_a_conversation_without_messages_is_not_there_to_be_read(api: Api, names: Iterator[str]) -> None:
    alice, bob = await pair(api, names)
    body = {"userID": bob, "conversationID": single_conversation_id(alice, bob), "hasReadSeq": 1}

    assert (await api.post("/msg/mark_conversation_as_read", body))["errCode"] == 1004


async def test_nobody_marks_anothers_conversation_as_read(api: Api, connect: Connect, names: Iterator[str]) -> None:
    alice, bob = await pair(api, names)
    eve = next(names)
    await api.register(eve)
    conversation_id = await chat(api, await connect(bob), alice, bob, 1)
    token = await api.token(eve)

    for user_id in (eve, bob):
        body = {"userID": user_id, "conversationID": conversation_id, "hasReadSeq": 1}

        assert (await api.post("/msg/mark_conversation_as_read", body, token=token))["errCode"] == 1002


async def test_an_oa_conversation_may_be_marked_as_read(api: Api, connect: Connect, names: Iterator[str]) -> None:
    alice, bob = await pair(api, names)
    client = await connect(bob)
    conversation_id = oa_conversation_id(alice, bob)
    await api.call("/msg/send_msg", message(alice, bob, contentType=1400))
    await pulled(client, conversation_id, 1)
    body = {"userID": bob, "conversationID": conversation_id, "hasReadSeq": 1}

    assert (await api.post("/msg/mark_conversation_as_read", body))["errCode"] == 0

    assert await read_seq(api, bob, conversation_id) == 1


# -- how far everything goes


async def test_each_conversation_tells_how_far_it_goes_and_how_far_it_was_read(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = await pair(api, names)
    carol = next(names)
    await api.register(carol)
    client = await connect(bob)
    from_alice = await chat(api, client, alice, bob, 3)
    to_carol = await chat(api, client, bob, carol, 2)

    data = await api.call("/msg/get_conversations_has_read_and_max_seq", {"userID": bob}, token=await api.token(bob, 5))

    times = {conversation_id: seqs.pop("maxSeqTime") for conversation_id, seqs in data["seqs"].items()}
    assert data == {
        "seqs": {from_alice: {"maxSeq": 3, "hasReadSeq": 0}, to_carol: {"maxSeq": 2, "hasReadSeq": 2}},
        "pinnedConversationIDs": [],
    }
    assert all(isinstance(item, int) and abs(item - time.time() * 1000) < 60_000 for item in times.values())


async def test_only_ones_own_conversations_that_were_asked_for_are_told(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = await pair(api, names)
    carol = next(names)
    await api.register(carol)
    client = await connect(bob)
    asked = await chat(api, client, alice, bob, 1)
    await chat(api, client, carol, bob, 1)
    foreign = await chat(api, await connect(carol), alice, carol, 1)
    ids = [asked, foreign, "si_nobody_else", "sg_group", "", "nonsense"]
    body = {"userID": bob, "conversationIDs": ids}

    data = await api.call("/msg/get_conversations_has_read_and_max_seq", body, token=await api.token(bob, 5))

    assert list(data["seqs"]) == [asked]


async def test_underscores_in_names_do_not_open_the_conversations_of_others(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    # The id of the chat of alice and alice_eve ends in _eve, and what is before that sorts before eve, as a peer's would.
    alice, eve = sorted((next(names), next(names)))
    alice_two = f"{alice}_{eve}"
    await api.register(alice, alice_two, eve)
    conversation_id = await chat(api, await connect(alice), alice, alice_two, 1)
    token = await api.token(eve)
    asked = {"userID": eve, "conversationIDs": [conversation_id]}
    mark = {"userID": eve, "conversationID": conversation_id, "hasReadSeq": 1}

    data = await api.call("/msg/get_conversations_has_read_and_max_seq", asked, token=token)
    refused = await api.post("/msg/mark_conversation_as_read", mark, token=token)

    assert data["seqs"] == {}
    assert refused["errCode"] in {1002, 1004}


@pytest.mark.parametrize("wanted", [True, False])
async def test_pinned_conversations_are_told_when_asked_for(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str], wanted: bool
) -> None:
    alice, bob = await pair(api, names)
    conversation_id = await chat(api, await connect(bob), alice, bob, 1)
    row = {"owner_user_id": bob, "conversation_id": conversation_id}
    wait_until(lambda: stack.database["conversation"].find_one(row), "the conversation's row")
    stack.database["conversation"].update_one(row, {"$set": {"is_pinned": True}})

    body = {"userID": bob, "returnPinned": wanted}
    data = await api.call("/msg/get_conversations_has_read_and_max_seq", body)

    assert data["pinnedConversationIDs"] == ([conversation_id] if wanted else [])
