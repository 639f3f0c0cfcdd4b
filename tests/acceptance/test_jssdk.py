"""/jssdk: the list of conversations, as protobuf in base64 and as JSON (protocol: rest.md 4.2)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from imserver.constants import SessionType
from imserver.protocol.conversations import group_conversation_id, single_conversation_id
from imserver.protocol.gen import jssdk_pb2
from imserver.storage.friends import new_friend
from tests.acceptance.group_api import GroupApi
from tests.client import ANSWER_SECONDS, Api, Connect, text_message
from tests.stack import POLL_SECONDS, Stack

pytestmark = pytest.mark.acceptance

PROTOBUF = {"Content-Type": "application/x-protobuf", "operationID": "op"}


class JsUser:
    """Calls the routes as the JS SDK does: protobuf bytes in, base64 out."""

    def __init__(self, stack: Stack, user_id: str, token: str) -> None:
        self.stack, self.user_id, self.token = stack, user_id, token

    async def post(self, route: str, body: bytes, **headers: str) -> Any:
        async with httpx.AsyncClient(base_url=self.stack.web_url, timeout=ANSWER_SECONDS) as http:
            sent = {**PROTOBUF, "token": self.token, **headers}
            return (await http.post(f"/jssdk/{route}", content=body, headers=sent)).json()

    async def active(self, count: int = 20) -> jssdk_pb2.GetActiveConversationsResp:
        # The owner that a request names is not looked at.
        request = jssdk_pb2.GetActiveConversationsReq(ownerUserID="somebody", count=count)
        envelope = await self.post("get_active_conversations", request.SerializeToString())
        assert envelope["errCode"] == 0, envelope
        return jssdk_pb2.GetActiveConversationsResp.FromString(base64.b64decode(envelope["data"], validate=True))

    async def until_active(self, count: int, unread: int) -> jssdk_pb2.GetActiveConversationsResp:
        """Persist writes the records a moment after the messages."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                answer = await self.active()
                if len(answer.conversations) == count and answer.unreadCount == unread:
                    return answer
                await asyncio.sleep(POLL_SECONDS)


@pytest.fixture
def groups(api: Api, names: Iterator[str]) -> GroupApi:
    return GroupApi(api, names)


async def test_the_list_shows_last_messages_peers_groups_and_what_is_unread(
    stack: Stack, api: Api, groups: GroupApi, connect: Connect
) -> None:
    alice_id, bob_id, carol_id = await groups.users(3)
    # Past the routes, which would tell the two of it in their chat.
    stack.database["friend"].insert_one(new_friend(alice_id, bob_id))
    bob, carol = await connect(bob_id), await connect(carol_id)
    await bob.send_text(alice_id, "one")
    await bob.send_text(alice_id, "two")
    await carol.send_text(alice_id, "hello")
    with_bob, with_carol = single_conversation_id(alice_id, bob_id), single_conversation_id(alice_id, carol_id)
    alice = JsUser(stack, alice_id, await api.token(alice_id, 5))
    await alice.until_active(2, 3)

    pinned = {"conversationID": with_bob, "isPinned": True}
    await api.call("/conversation/set_conversations", {"userIDs": [alice_id], "conversation": pinned})
    answer = await alice.active()
    newest_first = await alice.active(count=1)

    first, second = answer.conversations
    assert [first.conversation.conversationID, second.conversation.conversationID] == [with_bob, with_carol]
    assert (first.user.userID, first.friend.friendUserID, second.HasField("friend")) == (bob_id, bob_id, False)
    assert (first.maxSeq, first.readSeq, first.lastMsg.seq) == (2, 0, 2)
    assert b"two" in first.lastMsg.content
    assert not first.HasField("group")
    assert [item.conversation.conversationID for item in newest_first.conversations] == [with_bob]
    assert newest_first.unreadCount == 3
    asked = jssdk_pb2.GetConversationsReq(ownerUserID=alice_id, conversationIDs=[with_carol, "si_x_y", with_bob])
    envelope = await alice.post("get_conversations", asked.SerializeToString())
    found = jssdk_pb2.GetConversationsResp.FromString(base64.b64decode(envelope["data"]))
    assert [item.conversation.conversationID for item in found.conversations] == [with_bob, with_carol]
    of_carol = JsUser(stack, carol_id, await api.token(carol_id, 5))
    envelope = await of_carol.post("get_conversations", asked.SerializeToString())
    found = jssdk_pb2.GetConversationsResp.FromString(base64.b64decode(envelope["data"]))
    assert [item.conversation.conversationID for item in found.conversations] == [with_carol]
    data = await api.call("/jssdk/get_active_conversations", {"count": 5}, token=alice.token)
    assert [item["maxSeq"] for item in data["conversations"]] == [2, 1]
    assert data["unreadCount"] == 3
    data = await api.call("/jssdk/get_conversations", {"conversationIDs": [with_carol]}, token=alice.token)
    assert data["conversations"][0]["user"]["userID"] == carol_id


