"""Chatting through the real processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from imserver.protocol.conversations import single_conversation_id
from imserver.protocol.gen import sdkws_pb2
from tests.client import Api, Client, Connect, RequestRefused, text_message, text_of
from tests.stack import Stack, on_both_servers, wait_until

pytestmark = [pytest.mark.acceptance, on_both_servers]


@pytest.mark.parametrize("sdk_type", ["go", "js", "json"])
@pytest.mark.parametrize("is_compressed", [False, True])
async def test_a_message_reaches_the_receiver_and_the_senders_own_connections(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str], sdk_type: str, is_compressed: bool
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    options = {"sdk_type": sdk_type, "is_compressed": is_compressed}
    sender = await connect(alice, platform_id=1, **options)
    phone = await connect(alice, platform_id=5, **options)
    receiver = await connect(bob, **options)

    answer = await sender.send_text(bob, "hello")

    for client, other in ((sender, bob), (phone, bob), (receiver, alice)):
        await client.until(lambda client=client, other=other: client.chat_with(other))
        (msg,) = client.chat_with(other)
        assert (msg.seq, msg.status, text_of(msg)) == (1, 2, "hello")
        assert msg.serverMsgID == answer.serverMsgID
    assert [frame.req_identifier for frame in sender.frames] == [1003, 2001]
    assert sender.frames[0].operation_id == sender.frames[1].operation_id == receiver.frames[0].operation_id


async def test_the_same_message_sent_twice_gets_one_seq_and_the_same_answer(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    client = await connect(alice)
    msg = text_message(alice, bob, "once", client_msg_id="same-id")

    first = await client.send_msg(msg)
    second = await client.send_msg(msg)
    await client.send_text(bob, "after")

    assert first == second
    await client.until(lambda: len(client.chat_with(bob)) >= 2)
    assert [(item.seq, text_of(item)) for item in client.chat_with(bob)] == [(1, "once"), (2, "after")]


async def test_messages_sent_at_once_keep_their_order_and_are_stored_in_blocks_of_100(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    client = await connect(alice)
    receiver = await connect(bob)

    answers = [await client.submit(1003, text_message(alice, bob, str(n)).SerializeToString()) for n in range(250)]
    await asyncio.gather(*answers)
    await receiver.until(lambda: len(receiver.chat_with(alice)) >= 250)

    assert [text_of(msg) for msg in receiver.chat_with(alice)] == [str(n) for n in range(250)]
    assert [msg.seq for msg in receiver.chat_with(alice)] == list(range(1, 251))
    conversation_id = single_conversation_id(alice, bob)

    def blocks() -> list[int]:
        documents = stack.database["msg"].find({"conversation_id": conversation_id}).sort("block", 1)
        return [sum(1 for slot in document["msgs"] if slot["msg"]) for document in documents]

    wait_until(lambda: blocks() == [100, 100, 50], "three blocks")

    def owners_and_peers() -> set[tuple[str, str]]:
        records = stack.database["conversation"].find({"conversation_id": conversation_id})
        return {(record["owner_user_id"], record["user_id"]) for record in records}

    wait_until(lambda: owners_and_peers() == {(alice, bob), (bob, alice)}, "a record for each")


async def test_who_was_away_pulls_what_was_missed(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    conversation_id = single_conversation_id(alice, bob)
    client = await connect(alice)
    for number in range(5):
        await client.send_text(bob, str(number))
    await client.until(lambda: len(client.chat_with(bob)) >= 5)

    late = await connect(bob)

    assert (await late.max_seqs())[conversation_id] == 5
    assert [text_of(msg) for msg in await late.pull(conversation_id, 0, 5)] == ["0", "1", "2", "3", "4"]
    assert [msg.seq for msg in await late.pull(conversation_id, 0, 5, num=2)] == [4, 5]


async def test_history_that_left_the_cache_comes_from_the_store(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    conversation_id = single_conversation_id(alice, bob)
    client = await connect(alice)
    for number in range(3):
        await client.send_text(bob, str(number))
    wait_until(
        lambda: stack.database["msg"].count_documents({"conversation_id": conversation_id, "msgs.msg.seq": 3}) == 1,
        "three stored messages",
    )
    for key in stack.redis.scan_iter(match=f"{stack.prefix}MSG_CACHE:*{conversation_id}*"):
        stack.redis.delete(key)

    msgs = await client.pull(conversation_id, 1, 3)

    assert [(msg.seq, msg.status, text_of(msg)) for msg in msgs] == [(1, 2, "0"), (2, 2, "1"), (3, 2, "2")]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sendID": "somebody_else"}, 1002),
        ({"content": b""}, 1001),
        ({"sessionType": 2}, 1001),
        ({"sessionType": 4}, 1001),
        ({"contentType": 2101}, 1001),
        ({"recvID": "nobody_at_all"}, 1004),
        ({"recvID": ""}, 1001),
        ({"content": b"x" * 60_000}, 1009),
        ({"clientMsgID": "x" * 300}, 1001),
        ({"atUserIDList": [""]}, 1001),
        ({"atUserIDList": ["x"] * 1001}, 1001),
        ({"options": {"a.b": True}}, 1001),
    ],
)
async def test_a_bad_message_is_refused_with_its_code_and_changes_nothing(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str], change: dict[str, object], code: int
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    client = await connect(alice)
    msg = text_message(alice, bob, "bad")
    msg.MergeFrom(sdkws_pb2.MsgData(**change))  # type: ignore[arg-type]
    for field in change.keys() & {"content", "recvID"}:
        setattr(msg, field, change[field])

    if code == 1009:
        await client.submit(1003, msg.SerializeToString())
        assert await client.wait_closed() == 1009
        return
    with pytest.raises(RequestRefused) as refused:
        await client.send_msg(msg)

    assert refused.value.code == code
    assert await client.max_seqs() == {}


async def test_marking_as_read_moves_the_read_seq_and_tells_the_peer(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    conversation_id = single_conversation_id(alice, bob)
    twin = conversation_id.replace("si_", "n_")
    client = await connect(alice)
    for number in range(4):
        await client.send_text(bob, str(number))
    await client.until(lambda: len(client.chat_with(bob)) >= 4)
    token = await api.token(bob)
    body = {"conversationID": conversation_id, "userID": bob, "hasReadSeq": 3, "seqs": []}

    await api.call("/msg/mark_conversation_as_read", body, token=token)

    await client.until(lambda: client.msgs[twin])
    assert (client.msgs[twin][0].contentType, client.msgs[twin][0].seq) == (2200, 1)
    assert rb"\"hasReadSeq\":3" in client.msgs[twin][0].content
    wanted = {"userID": bob, "conversationIDs": [], "returnPinned": False}
    data = await api.call("/msg/get_conversations_has_read_and_max_seq", wanted, token=token)
    assert (data["seqs"][conversation_id]["maxSeq"], data["seqs"][conversation_id]["hasReadSeq"]) == (4, 3)
    wait_until(
        lambda: (
            (stack.database["seq_user"].find_one({"user_id": bob, "conversation_id": conversation_id}) or {}).get(
                "read_seq"
            )
            == 3
        ),
        "the read seq in MongoDB",
    )
    refused = await api.post("/msg/mark_conversation_as_read", {**body, "hasReadSeq": 5}, token=token)
    assert refused["errCode"] == 1001


async def test_a_typing_message_is_seen_once_and_kept_nowhere(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    client = await connect(alice)
    receiver = await connect(bob)
    msg = text_message(alice, bob, "")
    msg.contentType, msg.content = 113, b'{"msgTips":"yes"}'

    await client.send_msg(msg)

    await receiver.until(lambda: receiver.chat_with(alice))
    assert receiver.chat_with(alice)[0].seq == 0
    assert await receiver.max_seqs() == {}
    assert client.chat_with(bob) == []


async def test_force_logout_kicks_the_connection_and_its_token(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice = next(names)
    await api.register(alice)
    token = await api.token(alice)
    client = Client(stack.gateway_url, alice, token)
    async with client:
        await api.call("/auth/force_logout", {"userID": alice, "platformID": 1})

        assert await client.wait_closed() == 4104
        assert client.kicked
    async with Client(stack.gateway_url, alice, token, wants_result=True) as again:
        assert again.handshake["errCode"] == 1506


async def test_the_app_server_sends_in_a_users_name(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    receiver = await connect(bob)
    body = {
        "sendID": alice,
        "recvID": bob,
        "senderPlatformID": 10,
        "sessionType": 1,
        "contentType": 101,
        "content": {"content": "from the app"},
    }

    data = await api.call("/msg/send_msg", body)

    await receiver.until(lambda: receiver.chat_with(alice))
    (msg,) = receiver.chat_with(alice)
    assert (msg.serverMsgID, msg.msgFrom, text_of(msg)) == (data["serverMsgID"], 200, "from the app")


async def test_an_answer_much_larger_than_a_client_may_send_arrives(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    client = await connect(alice)
    text = "x" * 10_000
    answers = [await client.submit(1003, text_message(alice, bob, text).SerializeToString()) for _ in range(120)]
    await asyncio.gather(*answers)
    await client.until(lambda: len(client.chat_with(bob)) >= 120)

    msgs = await client.pull(single_conversation_id(alice, bob), 1, 120)

    assert [text_of(msg) for msg in msgs] == [text] * 120
    assert (await client.max_seqs())[single_conversation_id(alice, bob)] == 120


async def test_asking_for_one_range_thousands_of_times_is_refused(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    client = await connect(alice)
    for number in range(10):
        await client.send_text(bob, str(number))
    await client.until(lambda: len(client.chat_with(bob)) >= 10)
    conversation_id = single_conversation_id(alice, bob)
    seq_range = sdkws_pb2.SeqRange(conversationID=conversation_id, begin=1, end=10, num=10)
    request = sdkws_pb2.PullMessageBySeqsReq(userID=alice, seqRanges=[seq_range] * 1000)

    with pytest.raises(RequestRefused) as refused:
        await client.request(1002, request)

    assert refused.value.code == 1001


async def test_online_status_is_answered_for_every_user_asked_for(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob, carol = next(names), next(names), next(names)
    await api.register(alice, bob, carol)
    client = await connect(alice)
    await connect(bob, platform_id=1)
    await connect(bob, platform_id=5)

    data = await client.request(2005, sdkws_pb2.SubUserOnlineStatus(subscribeUserID=[bob, carol]))

    told = sdkws_pb2.SubUserOnlineStatusTips.FromString(data).subscribers
    assert {item.userID: list(item.onlinePlatformIDs) for item in told} == {bob: [1, 5], carol: []}
