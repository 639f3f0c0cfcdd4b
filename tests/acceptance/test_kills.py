"""Whatever is killed, when and how often: what was acknowledged arrives once, in order, numbered without a hole."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest

from imserver.constants import SessionType
from imserver.devservices.servers import EmbeddedServer, EmbeddedServers
from imserver.protocol.conversations import group_conversation_id, single_conversation_id
from tests.acceptance.group_api import GroupApi
from tests.client import Api, Client, text_message
from tests.resilient_client import Received, ResilientClient
from tests.stack import Stack, wait_until

pytestmark = pytest.mark.acceptance

#: Long enough for a lost wake-up (5 s), a lease and a start of a worker on a busy machine, one after the other.
SECONDS = 60
POLL_SECONDS = 0.05
#: Chatting that "goes on" does not make people wait longer.
SOON_SECONDS = 15
PAUSE_SECONDS = 1.5
#: Redis takes no writes for at most this long.
PAUSE_MS = 20_000


@pytest.fixture(scope="module")
def module_stack(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(servers, tmp_path_factory.mktemp("killed"), LEASE_MS="1000") as running:
        yield running


@pytest.fixture
def own_stack(module_stack: Stack) -> Iterator[Stack]:
    """Nobody else's; a drainer that dies is missed after a second. Whole again when the next test gets it."""
    yield module_stack
    for store in (module_stack.servers.redis, module_stack.servers.mongo):
        store.start()
    module_stack.mend()


class Pair:
    """Two users who write to each other."""

    def __init__(self, first: ResilientClient, second: ResilientClient) -> None:
        self.clients = (first, second)
        self.conversation_id = single_conversation_id(first.user_id, second.user_id)
        self._numbers = itertools.count(1)

    def say(self, count: int = 1) -> None:
        """Each writes to the other."""
        first, second = self.clients
        for number in itertools.islice(self._numbers, count):
            first.say(second.user_id, f"{first.user_id} {number}")
            second.say(first.user_id, f"{second.user_id} {number}")

    @property
    def said(self) -> int:
        return sum(len(client.said) for client in self.clients)

    def has_everything(self, client: ResilientClient) -> bool:
        is_answered = len(client.acknowledged) == len(client.said)
        return is_answered and len(client.received[self.conversation_id]) >= self.said

    @property
    def arrived(self) -> int:
        return min(len(client.received[self.conversation_id]) for client in self.clients)


@asynccontextmanager
async def chatting(stack: Stack, names: Iterator[str], count: int) -> AsyncIterator[list[Pair]]:
    """That many pairs of users, connected, each with two messages behind them."""
    async with AsyncExitStack() as context:
        api = await context.enter_async_context(Api(stack.web_url))
        user_ids = list(itertools.islice(names, 2 * count))
        await api.register(*user_ids)
        clients = [
            await context.enter_async_context(
                ResilientClient(stack.gateway_url, user_id, await api.token(user_id), is_compressed=bool(number % 2))
            )
            for number, user_id in enumerate(user_ids)
        ]
        pairs = [Pair(first, second) for first, second in zip(clients[::2], clients[1::2], strict=True)]
        for pair in pairs:
            pair.say()
        await until_all_arrived(pairs)
        yield pairs


async def until_all_arrived(pairs: list[Pair], seconds: float = SECONDS) -> None:
    """Both sides of every pair have as many messages as the two have said, and an answer to each they said."""
    for pair in pairs:
        for client in pair.clients:
            what = f"{pair.said} messages of {pair.conversation_id}"
            await client.until(partial(pair.has_everything, client), what, seconds)


async def until_more_arrived(pairs: list[Pair], count: int, talking: asyncio.Task[None]) -> None:
    """That many more than now, or all there will be."""
    wanted = arrived_in(pairs) + count
    await until(lambda: talking.done() or arrived_in(pairs) >= wanted, f"{count} more messages")


