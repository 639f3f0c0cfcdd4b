"""Every request of the socket: what it answers, and whom and what it refuses (protocol: websocket.md 5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import Message

from gateway import close
from imserver.constants import ReqIdentifier
from imserver.protocol.conversations import notification_twin, single_conversation_id
from imserver.protocol.gen import msg_pb2, push_pb2, sdkws_pb2
from tests.client import Api, Client, Connect, RequestRefused, text_message
from tests.stack import on_both_servers

pytestmark = [pytest.mark.acceptance, on_both_servers]

#: Frames of the server, which nobody asks for.
PUSHED = {ReqIdentifier.PUSH_MSG, ReqIdentifier.KICK_ONLINE}


def in_name_of(user_id: str, peer_id: str) -> dict[ReqIdentifier, Message]:
    """A good request of each kind, about a user and its chat with another; the one that closes the connection comes last."""
    chat = single_conversation_id(user_id, peer_id)
    at = sdkws_pb2.SeqRange(conversationID=chat, begin=1, end=9, num=9)
    seqs = msg_pb2.ConversationSeqs(conversationID=chat, seqs=[1])
    return {
        ReqIdentifier.GET_NEWEST_SEQ: sdkws_pb2.GetMaxSeqReq(userID=user_id),
        ReqIdentifier.PULL_MSG_BY_RANGE: sdkws_pb2.PullMessageBySeqsReq(userID=user_id, seqRanges=[at]),
        ReqIdentifier.SEND_MSG: text_message(user_id, peer_id, "in the name"),
        ReqIdentifier.PULL_MSG_BY_SEQ_LIST: msg_pb2.GetSeqMessageReq(userID=user_id, conversations=[seqs]),
        ReqIdentifier.GET_CONV_MAX_READ_SEQ: msg_pb2.GetConversationsHasReadAndMaxSeqReq(
            userID=user_id, conversationIDs=[chat]
        ),
        ReqIdentifier.GET_LAST_MESSAGE: msg_pb2.GetLastMessageReq(userID=user_id, conversationIDs=[chat]),
        ReqIdentifier.SET_BACKGROUND: sdkws_pb2.SetAppBackgroundStatusReq(userID=user_id, isBackground=False),
        ReqIdentifier.SUB_USER_ONLINE_STATUS: sdkws_pb2.SubUserOnlineStatus(subscribeUserID=[peer_id]),
        ReqIdentifier.LOGOUT: push_pb2.DelUserPushTokenReq(userID=user_id, platformID=1),
    }


async def code_of(client: Client, identifier: int, data: bytes) -> int:
    return (await (await client.submit(identifier, data))).err_code


@pytest.fixture
async def talk(api: Api, connect: Connect, names: Iterator[str]) -> tuple[Client, Client, Client]:
    """Two who have written to each other, and somebody else."""
    ids = [next(names) for _ in range(3)]
    await api.register(*ids)
    alice, bob, eve = [await connect(user_id) for user_id in ids]
    await alice.send_text(bob.user_id, "between us")
    await bob.until(lambda: bob.chat_with(alice.user_id))
    return alice, bob, eve


async def test_each_request_is_answered_and_the_last_closes(talk: tuple[Client, Client, Client]) -> None:
    alice, bob, _ = talk
    requests = in_name_of(alice.user_id, bob.user_id)
    assert requests.keys() == set(ReqIdentifier) - PUSHED
    chat = single_conversation_id(alice.user_id, bob.user_id)

    data = {identifier: await alice.request(identifier, request) for identifier, request in requests.items()}

    assert sdkws_pb2.GetMaxSeqResp.FromString(data[ReqIdentifier.GET_NEWEST_SEQ]).maxSeqs[chat] == 1
    by_range = sdkws_pb2.PullMessageBySeqsResp.FromString(data[ReqIdentifier.PULL_MSG_BY_RANGE])
    by_list = msg_pb2.GetSeqMessageResp.FromString(data[ReqIdentifier.PULL_MSG_BY_SEQ_LIST])
    assert [msg.seq for msg in by_range.msgs[chat].Msgs] == [msg.seq for msg in by_list.msgs[chat].Msgs] == [1]
    assert b"between us" in by_list.msgs[chat].Msgs[0].content
    read = msg_pb2.GetConversationsHasReadAndMaxSeqResp.FromString(data[ReqIdentifier.GET_CONV_MAX_READ_SEQ])
    assert read.seqs[chat].maxSeq >= 1
    last = msg_pb2.GetLastMessageResp.FromString(data[ReqIdentifier.GET_LAST_MESSAGE])
    assert last.msgs[chat].sendID == alice.user_id
    status = sdkws_pb2.SubUserOnlineStatusTips.FromString(data[ReqIdentifier.SUB_USER_ONLINE_STATUS])
    assert [item.userID for item in status.subscribers] == [bob.user_id]
    assert await alice.wait_closed() == close.LOGGED_OUT.code
    await bob.until(lambda: len(bob.chat_with(alice.user_id)) == 2)


async def test_nobody_asks_in_anothers_name_or_about_others_conversations(talk: tuple[Client, Client, Client]) -> None:
    alice, bob, eve = talk
    chat = single_conversation_id(alice.user_id, bob.user_id)
    foreign = in_name_of(alice.user_id, bob.user_id)
    # Names nobody: everybody may ask how anybody is.
    del foreign[ReqIdentifier.SUB_USER_ONLINE_STATUS]
    is_last = foreign.pop(ReqIdentifier.LOGOUT)

    codes = {item: await code_of(eve, item, request.SerializeToString()) for item, request in foreign.items()}

    assert codes == dict.fromkeys(foreign, 1002)
    at = sdkws_pb2.SeqRange(conversationID=chat, begin=1, end=9, num=9)
    twin = sdkws_pb2.SeqRange(conversationID=notification_twin(chat), begin=1, end=9, num=9)
    own: dict[ReqIdentifier, Any] = {
        ReqIdentifier.GET_NEWEST_SEQ: sdkws_pb2.GetMaxSeqReq(),
        ReqIdentifier.PULL_MSG_BY_RANGE: sdkws_pb2.PullMessageBySeqsReq(seqRanges=[at, twin]),
        ReqIdentifier.GET_CONV_MAX_READ_SEQ: msg_pb2.GetConversationsHasReadAndMaxSeqReq(conversationIDs=[chat]),
        ReqIdentifier.GET_LAST_MESSAGE: msg_pb2.GetLastMessageReq(conversationIDs=[chat]),
    }
    assert {item: await eve.request(item, request) for item, request in own.items()} == dict.fromkeys(own, b"")
    seqs = msg_pb2.ConversationSeqs(conversationID=chat, seqs=[1])
    data = await eve.request(ReqIdentifier.PULL_MSG_BY_SEQ_LIST, msg_pb2.GetSeqMessageReq(conversations=[seqs]))
    assert not msg_pb2.GetSeqMessageResp.FromString(data).msgs[chat].Msgs
    with pytest.raises(RequestRefused, match="1002"):
        await eve.request(ReqIdentifier.LOGOUT, is_last)
    assert (await alice.max_seqs())[chat] == 1


async def test_data_that_is_not_understood_is_refused_and_the_connection_stays(
    talk: tuple[Client, Client, Client],
) -> None:
    alice, bob, _ = talk
    asked = set(ReqIdentifier) - PUSHED - {ReqIdentifier.LOGOUT}

    codes = {item: await code_of(alice, item, b"\xff\xff\xff") for item in asked}

    assert codes == dict.fromkeys(asked, 1001)
    assert (await alice.max_seqs())[single_conversation_id(alice.user_id, bob.user_id)] == 1


@pytest.mark.parametrize("identifier", [0, 999, 1004, 2001, 2002, 3001])
async def test_a_request_that_does_not_exist_closes_the_connection(
    api: Api, connect: Connect, names: Iterator[str], identifier: int
) -> None:
    alice = next(names)
    await api.register(alice)
    client = await connect(alice)

    await client.submit(identifier, b"")

    assert await client.wait_closed() == close.UNKNOWN_REQUEST.code