async def test_a_group_is_shown_with_its_information(
    stack: Stack, api: Api, groups: GroupApi, connect: Connect
) -> None:
    alice_id, bob_id = await groups.users(2)
    group_id = await groups.create(alice_id, bob_id, groupName="the group")
    bob = await connect(bob_id)
    msg = text_message(bob_id, "", "hi all")
    msg.groupID, msg.sessionType = group_id, SessionType.GROUP
    await bob.send_msg(msg)
    alice = JsUser(stack, alice_id, await api.token(alice_id, 5))

    async with asyncio.timeout(ANSWER_SECONDS):
        while True:
            shown = list((await alice.active()).conversations)
            if shown and b"hi all" in shown[0].lastMsg.content:
                break
            await asyncio.sleep(POLL_SECONDS)

    (item,) = shown
    assert item.conversation.conversationID == group_conversation_id(group_id)
    assert (item.group.groupName, item.group.memberCount) == ("the group", 2)
    assert not item.HasField("user")


async def test_a_cleared_conversation_that_is_asked_for_comes_without_a_message(
    stack: Stack, api: Api, groups: GroupApi, connect: Connect
) -> None:
    """The SDK takes an empty answer for ids that it knows for a failure, and loses its whole list."""
    alice_id, bob_id = await groups.users(2)
    await (await connect(bob_id)).send_text(alice_id, "one")
    alice = JsUser(stack, alice_id, await api.token(alice_id, 5))
    await alice.until_active(1, 1)
    conversation_id = single_conversation_id(alice_id, bob_id)
    body = {"userID": alice_id, "conversationIDs": [conversation_id]}
    await api.call("/msg/clear_conversation_msg", body, token=alice.token)

    asked = jssdk_pb2.GetConversationsReq(ownerUserID=alice_id, conversationIDs=[conversation_id])
    envelope = await alice.post("get_conversations", asked.SerializeToString())

    (found,) = jssdk_pb2.GetConversationsResp.FromString(base64.b64decode(envelope["data"])).conversations
    assert (found.conversation.conversationID, found.user.userID) == (conversation_id, bob_id)
    assert not found.HasField("lastMsg")
    assert found.readSeq == found.maxSeq
    assert not (await alice.active()).conversations


async def test_a_deleted_conversation_is_listed_again_with_the_next_message(
    stack: Stack, api: Api, groups: GroupApi, connect: Connect
) -> None:
    alice_id, bob_id = await groups.users(2)
    bob = await connect(bob_id)
    await bob.send_text(alice_id, "one")
    alice = JsUser(stack, alice_id, await api.token(alice_id, 5))
    await alice.until_active(1, 1)
    body = {"ownerUserID": alice_id, "conversationIDs": [single_conversation_id(alice_id, bob_id)]}
    await api.call("/conversation/delete_conversations", body, token=alice.token)
    assert not (await alice.active()).conversations

    await bob.send_text(alice_id, "two")

    await alice.until_active(1, 2)


async def test_somebody_without_conversations_gets_an_empty_answer(
    stack: Stack, api: Api, names: Iterator[str]
) -> None:
    user_id = next(names)
    await api.register(user_id)
    user = JsUser(stack, user_id, await api.token(user_id, 5))

    assert (await user.post("get_active_conversations", b""))["data"] == ""
    assert (await user.post("get_conversations", b""))["data"] == ""


async def test_what_is_no_protobuf_or_too_much_is_refused(stack: Stack, api: Api, names: Iterator[str]) -> None:
    user_id = next(names)
    await api.register(user_id)
    user = JsUser(stack, user_id, await api.token(user_id, 5))
    many = jssdk_pb2.GetConversationsReq(conversationIDs=[f"si_{at}_x" for at in range(501)])

    assert (await user.post("get_active_conversations", b"\xff\xff"))["errCode"] == 1001
    assert (await user.post("get_conversations", many.SerializeToString()))["errCode"] == 1001
    assert (await user.post("get_conversations", b"", token=""))["errCode"] == 1001
    assert (await user.post("get_conversations", b"", token="abc"))["errCode"] == 1503
    assert (await api.post("/jssdk/get_active_conversations", {"count": -1}, token=user.token))["errCode"] == 1001
