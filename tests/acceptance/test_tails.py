"""A client that comes back so soon after its last sync that it makes none is told where its conversations end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from imserver.conf import get_config
from imserver.constants import SessionType
from imserver.protocol.conversations import notification_twin, shard_of, single_conversation_id
from imserver.protocol.gen import sdkws_pb2
from imserver.storage import keys
from imserver.storage.routes import token_digest
from tests.acceptance.devices import until
from tests.client import Api, Client, Connect, text_message, text_of
from tests.stack import Stack, on_both_servers

pytestmark = [pytest.mark.acceptance, on_both_servers]


class Chat:
    """Alice, and Bob who goes away and comes back."""

    def __init__(self, stack: Stack, alice: Client, bob: Client) -> None:
        self._stack = stack
        self.alice = alice
        self.bob = bob
        self.id = single_conversation_id(alice.user_id, bob.user_id)

    async def go(self) -> None:
        """Bob goes away, and what he was told is forgotten."""
        await self.bob.close()
        await until(lambda: not self._stack.redis.exists(self._key(keys.route(self.bob.user_id))), "Bob to be away")
        self.bob.msgs.clear()

    async def come_back(self) -> None:
        await self.bob.connect()
        await self.bob.until_registered()

    async def come_back_and_sync(self) -> None:
        """In time: who does not ask within two seconds is told. A machine that stood still has another try."""
        while True:
            began = time.monotonic()
            await self.bob.connect()
            await self.bob.max_seqs()
            if time.monotonic() - began < 1:
                return
            await self.go()

    async def say(self, *texts: str) -> None:
        """Alice says something, and it has its seq."""
        for text in texts:
            await self.alice.send_text(self.bob.user_id, text)
        await self.alice.until(lambda: [text_of(msg) for msg in self.alice.msgs[self.id]][-len(texts) :] == [*texts])

    def told(self) -> list[tuple[int, str]]:
        return [(msg.seq, text_of(msg)) for msg in self.bob.msgs[self.id]]

    async def until_told(self, *expected: tuple[int, str]) -> None:
        await self.bob.until(self.told)
        assert self.told() == [*expected]

    async def sync(self) -> None:
        """Bob's sync; it stays recent, however slow the machine is."""
        await self.bob.max_seqs()
        assert self._stack.redis.persist(self._synced)

    def let_sync_be_long_ago(self) -> None:
        assert self._stack.redis.delete(self._synced)

    def let_last_message_be_old(self) -> None:
        key = keys.malloc_seq(shard_of(self.id, get_config().shards), self.id)
        assert not self._stack.redis.hset(self._key(key), "TIME", 1)

    @property
    def _synced(self) -> str:
        return self._key(keys.synced(self.bob.user_id, token_digest(self.bob.token)))

    def _key(self, key: str) -> str:
        """As the stack's processes name it."""
        return f"{self._stack.prefix}{key.removeprefix(get_config().key_prefix)}"


MakeChat = Callable[..., Awaitable[Chat]]


@pytest.fixture
def make_chat(stack: Stack, api: Api, connect: Connect, names: Iterator[str]) -> MakeChat:
    """A chat with one message, "before", of a Bob who has just synced; or of one who is given."""

    async def make(bob: Client | None = None) -> Chat:
        alice_id = next(names)
        await api.register(alice_id)
        if bob is None:
            bob_id = next(names)
            await api.register(bob_id)
            bob = await connect(bob_id)
        chat = Chat(stack, await connect(alice_id), bob)
        await chat.say("before")
        await chat.until_told((1, "before"))
        await chat.sync()
        return chat

    return make


async def test_who_does_not_sync_is_pushed_the_newest_message_of_what_changed(api: Api, make_chat: MakeChat) -> None:
    chat = await make_chat()
    silent = await make_chat(chat.bob)
    silent.let_last_message_be_old()

    await chat.go()
    await chat.say("missed", "missed, too")
    read = {"userID": chat.alice.user_id, "conversationID": chat.id, "hasReadSeq": 1, "seqs": []}
    await api.call("/msg/mark_conversation_as_read", read)
    await chat.alice.until(lambda: chat.alice.msgs[notification_twin(chat.id)])
    await chat.come_back()

    await chat.until_told((3, "missed, too"))
    # Notifications come last.
    await chat.bob.until(lambda: chat.bob.msgs[notification_twin(chat.id)])
    assert set(chat.bob.msgs) == {chat.id, notification_twin(chat.id)}
    assert [msg.seq for msg in chat.bob.msgs[notification_twin(chat.id)]] == [1]


