"""/conversation: settings of an owner's conversations, and syncing the list of them (protocol: rest.md 3.2 to 3.4)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from hashlib import md5
from typing import Any

import orjson
import pytest

from imserver.protocol.conversations import notification_twin, single_conversation_id
from tests.client import ANSWER_SECONDS, Api, Client, Connect
from tests.stack import POLL_SECONDS, Stack

pytestmark = pytest.mark.acceptance

Json = dict[str, Any]
OTHER_LIST = {"versionID": secrets.token_hex(12), "version": 1}


class User:
    """A user with the routes it calls."""

    def __init__(self, api: Api, user_id: str, token: str) -> None:
        self.api, self.user_id, self.token = api, user_id, token
        self.own_twin = notification_twin(single_conversation_id(user_id, user_id))

    async def call(self, route: str, **body: Any) -> Any:
        return await self.api.call(f"/conversation/{route}", body, token=self.token)

    async def code(self, route: str, **body: Any) -> int:
        code: int = (await self.api.post(f"/conversation/{route}", body, token=self.token))["errCode"]
        return code

    async def set(self, conversation_id: str, **values: Any) -> None:
        conversation = {"conversationID": conversation_id, **values}
        await self.call("set_conversations", userIDs=[self.user_id], conversation=conversation)

    async def rows(self) -> dict[str, Json]:
        data = await self.call("get_all_conversations", ownerUserID=self.user_id)
        return {item["conversationID"]: item for item in data["conversations"]}

    async def until_rows(self, count: int) -> dict[str, Json]:
        """Persist writes the records a moment after the first message."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                rows = await self.rows()
                if len(rows) >= count:
                    return rows
                await asyncio.sleep(POLL_SECONDS)

    async def changes(self, version: Json) -> Json:
        body = {"version": version["version"], "versionID": version["versionID"]}
        return dict(await self.call("get_incremental_conversations", userID=self.user_id, **body))

    async def until_told(self, version: Json, count: int = 1) -> Json:
        """The first changes after a version."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                changes = await self.changes(version)
                if len(changes["insert"]) + len(changes["update"]) >= count:
                    return changes
                await asyncio.sleep(POLL_SECONDS)

    async def full_ids(self, id_hash: int = 0) -> Json:
        return dict(await self.call("get_full_conversation_ids", userID=self.user_id, idHash=id_hash))


@pytest.fixture
async def users(api: Api, names: Iterator[str]) -> list[User]:
    ids = sorted(next(names) for _ in range(3))
    await api.register(*ids)
    return [User(api, user_id, await api.token(user_id, 5)) for user_id in ids]


def tips_of(client: Client, conversation_id: str, content_type: int) -> list[Json]:
    return [
        orjson.loads(orjson.loads(msg.content)["detail"])
        for msg in client.msgs[conversation_id]
        if msg.contentType == content_type
    ]


async def say(connect: Connect, sender: str, *receivers: str) -> Client:
    client: Client = await connect(sender)
    for receiver in receivers:
        await client.send_text(receiver, "hello")
    return client


async def test_the_first_message_brings_the_conversation_to_both_lists(
    stack: Stack, connect: Connect, users: list[User]
) -> None:
    alice, bob, _ = users
    before = await bob.changes({"version": 0, "versionID": ""})
    conversation_id = single_conversation_id(alice.user_id, bob.user_id)

    await say(connect, alice.user_id, bob.user_id)
    rows = await bob.until_rows(1)

    assert rows[conversation_id] == {
        "ownerUserID": bob.user_id,
        "conversationID": conversation_id,
        "recvMsgOpt": 0,
        "conversationType": 1,
        "userID": alice.user_id,
        "groupID": "",
        "isPinned": False,
        "attachedInfo": "",
        "isPrivateChat": False,
        "groupAtType": 0,
        "ex": "",
        "burnDuration": 0,
        "minSeq": 0,
        "maxSeq": 0,
        "msgDestructTime": 0,
        "latestMsgDestructTime": 0,
        "isMsgDestruct": False,
    }
    assert before["full"]
    after = await bob.until_told(before)
    assert (after["full"], after["update"], after["delete"]) == (False, [], [])
    assert [item["conversationID"] for item in after["insert"]] == [conversation_id]
    assert after["versionID"] == before["versionID"]
    assert after["version"] == before["version"] + 1
    assert await alice.until_rows(1)


async def test_a_setting_is_kept_and_told_to_ones_own_devices_when_it_changes_something(
    connect: Connect, users: list[User]
) -> None:
    alice, bob, _ = users
    empty = await alice.changes({"version": 0, "versionID": ""})
    client = await say(connect, alice.user_id, bob.user_id)
    # The record is counted a moment after it is there.
    version = await alice.until_told(empty)
    (conversation_id,) = await alice.until_rows(1)
    other = await connect(bob.user_id)

    await alice.set(conversation_id, recvMsgOpt=2, isPinned=True, ex="mine", groupAtType=1)
    await alice.set(conversation_id, isPinned=True)
    await alice.set(conversation_id, burnDuration=30, attachedInfo="{}", isMsgDestruct=True, msgDestructTime=60)

    await client.until(lambda: len(client.msgs[alice.own_twin]) >= 2)
    told = [{"userID": alice.user_id, "conversationIDList": [conversation_id]}] * 2
    assert tips_of(client, alice.own_twin, 1300) == told
    assert {msg.seq for msg in client.msgs[alice.own_twin]} == {0}
    assert not tips_of(other, alice.own_twin, 1300)
    row = (await alice.rows())[conversation_id]
    set_values = {"recvMsgOpt": 2, "isPinned": True, "ex": "mine", "groupAtType": 1, "burnDuration": 30}
    assert set_values.items() <= row.items()
    assert (row["attachedInfo"], row["isMsgDestruct"], row["msgDestructTime"]) == ("{}", True, 60)
    changes = await alice.changes(version)
    assert changes["update"] == [row]
    assert (changes["full"], changes["insert"], changes["version"]) == (False, [], version["version"] + 2)
    assert not (await bob.until_rows(1))[conversation_id]["isPinned"]


async def test_a_private_chat_is_private_for_both_and_both_see_a_line_of_it(
    connect: Connect, users: list[User]
) -> None:
    alice, bob, _ = users
    client = await say(connect, alice.user_id, bob.user_id)
    (conversation_id,) = await alice.until_rows(1)
    peer = await connect(bob.user_id)
    twin = notification_twin(conversation_id)

    await alice.set(conversation_id, isPrivateChat=True)

    for side in (client, peer):
        await side.until(lambda side=side: tips_of(side, twin, 1701) and tips_of(side, conversation_id, 1701))
        expected = {
            "recvID": bob.user_id,
            "sendID": alice.user_id,
            "isPrivate": True,
            "conversationID": conversation_id,
        }
        assert tips_of(side, twin, 1701) == tips_of(side, conversation_id, 1701) == [expected]
        (line,) = [msg for msg in side.msgs[conversation_id] if msg.contentType == 1701]
        assert line.seq == 2
    assert (await alice.rows())[conversation_id]["isPrivateChat"]
    assert (await bob.rows())[conversation_id]["isPrivateChat"]
    await client.until(lambda: tips_of(client, alice.own_twin, 1300))
    assert len(tips_of(client, alice.own_twin, 1300)) == 1


async def test_a_setting_makes_the_record_of_a_chat_in_which_nothing_was_said(users: list[User]) -> None:
    alice, bob, _ = users
    conversation_id = single_conversation_id(alice.user_id, bob.user_id)

    await alice.set(conversation_id, isPinned=True, isPrivateChat=True)

    row = (await alice.rows())[conversation_id]
    assert (row["userID"], row["conversationType"], row["isPinned"]) == (bob.user_id, 1, True)
    assert (await bob.rows())[conversation_id]["isPrivateChat"]


async def test_lists_of_ids_pages_and_hashes_agree(connect: Connect, users: list[User]) -> None:
    alice, *others = users
    empty = await alice.full_ids()
    await say(connect, alice.user_id, *(other.user_id for other in others), alice.user_id)
    # A record is counted a moment after it is there, and the version must not rise meanwhile.
    await alice.until_told(empty, 3)
    ids = sorted(await alice.rows())

    pages = []
    for number in (1, 2, 3):
        page = {"pageNumber": number, "showNumber": 2}
        data = await alice.call("get_owner_conversation", userID=alice.user_id, pagination=page)
        assert data["total"] == 3
        pages.append([item["conversationID"] for item in data["conversations"]])
    id_hash = int.from_bytes(md5(orjson.dumps(ids), usedforsecurity=False).digest()[:8], "big")
    full, same = await alice.full_ids(), await alice.full_ids(id_hash)

    assert pages == [ids[:2], ids[2:], []]
    assert (full["equal"], full["conversationIDs"]) == (False, ids)
    assert (same["equal"], same["conversationIDs"]) == (True, [])
    assert (full["version"], full["versionID"]) == (same["version"], same["versionID"])
    asked = await alice.call(
        "get_conversations", ownerUserID=alice.user_id, conversationIDs=[ids[2], "si_no_body", ids[0]]
    )
    assert [item["conversationID"] for item in asked["conversations"]] == [ids[2], ids[0]]
    one = await alice.call("get_conversation", ownerUserID=alice.user_id, conversationID=ids[1])
    assert one["conversation"]["conversationID"] == ids[1]
    bad: list[Json | None] = [{"pageNumber": 0, "showNumber": 5}, {"pageNumber": 1, "showNumber": 0}, None]
    for pagination in bad:
        assert await alice.code("get_owner_conversation", userID=alice.user_id, pagination=pagination) == 1001


async def test_a_new_user_has_an_empty_list(users: list[User]) -> None:
    alice = users[0]

    assert (await alice.full_ids())["equal"]
    assert await alice.rows() == {}
    changes = await alice.changes(OTHER_LIST)
    assert (changes["full"], changes["insert"], changes["update"], changes["delete"]) == (True, [], [], [])
    assert changes["version"] >= 1
    again = await alice.changes(changes)
    assert (again["full"], again["version"], again["versionID"]) == (False, changes["version"], changes["versionID"])


async def test_muted_and_pinned_conversations_are_listed(connect: Connect, users: list[User]) -> None:
    alice, *others = users
    await say(connect, alice.user_id, *(other.user_id for other in others))
    first, second = sorted(await alice.until_rows(2))
    await alice.set(first, recvMsgOpt=1)
    await alice.set(second, recvMsgOpt=2, isPinned=True)

    not_notify = await alice.call("get_not_notify_conversation_ids", userID=alice.user_id)
    pinned = await alice.call("get_pinned_conversation_ids", userID=alice.user_id)

    assert not_notify == {"conversationIDs": [first, second]}
    assert pinned == {"conversationIDs": [second]}


async def test_nobody_reads_or_sets_anothers_conversations(connect: Connect, users: list[User]) -> None:
    alice, bob, eve = users
    await say(connect, alice.user_id, bob.user_id)
    (conversation_id,) = await alice.until_rows(1)
    setting = {"conversationID": conversation_id, "isPinned": True}

    assert await eve.code("get_all_conversations", ownerUserID=alice.user_id) == 1002
    assert await eve.code("set_conversations", userIDs=[alice.user_id], conversation=setting) == 1002
    assert await eve.code("set_conversations", userIDs=[eve.user_id], conversation=setting) == 1002
    for foreign in ("sg_nobodys_group", "n_a_b", "", single_conversation_id(eve.user_id, "nobody_at_all")):
        body = {"userIDs": [eve.user_id], "conversation": {"conversationID": foreign, "isPinned": True}}
        assert await eve.code("set_conversations", **body) in (1002, 1004), foreign
    assert await eve.rows() == {}
    assert await alice.code("get_conversation", ownerUserID=alice.user_id, conversationID="si_no_body") == 1004


@pytest.mark.parametrize(
    "values", [{"recvMsgOpt": 3}, {"recvMsgOpt": -1}, {"groupAtType": 9}, {"burnDuration": -1}, {"isPinned": "yes"}]
)
async def test_a_value_that_no_client_understands_is_refused(connect: Connect, users: list[User], values: Json) -> None:
    alice, bob, _ = users
    conversation_id = single_conversation_id(alice.user_id, bob.user_id)
    body = {"userIDs": [alice.user_id], "conversation": {"conversationID": conversation_id, "ex": "x", **values}}

    assert await alice.code("set_conversations", **body) == 1001
    assert await alice.code("set_conversations", userIDs=[alice.user_id]) == 1001
    assert await alice.rows() == {}


async def test_nobody_lifts_a_limit_of_the_server(connect: Connect, users: list[User]) -> None:
    alice, bob, _ = users
    await say(connect, alice.user_id, bob.user_id)
    (conversation_id,) = await alice.until_rows(1)

    await alice.set(conversation_id, minSeq=7, maxSeq=9, isPinned=True)

    row = (await alice.rows())[conversation_id]
    assert (row["minSeq"], row["maxSeq"], row["isPinned"]) == (0, 0, True)
