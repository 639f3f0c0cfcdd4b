"""Mentions in a group and its announcements mark the conversation of those they concern (protocol: flows.md 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from imserver.constants import ContentType, MsgFrom, SessionType
from imserver.protocol.conversations import notification_twin, single_conversation_id
from imserver.protocol.gen.sdkws_pb2 import MsgData
from tests.acceptance.devices import until
from tests.acceptance.group_api import GroupApi
from tests.client import ANSWER_SECONDS, Api, Client, Connect
from tests.stack import POLL_SECONDS

pytestmark = pytest.mark.acceptance


class Group:
    """A group of five. The first is its owner and sends."""

    def __init__(self, people: GroupApi, sender: Client, group_id: str, user_ids: list[str]) -> None:
        self.people, self.sender, self.group_id, self.user_ids = people, sender, group_id, user_ids
        self.conversation_id = f"sg_{group_id}"

    async def say(self, *named: str, content_type: int = ContentType.AT_TEXT) -> None:
        text = {"text": "@", "atUserList": list(named), "isAtSelf": False}
        msg = MsgData(
            sendID=self.user_ids[0],
            groupID=self.group_id,
            sessionType=SessionType.GROUP,
            msgFrom=MsgFrom.USER,
            contentType=content_type,
            content=orjson.dumps(text),
            atUserIDList=named,
        )
        await self.sender.send_msg(msg)

    async def row(self, user_id: str) -> dict[str, Any]:
        body = {"ownerUserID": user_id, "conversationIDs": [self.conversation_id]}
        rows = (await self.people.api.call("/conversation/get_conversations", body))["conversations"]
        return rows[0] if rows else {}

    async def marks(self) -> list[int]:
        return [(await self.row(user_id)).get("groupAtType", -1) for user_id in self.user_ids]

    async def until_marks(self, *wanted: int) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                if await self.marks() == list(wanted):
                    return
                await asyncio.sleep(POLL_SECONDS)

    async def reset(self, user_id: str) -> None:
        conversation = {"conversationID": self.conversation_id, "conversationType": 3, "groupAtType": 0}
        body = {"userIDs": [user_id], "conversation": conversation}
        await self.people.api.call("/conversation/set_conversations", body, token=await self.people.token(user_id))

    async def versions(self) -> list[int]:
        return await versions_of(self.people.api, self.user_ids)


async def versions_of(api: Api, user_ids: list[str]) -> list[int]:
    """Of each user's list of conversations."""
    found = []
    for user_id in user_ids:
        body = {"userID": user_id, "idHash": 0}
        found.append((await api.call("/conversation/get_full_conversation_ids", body))["version"])
    return found


@pytest.fixture
async def group(api: Api, connect: Connect, names: Iterator[str]) -> Group:
    people = GroupApi(api, names)
    user_ids = await people.users(5)
    sender = await connect(user_ids[0])
    counted = [version + 1 for version in await versions_of(api, user_ids)]
    group = Group(people, sender, await people.create(user_ids[0], *user_ids[1:]), user_ids)

    async def is_counted() -> bool:
        return await group.versions() == counted

    # A record is shown before it is written, and counted a moment after that.
    await until(is_counted, "everybody's record to be counted")
    assert await group.marks() == [0, 0, 0, 0, 0]
    return group


def notices(client: Client) -> Callable[[], int]:
    own = notification_twin(single_conversation_id(client.user_id, client.user_id))
    return lambda: sum(msg.contentType == ContentType.CONVERSATION_CHANGE for msg in client.msgs[own])


async def test_those_whom_a_message_names_are_marked_and_told_and_nobody_else(group: Group, connect: Connect) -> None:
    _, named, other, *_ = group.user_ids
    clients = [await connect(user_id) for user_id in (named, other)]
    before = await group.versions()

    await group.say(named, "nobody")

    await group.until_marks(0, 1, 0, 0, 0)
    await clients[0].until(lambda: notices(clients[0])() == 1)
    assert notices(clients[1])() == 0
    raised = [after - start for after, start in zip(await group.versions(), before, strict=True)]
    assert raised == [0, 1, 0, 0, 0]


async def test_all_are_marked_but_the_sender_and_those_named_besides_in_their_own_way(group: Group) -> None:
    await group.say("AtAllTag")
    await group.until_marks(0, 2, 2, 2, 2)

    await group.say("AtAllTag", group.user_ids[3])

    await group.until_marks(0, 2, 2, 3, 2)


async def test_a_user_who_has_looked_takes_the_mark_away_and_the_next_mention_sets_it_again(
    group: Group, connect: Connect
) -> None:
    named = group.user_ids[1]
    client = await connect(named)
    await group.say(named)
    await group.until_marks(0, 1, 0, 0, 0)

    await group.reset(named)

    assert await group.marks() == [0, 0, 0, 0, 0]
    await client.until(lambda: notices(client)() == 2)
    await group.say(named)
    await group.until_marks(0, 1, 0, 0, 0)


async def test_a_repeated_mention_is_not_told_again(group: Group, connect: Connect) -> None:
    named, last = group.user_ids[1:3]
    client = await connect(named)
    await group.say(named)
    await group.until_marks(0, 1, 0, 0, 0)
    await group.say(named)
    await group.say(last)

    await group.until_marks(0, 1, 1, 0, 0)

    await client.until(lambda: notices(client)() == 1)
    assert notices(client)() == 1


async def test_a_mention_in_the_first_moment_of_a_group_is_not_lost(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    people = GroupApi(api, names)
    user_ids = await people.users(3)
    sender = await connect(user_ids[0])
    group = Group(people, sender, await people.create(user_ids[0], *user_ids[1:]), user_ids)

    await group.say("AtAllTag")

    await group.until_marks(0, 2, 2)


async def test_a_new_announcement_marks_everybody_and_another_change_or_an_empty_one_nobody(group: Group) -> None:
    async def change(**values: str) -> None:
        await group.people.call(group.user_ids[0], "set_group_info_ex", groupID=group.group_id, **values)

    await change(introduction="hello", notification="")
    await change(groupName="name")
    await group.say(group.user_ids[4])
    await group.until_marks(0, 0, 0, 0, 1)

    await change(notification="tomorrow")

    await group.until_marks(4, 4, 4, 4, 4)


async def test_the_app_servers_mention_counts_too(group: Group) -> None:
    body = {
        "sendID": group.user_ids[0],
        "groupID": group.group_id,
        "sessionType": 3,
        "contentType": 106,
        "content": {"text": "@", "atUserList": [group.user_ids[2]], "isAtSelf": False},
    }

    await group.people.api.call("/msg/send_msg", body)

    await group.until_marks(0, 0, 1, 0, 0)
