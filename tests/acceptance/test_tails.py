"""A client that comes back so soon after its last sync that it makes none is told where its conversations end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest

from imserver.conf import get_config
from imserver.protocol.conversations import notification_twin, shard_of, single_conversation_id
from imserver.storage import keys
from imserver.storage.routes import token_digest
from tests.acceptance.devices import until
from tests.client import Api, Client, Connect, text_of
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

    def let_sync_be_long_ago(self) -> None:
        digest = token_digest(self.bob.token)
        assert self._stack.redis.delete(self._key(keys.synced(self.bob.user_id, digest)))

    def let_last_message_be_old(self) -> None:
        key = keys.malloc_seq(shard_of(self.id, get_config().shards), self.id)
        assert not self._stack.redis.hset(self._key(key), "TIME", 1)

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
        await bob.max_seqs()
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
    assert set(chat.bob.msgs) == {chat.id, notification_twin(chat.id)}
    assert [msg.seq for msg in chat.bob.msgs[notification_twin(chat.id)]] == [1]


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

    await synced.come_back()
    await synced.bob.max_seqs()
    await long_ago.come_back()
    await neither.come_back()

    # Its turn comes after that of the others.
    await neither.until_told((2, "missed"))
    for chat in (synced, long_ago):
        await chat.say("after")
        await chat.until_told((3, "after"))