async def test_each_conversation_is_told_in_a_push_of_its_own(make_chat: MakeChat) -> None:
    """OpenIM's Go core counts what is in one push as of one conversation."""
    first = await make_chat()
    second = await make_chat(first.bob)

    await first.go()
    first.bob.pushes.clear()
    await first.say("one")
    await second.say("one", "two")
    await first.come_back()

    await first.until_told((2, "one"))
    await second.until_told((3, "two"))
    pushes = [sdkws_pb2.PushMessages.FromString(push.data) for push in first.bob.pushes]
    assert {len(push.msgs) + len(push.notificationMsgs) for push in pushes} == {1}


async def test_who_was_kicked_is_told_nothing_of_the_group(
    api: Api, connect: Connect, names: Iterator[str], make_chat: MakeChat
) -> None:
    chat = await make_chat()
    carol_id = next(names)
    await api.register(carol_id)
    carol = await connect(carol_id)
    group_info = {"groupName": "Round table", "groupType": 2}
    created = {"ownerUserID": chat.alice.user_id, "memberUserIDs": [chat.bob.user_id, carol.user_id]}
    group = await api.call("/group/create_group", {**created, "groupInfo": group_info})
    group_id = group["groupInfo"]["groupID"]
    in_group, twin = f"sg_{group_id}", f"n_{group_id}"
    await chat.bob.until(lambda: chat.bob.msgs[twin])
    await api.call("/group/kick_group", {"groupID": group_id, "kickedUserIDs": [chat.bob.user_id], "reason": ""})
    await chat.bob.until(lambda: len(chat.bob.msgs[twin]) == 2)
    await chat.sync()

    await chat.go()
    await chat.say("missed")
    msg = text_message(chat.alice.user_id, "", "of the group")
    msg.groupID, msg.sessionType = group_id, SessionType.GROUP
    await chat.alice.send_msg(msg)
    await carol.until(lambda: carol.msgs[in_group])
    seq = carol.msgs[in_group][-1].seq
    await api.call("/msg/revoke_msg", {"userID": chat.alice.user_id, "conversationID": in_group, "seq": seq})
    await carol.until(lambda: carol.msgs[twin][-1].seq == 1)
    await chat.come_back()

    await chat.until_told((2, "missed"))
    await chat.say("after")
    await chat.bob.until(lambda: len(chat.told()) == 2)
    assert twin not in chat.bob.msgs


async def test_the_python_sdk_is_told_nothing(make_chat: MakeChat) -> None:
    """It asks 1001 when it is told to, and shows what is pushed."""
    python, go = await make_chat(), await make_chat()
    for chat in (python, go):
        await chat.go()
        await chat.say("missed")
    python.bob.url += "&sdkVersion=python-ws-0.1.0"

    await python.come_back()
    await go.come_back()

    await go.until_told((2, "missed"))
    await python.say("after")
    await python.until_told((3, "after"))


async def test_it_is_told_again_after_the_next_absence(make_chat: MakeChat) -> None:
    chat = await make_chat()
    for number in (2, 3):
        await chat.go()
        await chat.say(f"missed {number}")
        await chat.come_back()
    await chat.until_told((3, "missed 3"))


async def test_who_syncs_or_synced_long_ago_is_told_nothing(make_chat: MakeChat) -> None:
    synced, long_ago, neither = [await make_chat() for _ in range(3)]
    for chat in (synced, long_ago, neither):
        await chat.go()
        await chat.say("missed")
    long_ago.let_sync_be_long_ago()

    await synced.come_back_and_sync()
    await long_ago.come_back()
    await neither.come_back()

    # Its turn comes after that of the others.
    await neither.until_told((2, "missed"))
    for chat in (synced, long_ago):
        await chat.say("after")
        await chat.until_told((3, "after"))