async def until_stored(stack: Stack, pair: Pair, count: int = 0) -> None:
    """So many messages, or all that were said."""
    await until(
        lambda: len(stored(stack, pair.conversation_id)) >= (count or pair.said),
        f"{count or pair.said} stored messages of {pair.conversation_id}",
    )


async def until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    """Wait for something that no client hears of; the clients go on meanwhile."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  (the stores and processes that are looked at set no event)
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise AssertionError(f"waited {seconds} s for {what}") from None


async def talk(pairs: list[Pair], rate: float, is_enough: Callable[[], bool]) -> None:
    """Everybody in turn, ``rate`` messages a second, until it is enough.

    The load has a pace of its own, as people have: it does not wait for the server.
    """
    loop = asyncio.get_running_loop()
    due = loop.time()
    for pair in itertools.cycle(pairs):
        if is_enough():
            return
        pair.say()
        due += 2 / rate
        await asyncio.sleep(max(due - loop.time(), 0))


def has_arrived_or_ended(stack: Stack, pairs: list[Pair], wanted: int) -> bool:
    """Whether that many messages arrived, or never will because the worker ended."""
    return arrived_in(pairs) >= wanted or stack.returncode("worker0") is not None


def said_in(pairs: list[Pair]) -> int:
    return sum(pair.said for pair in pairs)


def arrived_in(pairs: list[Pair]) -> int:
    return sum(pair.arrived for pair in pairs)


def stored(stack: Stack, conversation_id: str) -> list[Received]:
    """The messages of a conversation in MongoDB, at the seqs of their slots."""
    found = []
    for document in stack.database["msg"].find({"conversation_id": conversation_id}).sort("block", 1):
        for slot, content in enumerate(document["msgs"], start=1):
            if (msg := content["msg"]) is not None:
                assert msg["seq"] == document["block"] * 100 + slot
                text = msg["content"].removeprefix('{"content":"').removesuffix('"}')
                found.append(Received(msg["seq"], msg["client_msg_id"], text))
    return found


async def check_everything(stack: Stack, pairs: list[Pair]) -> None:
    """What was said is what arrived on both sides and what is stored: once, in order, numbered 1, 2, 3 …"""
    await until_all_arrived(pairs)
    for pair in pairs:
        first, second = (client.received[pair.conversation_id] for client in pair.clients)
        assert [client.holes for client in pair.clients] == [[], []]
        assert first == second
        assert [item.seq for item in first] == list(range(1, pair.said + 1))
        for client in pair.clients:
            said = [msg.clientMsgID for msg in client.said]
            assert [item.client_msg_id for item in first if item.text.startswith(client.user_id)] == said
            assert client.acknowledged == said
        await until_stored(stack, pair)
        assert stored(stack, pair.conversation_id) == first


async def until_ready(server: EmbeddedServer) -> None:
    """Start a store without holding up the clients. Not from a thread: a store dies with the thread that started it."""
    server.start(wait=False)
    await until(lambda: server.kind.is_ready(server.host, server.port), server.kind.name)


async def test_killing_the_worker_again_and_again_loses_doubles_and_reorders_nothing(
    own_stack: Stack, names: Iterator[str]
) -> None:
    kills = 0
    async with chatting(own_stack, names, 10) as pairs:
        talking = asyncio.create_task(talk(pairs, 100, lambda: said_in(pairs) >= 1000 and kills >= 8))

        while not talking.done():
            # Each life of the worker lasts until it has done some work, and ends in the middle of it.
            await until_more_arrived(pairs, random.randint(1, 60), talking)
            own_stack.kill_worker()
            own_stack.start_worker()
            kills += 1
        await talking

        assert said_in(pairs) >= 1000
        await check_everything(own_stack, pairs)


async def test_a_worker_killed_while_it_reserves_seqs_leaves_no_hole(own_stack: Stack, names: Iterator[str]) -> None:
    mongod = own_stack.servers.mongo.process
    assert mongod is not None
    async with chatting(own_stack, names, 1) as pairs:
        (pair,) = pairs
        (key,) = own_stack.redis.scan_iter(match=f"{own_stack.prefix}MALLOC_SEQ:*:{pair.conversation_id}")
        seqs = own_stack.database["seq"]
        wanted = {"conversation_id": pair.conversation_id}
        reserved = seqs.find_one(wanted, {"max_seq": 1})
        assert reserved is not None

        # The worker asks for more seqs, and is killed when it has them and could not tell Redis yet.
        mongod.send_signal(signal.SIGSTOP)
        try:
            pair.say(40)
            await until(lambda: own_stack.redis.hexists(key, "LOCK"), "a reservation")
            own_stack.redis.client_pause(PAUSE_MS, all=False)
        finally:
            mongod.send_signal(signal.SIGCONT)
        try:
            await until(lambda: seqs.find_one(wanted, {"max_seq": 1}) != reserved, "the reservation in MongoDB")
            own_stack.kill_worker()
            # What it had sent dies with its host, too.
            for client in own_stack.redis.client_list():
                if client["cmd"] == "evalsha" and "b" in client["flags"]:
                    own_stack.redis.client_kill_filter(_id=client["id"])
        finally:
            own_stack.redis.client_unpause()
        own_stack.start_worker()
        # Until seqs are reserved again: who died holds the lock for some time.
        await talk(pairs, 10, lambda: not own_stack.redis.hexists(key, "LOCK"))

        await check_everything(own_stack, pairs)


async def test_killing_the_gateway_again_and_again_loses_doubles_and_reorders_nothing(
    own_stack: Stack, names: Iterator[str]
) -> None:
    kills = 0
    async with chatting(own_stack, names, 10) as pairs:

        def everybody_met_half_of_it() -> bool:
            """One pair that is back may say so much that the next kill comes before the others are."""
            return all(client.connections > kills // 2 for pair in pairs for client in pair.clients)

        talking = asyncio.create_task(talk(pairs, 100, lambda: said_in(pairs) >= 1000 and kills >= 8))

        while not talking.done():
            await until_more_arrived(pairs, random.randint(1, 60), talking)
            await until(everybody_met_half_of_it, "everybody to be connected again")
            own_stack.kill_gateway()
            own_stack.start_gateway()
            kills += 1
        await talking

        assert said_in(pairs) >= 1000
        await check_everything(own_stack, pairs)


async def test_a_worker_that_wakes_up_after_its_lease_expired_changes_nothing(
    own_stack: Stack, names: Iterator[str]
) -> None:
    own_stack.start_worker(1)
    async with chatting(own_stack, names, 4) as pairs:
        rounds = 0
        talking = asyncio.create_task(talk(pairs, 100, lambda: rounds >= 6))

        for number in range(6):
            paused = f"worker{number % 2}"
            own_stack.pause(paused)
            try:
                # Every shard goes on: the other worker took over.
                await asyncio.gather(*(until_more_arrived([pair], 20, talking) for pair in pairs))
            finally:
                own_stack.resume(paused)
            rounds += 1
        await talking

        await check_everything(own_stack, pairs)


async def test_everybody_comes_back_by_themselves_after_redis_was_killed(
    own_stack: Stack, names: Iterator[str]
) -> None:
    kills = 0
    async with chatting(own_stack, names, 5) as pairs:
        talking = asyncio.create_task(talk(pairs, 40, lambda: kills >= 3))

        while kills < 3:
            wanted = arrived_in(pairs) + 20
            await until(partial(has_arrived_or_ended, own_stack, pairs, wanted), "messages between two kills of Redis")
            assert own_stack.returncode("worker0") is None, own_stack.log("worker0")[-6000:]
            own_stack.servers.redis.kill()
            await until_ready(own_stack.servers.redis)
            kills += 1
        await talking

        # A push that Redis took with it is noticed when the next one of its conversation comes, and that one must be heard.
        nodes = f"{own_stack.prefix}gateway.*"
        await until(lambda: bool(own_stack.redis.pubsub_channels(nodes)), "the gateway to subscribe again")
        for pair in pairs:
            pair.say()
        await check_everything(own_stack, pairs)


async def test_chatting_goes_on_while_mongodb_is_away_and_is_stored_when_it_is_back(
    own_stack: Stack, names: Iterator[str]
) -> None:
    async with chatting(own_stack, names, 24) as pairs:
        await asyncio.to_thread(own_stack.servers.mongo.stop)
        try:
            # Fewer messages than the 50 seqs that each conversation has in reserve; in all shards, for some time.
            for _ in range(6):
                for pair in pairs:
                    pair.say()
                await until_all_arrived(pairs, SOON_SECONDS)
                # People pause: longer than a drainer lingers, so that the next message needs a new one.
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            await until_ready(own_stack.servers.mongo)

        await check_everything(own_stack, pairs)


async def test_a_group_goes_on_while_mongodb_is_away(own_stack: Stack, names: Iterator[str]) -> None:
    async with AsyncExitStack() as context:
        api = await context.enter_async_context(Api(own_stack.web_url))
        people = GroupApi(api, names)
        owner, member = await people.users(2)
        clients = [
            await context.enter_async_context(Client(own_stack.gateway_url, user_id, await api.token(user_id)))
            for user_id in (owner, member)
        ]
        for client in clients:
            await client.until_registered()
        group_id = await people.create(owner, member, send_message=False)
        conversation_id = group_conversation_id(group_id)

        async def everybody_says(text: str, count: int, seconds: float = SECONDS) -> None:
            for client in clients:
                msg = text_message(client.user_id, "", text)
                msg.sessionType, msg.groupID = SessionType.GROUP, group_id
                await client.send_msg(msg)
            for client in clients:
                await client.until(lambda client=client: len(client.msgs[conversation_id]) == count, seconds)

        await everybody_says("before", 2)
        await asyncio.to_thread(own_stack.servers.mongo.stop)
        try:
            for number in range(3):
                # Longer than who may speak is known without looking it up.
                await asyncio.sleep(PAUSE_SECONDS)
                await everybody_says("meanwhile", 4 + 2 * number, SOON_SECONDS)
        finally:
            await until_ready(own_stack.servers.mongo)

        await until(lambda: len(stored(own_stack, conversation_id)) == 8, "8 stored messages")


async def test_what_was_stored_is_stored_when_mongodb_is_killed_again_and_again(
    own_stack: Stack, names: Iterator[str]
) -> None:
    mongo, kills = own_stack.servers.mongo, 0
    async with chatting(own_stack, names, 10) as pairs:
        talking = asyncio.create_task(talk(pairs, 100, lambda: kills >= 3))

        while kills < 3:
            # It dies as soon as it has said that it has something more of each chat.
            counts = [(pair, len(stored(own_stack, pair.conversation_id))) for pair in pairs]
            for pair, count in counts:
                await until_stored(own_stack, pair, count + 1)
            await asyncio.to_thread(mongo.kill)
            await until_ready(mongo)
            kills += 1
        await talking

        await check_everything(own_stack, pairs)


async def test_a_gateway_that_starts_while_redis_is_away_hears_pushes_afterwards(own_stack: Stack) -> None:
    own_stack.kill_gateway()
    own_stack.servers.stop_redis()
    own_stack.start_gateway()
    wait_until(lambda: "heartbeat failed" in own_stack.log("gateway0"), "the gateway to miss Redis")
    own_stack.servers.start_redis()
    own_stack.wait_gateway()

    async with Api(own_stack.web_url) as api:
        await api.register("early", "late")
        token = await api.token("early")
        async with Client(own_stack.gateway_url, "early", token) as client:
            await client.send_text("late", "hello")
            await client.until(lambda: client.chat_with("late"), SECONDS)
