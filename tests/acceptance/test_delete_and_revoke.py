"""Taking back, deleting and clearing, and reading in all kinds of chats (protocol: flows.md, sections 6 to 8)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from imserver.constants import ReqIdentifier
from imserver.protocol.conversations import notification_twin, single_conversation_id
from imserver.protocol.gen import msg_pb2, sdkws_pb2
from tests.acceptance.group_api import GroupApi
from tests.client import ANSWER_SECONDS, Api, Client, Connect, text_message
from tests.stack import POLL_SECONDS, Stack

pytestmark = pytest.mark.acceptance

Json = dict[str, Any]


class Talk:
    """Two connected users with a chat between them."""

    def __init__(self, api: Api, alice: Client, bob: Client, tokens: dict[str, str]) -> None:
        self.api, self.alice, self.bob = api, alice, bob
        self._tokens = tokens
        self.id = single_conversation_id(alice.user_id, bob.user_id)
        self.twin = notification_twin(self.id)

    async def say(self, *texts: str) -> None:
        """Alice writes; returns when both have it."""
        count = len(self.bob.msgs[self.id]) + len(texts)
        for text in texts:
            await self.alice.send_text(self.bob.user_id, text)
        for side in (self.alice, self.bob):
            await side.until(lambda side=side: len(side.msgs[self.id]) >= count)

    async def code(self, user: Client, route: str, **body: Any) -> int:
        """Error code of a call of /msg, 0 for a success."""
        body = {"userID": user.user_id, "conversationID": self.id, **body}
        envelope = await self.api.post(f"/msg/{route}", body, token=self._tokens[user.user_id])
        code: int = envelope["errCode"]
        return code

    async def seqs(self, user: Client) -> tuple[int, int]:
        """(max, read)"""
        data = await user.request(
            ReqIdentifier.GET_CONV_MAX_READ_SEQ, msg_pb2.GetConversationsHasReadAndMaxSeqReq(conversationIDs=[self.id])
        )
        seqs = msg_pb2.GetConversationsHasReadAndMaxSeqResp.FromString(data).seqs[self.id]
        return seqs.maxSeq, seqs.hasReadSeq


@pytest.fixture
async def talk(api: Api, connect: Connect, names: Iterator[str]) -> Talk:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    tokens = {user_id: await api.token(user_id, 5) for user_id in (alice, bob)}
    return Talk(api, await connect(alice), await connect(bob), tokens)


@pytest.fixture
def people(api: Api, names: Iterator[str]) -> GroupApi:
    return GroupApi(api, names)


def own_twin(user: Client) -> str:
    return notification_twin(single_conversation_id(user.user_id, user.user_id))


def tips_of(user: Client, conversation_id: str, content_type: int) -> list[Json]:
    return [detail_of(msg) for msg in user.msgs[conversation_id] if msg.contentType == content_type]


def detail_of(msg: sdkws_pb2.MsgData) -> Json:
    detail: Json = orjson.loads(orjson.loads(msg.content)["detail"])
    return detail


async def last_seq(user: Client, conversation_id: str) -> int:
    """1007; 0 when there is nothing to show."""
    data = await user.request(
        ReqIdentifier.GET_LAST_MESSAGE, msg_pb2.GetLastMessageReq(conversationIDs=[conversation_id])
    )
    return msg_pb2.GetLastMessageResp.FromString(data).msgs[conversation_id].seq


# -- taking back


async def test_a_revoked_message_is_taken_back_everywhere(talk: Talk) -> None:
    await talk.say("one", "two", "three")

    assert await talk.code(talk.alice, "revoke_msg", seq=2) == 0

    original = talk.alice.msgs[talk.id][1]
    for side in (talk.alice, talk.bob):
        await side.until(lambda side=side: side.msgs[talk.twin])
        (notification,) = side.msgs[talk.twin]
        assert (notification.contentType, notification.seq, notification.sessionType) == (2101, 1, 1)
        tips = detail_of(notification)
        assert abs(tips.pop("revokeTime") - notification.sendTime) < ANSWER_SECONDS * 1000
        assert tips == {
            "revokerUserID": talk.alice.user_id,
            "clientMsgID": original.clientMsgID,
            "sesstionType": 1,
            "seq": 2,
            "conversationID": talk.id,
            "isAdminRevoke": False,
        }
        one, two, three = await side.pull(talk.id, 1, 3)
        assert (one.contentType, two.contentType, three.contentType) == (101, 2101, 101)
        assert (two.seq, two.clientMsgID, two.sendTime) == (2, original.clientMsgID, original.sendTime)
        assert detail_of(two)["revokerID"] == talk.alice.user_id
    (stored,) = await talk.bob.pull(talk.twin, 1, 1)
    assert stored.contentType == 2101


async def test_what_cannot_be_taken_back_is_refused_with_its_code(
    talk: Talk, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    await talk.say("one", "two")
    await talk.code(talk.alice, "revoke_msg", seq=1)

    assert await talk.code(talk.alice, "revoke_msg", seq=1) == 1404
    assert await talk.code(talk.alice, "revoke_msg", seq=9) == 1004
    assert await talk.code(talk.alice, "revoke_msg", seq=0) == 1001
    assert await talk.code(talk.bob, "revoke_msg", seq=2) == 1002
    assert await talk.code(talk.bob, "revoke_msg", seq=2, userID=talk.alice.user_id) == 1002
    assert await talk.code(talk.alice, "revoke_msg", seq=1, conversationID=talk.twin) == 1001
    await talk.bob.until(lambda: talk.bob.msgs[talk.twin])
    assert len(tips_of(talk.bob, talk.twin, 2101)) == 1


async def test_an_app_admin_takes_back_any_message_and_both_are_told(talk: Talk) -> None:
    await talk.say("one")

    body = {"userID": "imAdmin", "conversationID": talk.id, "seq": 1}
    assert (await talk.api.post("/msg/revoke_msg", body))["errCode"] == 0

    for side in (talk.alice, talk.bob):
        await side.until(lambda side=side: side.msgs[talk.twin])
        (tips,) = tips_of(side, talk.twin, 2101)
        assert (tips["revokerUserID"], tips["isAdminRevoke"]) == ("imAdmin", True)


async def test_an_app_admin_who_takes_back_in_a_users_name_is_told_as_the_one_who_did(talk: Talk) -> None:
    await talk.say("one")

    body = {"userID": talk.alice.user_id, "conversationID": talk.id, "seq": 1}
    assert (await talk.api.post("/msg/revoke_msg", body))["errCode"] == 0

    await talk.bob.until(lambda: talk.bob.msgs[talk.twin])
    (tips,) = tips_of(talk.bob, talk.twin, 2101)
    assert (tips["revokerUserID"], tips["isAdminRevoke"]) == ("imAdmin", True)


async def test_in_a_group_ranks_decide_who_takes_back_what(people: GroupApi, connect: Connect) -> None:
    owner, admin, member, other = await people.users(4)
    group_id = await people.create(owner, member, other, admins=(admin,), send_message=False)
    conversation_id = f"sg_{group_id}"
    listener = await connect(other)
    for sender in (owner, admin, member, member, member):
        msg = text_message(sender, "", "said")
        msg.sessionType, msg.groupID = 3, group_id
        await (await connect(sender)).send_msg(msg)
    await listener.until(lambda: len(listener.msgs[conversation_id]) >= 5)
    seqs = {sender: msg.seq for msg in listener.msgs[conversation_id] for sender in [msg.sendID]}
    of_member = [msg.seq for msg in listener.msgs[conversation_id] if msg.sendID == member]

    async def code(user: str | None, seq: int) -> int:
        body = {"userID": user or "imAdmin", "conversationID": conversation_id, "seq": seq}
        envelope = await people.api.post("/msg/revoke_msg", body, token=await people.token(user))
        return int(envelope["errCode"])

    assert await code(other, of_member[0]) == 1002
    assert await code(admin, seqs[owner]) == 1002
    assert await code(member, seqs[admin]) == 1002
    assert await code(member, of_member[0]) == 0
    assert await code(admin, of_member[1]) == 0
    assert await code(owner, seqs[admin]) == 0
    assert await code(None, seqs[owner]) == 0
    assert await code(admin, of_member[1]) == 1404
    (stranger,) = await people.users(1)
    assert await code(stranger, of_member[2]) == 1002

    # The group's creation may have been pushed as well.
    await listener.until(lambda: len(tips_of(listener, f"n_{group_id}", 2101)) >= 4)
    told = tips_of(listener, f"n_{group_id}", 2101)
    assert [tips["revokerUserID"] for tips in told] == [member, admin, owner, "imAdmin"]
    assert {tips["sesstionType"] for tips in told} == {3}
    pulled = {msg.seq: msg for msg in await listener.pull(conversation_id, 1, max(of_member))}
    assert detail_of(pulled[of_member[1]])["revokerRole"] == 60
    assert pulled[of_member[2]].contentType == 101


# -- deleting


async def test_a_message_deleted_for_oneself_is_a_placeholder_for_oneself_only(talk: Talk) -> None:
    await talk.say("one", "two", "three")

    assert await talk.code(talk.bob, "delete_msgs", seqs=[2, 3]) == 0

    assert [(msg.seq, msg.status, msg.content != b"") for msg in await talk.bob.pull(talk.id, 1, 3)] == [
        (1, 2, True),
        (2, 4, False),
        (3, 4, False),
    ]
    assert [msg.status for msg in await talk.alice.pull(talk.id, 1, 3)] == [2, 2, 2]
    assert (await last_seq(talk.bob, talk.id), await last_seq(talk.alice, talk.id)) == (1, 3)
    assert await talk.seqs(talk.bob) == (3, 0)
    assert not talk.bob.msgs[own_twin(talk.bob)]


async def test_ones_other_devices_are_told_of_a_deletion_when_that_is_asked_for(talk: Talk) -> None:
    await talk.say("one")

    option = {"IsSyncSelf": True, "IsSyncOther": False}
    assert await talk.code(talk.bob, "delete_msgs", seqs=[1], deleteSyncOpt=option) == 0

    twin = own_twin(talk.bob)
    await talk.bob.until(lambda: talk.bob.msgs[twin])
    (msg,) = talk.bob.msgs[twin]
    assert (msg.contentType, msg.seq) == (2102, 1)
    assert detail_of(msg) == {"userID": talk.bob.user_id, "conversationID": talk.id, "seqs": [1]}
    assert not tips_of(talk.alice, talk.twin, 2102)


async def test_a_message_deleted_for_all_is_gone_for_both_and_both_are_told(talk: Talk) -> None:
    await talk.say("one", "two")

    assert await talk.code(talk.alice, "delete_msgs", seqs=[1], deleteSyncOpt={"IsSyncOther": True}) == 0

    for side in (talk.alice, talk.bob):
        await side.until(lambda side=side: side.msgs[talk.twin])
        assert tips_of(side, talk.twin, 2102) == [
            {"userID": talk.alice.user_id, "conversationID": talk.id, "seqs": [1]}
        ]
        assert [msg.status for msg in await side.pull(talk.id, 1, 2)] == [4, 2]


async def test_deletions_that_cannot_be_are_refused(talk: Talk) -> None:
    await talk.say("one")

    assert await talk.code(talk.bob, "delete_msgs", seqs=[]) == 1001
    assert await talk.code(talk.bob, "delete_msgs", seqs=[0, 1]) == 1001
    assert await talk.code(talk.bob, "delete_msgs", seqs=[1], conversationID="si_other_two") == 1002
    assert await talk.code(talk.bob, "delete_msgs", seqs=[9]) == 0
    assert [msg.status for msg in await talk.bob.pull(talk.id, 1, 1)] == [2]


# -- clearing


async def test_a_cleared_conversation_is_empty_and_read_for_who_cleared_it(talk: Talk) -> None:
    await talk.say("one", "two")

    option = {"IsSyncSelf": True}
    code = await talk.code(talk.bob, "clear_conversation_msg", conversationIDs=[talk.id], deleteSyncOpt=option)

    assert code == 0
    assert await talk.bob.pull(talk.id, 0, 9) == []
    assert await last_seq(talk.bob, talk.id) == 0
    assert await talk.seqs(talk.bob) == (2, 2)
    assert len(await talk.alice.pull(talk.id, 1, 2)) == 2
    twin = own_twin(talk.bob)
    await talk.bob.until(lambda: talk.bob.msgs[twin])
    assert tips_of(talk.bob, twin, 1703) == [{"userID": talk.bob.user_id, "conversationIDs": [talk.id]}]
    assert talk.bob.msgs[twin][0].seq == 0
    await talk.say("three")
    assert [msg.seq for msg in await talk.bob.pull(talk.id, 0, 9)] == [3]
    assert await talk.seqs(talk.bob) == (3, 2)


async def test_clearing_a_chat_in_which_nothing_was_said_succeeds(talk: Talk) -> None:
    """Clients delete their own record of it then, and could not get rid of it otherwise."""
    await talk.say("one")
    opened = single_conversation_id(talk.alice.user_id, "somebody")

    assert await talk.code(talk.alice, "clear_conversation_msg", conversationIDs=[opened, talk.id]) == 0

    assert await talk.alice.pull(talk.id, 1, 1) == []
    assert await talk.code(talk.alice, "clear_conversation_msg", conversationIDs=["si_x_y"]) == 1002
    assert await talk.code(talk.alice, "clear_conversation_msg", conversationIDs=["sg_none"]) == 1002


async def test_a_conversation_cleared_for_all_is_empty_for_both(talk: Talk) -> None:
    await talk.say("one", "two")

    option = {"IsSyncOther": True}
    await talk.code(talk.alice, "clear_conversation_msg", conversationIDs=[talk.id], deleteSyncOpt=option)

    for side in (talk.alice, talk.bob):
        await side.until(lambda side=side: tips_of(side, talk.twin, 1703))
        assert await side.pull(talk.id, 1, 2) == []
    assert talk.bob.msgs[talk.twin][0].seq == 0


async def test_all_of_a_users_conversations_are_cleared_at_once(talk: Talk, api: Api, names: Iterator[str]) -> None:
    carol = next(names)
    await api.register(carol)
    await talk.say("one")
    await talk.alice.send_text(carol, "two")
    with_carol = single_conversation_id(talk.alice.user_id, carol)
    await talk.alice.until(lambda: talk.alice.msgs[with_carol])

    assert await talk.code(talk.alice, "user_clear_all_msg", deleteSyncOpt={"IsSyncSelf": True}) == 0

    assert await talk.alice.pull(talk.id, 1, 1) == await talk.alice.pull(with_carol, 1, 1) == []
    assert len(await talk.bob.pull(talk.id, 1, 1)) == 1
    twin = own_twin(talk.alice)
    await talk.alice.until(lambda: talk.alice.msgs[twin])
    (tips,) = tips_of(talk.alice, twin, 1703)
    assert tips == {"userID": talk.alice.user_id, "conversationIDs": sorted([talk.id, with_carol])}


async def test_only_who_manages_a_group_clears_or_deletes_for_all(people: GroupApi, connect: Connect) -> None:
    owner, member, other = await people.users(3)
    group_id = await people.create(owner, member, other, send_message=False)
    conversation_id = f"sg_{group_id}"
    speaker, listener = await connect(owner), await connect(member)
    for sender in (speaker, listener):
        msg = text_message(sender.user_id, "", "said")
        msg.sessionType, msg.groupID = 3, group_id
        await sender.send_msg(msg)
    await listener.until(lambda: len(listener.msgs[conversation_id]) >= 2)
    by_sender = {msg.sendID: msg.seq for msg in listener.msgs[conversation_id]}
    for_all = {"deleteSyncOpt": {"IsSyncOther": True}}

    async def code(user: str, route: str, **body: Any) -> int:
        body = {"userID": user, **body, **for_all}
        return int((await people.api.post(f"/msg/{route}", body, token=await people.token(user)))["errCode"])

    at = {"conversationID": conversation_id}
    assert await code(other, "delete_msgs", **at, seqs=[by_sender[member]]) == 1002
    assert await code(member, "delete_msgs", **at, seqs=[by_sender[member]]) == 0
    assert await code(member, "clear_conversation_msg", conversationIDs=[conversation_id]) == 1002
    statuses = {msg.seq: msg.status for msg in await speaker.pull(conversation_id, 1, max(by_sender.values()))}
    assert (statuses[by_sender[member]], statuses[by_sender[owner]]) == (4, 2)
    assert await code(owner, "clear_conversation_msg", conversationIDs=[conversation_id]) == 0
    assert await listener.pull(conversation_id, 1, 9) == []
    await listener.until(lambda: tips_of(listener, f"n_{group_id}", 1703))


# -- reading


async def test_reading_in_a_group_is_told_to_oneself_and_kept_as_a_seq(people: GroupApi, connect: Connect) -> None:
    owner, member = await people.users(2)
    group_id = await people.create(owner, member, send_message=False)
    conversation_id = f"sg_{group_id}"
    speaker, reader = await connect(owner), await connect(member)
    for _ in range(3):
        msg = text_message(owner, "", "said")
        msg.sessionType, msg.groupID = 3, group_id
        await speaker.send_msg(msg)
    await reader.until(lambda: len(reader.msgs[conversation_id]) >= 3)
    newest = reader.msgs[conversation_id][-1].seq
    token = await people.token(member)

    body = {"userID": member, "conversationID": conversation_id, "hasReadSeq": newest, "seqs": [newest]}
    await people.api.call("/msg/mark_conversation_as_read", body, token=token)

    twin = own_twin(reader)
    await reader.until(lambda: reader.msgs[twin])
    (msg,) = reader.msgs[twin]
    assert (msg.contentType, msg.seq, msg.sessionType) == (2200, 0, 1)
    expected = {"markAsReadUserID": member, "conversationID": conversation_id, "seqs": [], "hasReadSeq": newest}
    assert detail_of(msg) == expected
    assert not tips_of(speaker, f"n_{group_id}", 2200)
    data = await people.api.call("/msg/get_conversations_has_read_and_max_seq", {"userID": member}, token=token)
    assert data["seqs"][conversation_id]["hasReadSeq"] == newest
    assert not any(msg.isRead for msg in await speaker.pull(conversation_id, 1, newest))


async def test_messages_are_marked_as_read_one_by_one(talk: Talk, stack: Stack) -> None:
    await talk.say("one", "two", "three", "four")

    assert await talk.code(talk.bob, "mark_msgs_as_read", seqs=[1, 3]) == 0

    await talk.alice.until(lambda: talk.alice.msgs[talk.twin])
    (msg,) = talk.alice.msgs[talk.twin]
    assert (msg.contentType, msg.seq) == (2200, 1)
    expected = {"markAsReadUserID": talk.bob.user_id, "conversationID": talk.id, "seqs": [1, 3], "hasReadSeq": 3}
    assert detail_of(msg) == expected
    assert [msg.isRead for msg in await talk.alice.pull(talk.id, 1, 4)] == [True, False, True, False]
    assert await talk.seqs(talk.bob) == (4, 3)
    assert await talk.code(talk.bob, "mark_msgs_as_read", seqs=[2]) == 0
    assert await talk.seqs(talk.bob) == (4, 3)
    for seqs in ([], [0], [5], [1, 5]):
        assert await talk.code(talk.bob, "mark_msgs_as_read", seqs=seqs) == 1001
    for key in stack.redis.scan_iter(match=f"{stack.prefix}MSG_CACHE:*{talk.id}*"):
        stack.redis.delete(key)
    async with asyncio.timeout(ANSWER_SECONDS):
        while True:
            if [msg.isRead for msg in await talk.alice.pull(talk.id, 1, 4)] == [True, True, True, False]:
                break
            await asyncio.sleep(POLL_SECONDS)


async def test_the_read_seq_is_set_forward_and_told_to_oneself_unless_silently(talk: Talk) -> None:
    await talk.say("one", "two", "three")

    assert await talk.code(talk.bob, "set_conversation_has_read_seq", hasReadSeq=1, noNotification=True) == 0
    assert await talk.seqs(talk.bob) == (3, 1)
    assert await talk.code(talk.bob, "set_conversation_has_read_seq", hasReadSeq=2) == 0
    assert await talk.code(talk.bob, "set_conversation_has_read_seq", hasReadSeq=1) == 0

    twin = own_twin(talk.bob)
    await talk.bob.until(lambda: len(talk.bob.msgs[twin]) >= 2)
    assert [(tips["hasReadSeq"], tips["seqs"]) for tips in tips_of(talk.bob, twin, 2200)] == [(2, []), (2, [])]
    assert await talk.seqs(talk.bob) == (3, 2)
    assert not talk.alice.msgs[talk.twin]
    assert await talk.code(talk.bob, "set_conversation_has_read_seq", hasReadSeq=0) == 1001
    assert await talk.code(talk.bob, "set_conversation_has_read_seq", hasReadSeq=4) == 1001
