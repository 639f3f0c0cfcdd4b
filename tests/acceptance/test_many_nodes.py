"""Three gateway nodes: one is killed, one hangs, two are restarted in turn; big groups, slow readers, and what that costs.

Prints figures of the run (``pytest -s``). Clients, servers and stores share the machine, so they say how it compares, not
how fast it is.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, closing
from functools import partial
from typing import Any

import pytest

from imserver.constants import ReqIdentifier, SessionType
from imserver.devservices.servers import EmbeddedServers
from imserver.protocol.conversations import group_conversation_id, single_conversation_id
from imserver.protocol.gen.sdkws_pb2 import MsgData
from tests.acceptance.devices import ANDROID, IOS, WEB
from tests.acceptance.group_api import GroupApi
from tests.acceptance.node_watch import (
    NodeListener,
    RoamingClient,
    Watcher,
    counted,
    nodes_of,
    offline_pushed_to,
    offline_pushes,
    percentile,
    pushed_to,
    send_and_wait,
    until_pushed_to,
    until_quiet,
)
from tests.acceptance.test_gateway_limits import LONG_TEXT
from tests.acceptance.test_kills import SECONDS, Pair, check_everything, said_in, talk, until, until_all_arrived
from tests.client import Api, Client, Sleeper, text_message, text_of
from tests.resilient_client import Received, ResilientClient
from tests.stack import Stack

pytestmark = pytest.mark.acceptance

NODES = 3
NODE_TTL_MS, PUSH_RESULT_MS = 5000, 10_000
#: When a node is gone, or hangs: by then its users' messages are the vendor's.
OFFLINE_SECONDS = (NODE_TTL_MS + PUSH_RESULT_MS) / 1000
CONNECT_AT_ONCE = 25

FRAMES_ENCODED = "im_gateway_frames_encoded_total"
NODE_EVENTS = "im_push_node_events_total"

#: Platform and options of members' apps; a node encodes a push once for each kind of them that it holds.
APPS: list[tuple[int, dict[str, Any]]] = [
    (IOS, {"sdk_type": "go"}),
    (ANDROID, {"sdk_type": "go", "is_compressed": True}),
    (WEB, {"sdk_type": "js"}),
    (WEB, {"sdk_type": "js", "is_compressed": True}),
]
MEMBERS, ONLINE, GROUP_MSGS = 1000, 500, 20
READERS, LONG_MSGS = 8, 200
PAIRS, RATE = 10, 200
SINGLE_MSGS, PEOPLE = 200, 30


@pytest.fixture(scope="module")
def stack(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {
        "OFFLINE_PUSH_VENDOR": "dummy",
        "NODE_HEARTBEAT_MS": "1000",
        "NODE_TTL_MS": str(NODE_TTL_MS),
        "PUSH_RESULT_MS": str(PUSH_RESULT_MS),
        "SEND_QUEUE_BYTES": "2097152",
        # Who does not read is to be cut off because its queue is full, however slowly it fills.
        "SEND_STALL_SECONDS": "600",
    }
    with Stack(servers, tmp_path_factory.mktemp("nodes"), gateways=NODES, **settings) as running:
        for number in range(NODES):
            running.wait_gateway(number)
        yield running


Join = Callable[..., Awaitable[Watcher]]


@pytest.fixture
async def join(stack: Stack, api: Api) -> AsyncIterator[Join]:
    """Connects a user to a node, and waits until the user is in the routing table; closed at the end."""
    clients: list[Client] = []
    places = asyncio.Semaphore(CONNECT_AT_ONCE)

    async def join(user_id: str, node: int, platform_id: int = IOS, token: str = "", **options: Any) -> Watcher:
        async with places:
            token = token or await api.token(user_id, platform_id)
            client = Watcher(stack.gateway_urls[node], user_id, token, platform_id=platform_id, **options)
            clients.append(client)
            await client.connect()
            await client.max_seqs()
        return client

    yield join
    await asyncio.gather(*(client.close() for client in clients))


def show(text: str) -> None:
    print(f"\n{text}")  # noqa: T201


def group_message(sender: str, group_id: str, text: str) -> MsgData:
    msg = text_message(sender, "", text)
    msg.sessionType, msg.groupID = SessionType.GROUP, group_id
    return msg


# -- nodes that go


async def test_users_of_a_killed_node_get_offline_pushes_and_have_everything_when_they_are_back(
    stack: Stack, api: Api, join: Join, names: Iterator[str]
) -> None:
    alice, both, *left = itertools.islice(names, 8)
    await api.register(alice, both, *left)
    platforms = dict(zip(left, itertools.cycle((IOS, ANDROID)), strict=False))
    tokens = {user: await api.token(user, platform) for user, platform in platforms.items()}
    sender = await join(alice, 0)
    phones = [await join(user, 1, platforms[user], tokens[user]) for user in left]
    # A phone that is left is enough.
    await join(both, 1, IOS)
    phones.append(await join(both, 0, ANDROID))
    said: list[str] = []

    async def say(*texts: str) -> dict[str, str]:
        """To everybody; returns receivers by the message's id."""
        said.extend(texts)
        return {(await sender.send_text(user, text)).serverMsgID: user for text in texts for user in (both, *left)}

    await say("1", "2", "3")
    for phone in phones:
        await until_pushed_to(phone, 3)
    await until_quiet(stack)
    before = offline_pushes(stack)

    stack.kill_gateway(1)
    try:
        killed_at = time.monotonic()
        missed = await say("4")
        await until(lambda: offline_pushes(stack) >= before + len(left), "the first offline pushes", OFFLINE_SECONDS)
        seconds = time.monotonic() - killed_at
        missed |= await say("5", "6", "7", "8")
        await until(lambda: offline_pushes(stack) >= before + 5 * len(left), "the other offline pushes", SECONDS)
        await until_quiet(stack)
        show(f"offline pushes {seconds:.2f} s after the kill of their users' node")

        assert offline_pushes(stack) - before == 5 * len(left)
        assert {
            server_id: offline_pushed_to(stack, server_id) for server_id, user in missed.items() if user != both
        } == {server_id: {user} for server_id, user in missed.items() if user != both}
        await until_pushed_to(phones[-1], 8)

        async with AsyncExitStack() as context:
            back = [
                await context.enter_async_context(
                    ResilientClient(stack.gateway_urls[2], user, tokens[user], platform_id=platforms[user])
                )
                for user in left
            ]
            # Some come while they connect, some when they are there.
            await say("9", "10", "11")
            await until_all_have(back, alice, said)
            await until_quiet(stack)
            before = offline_pushes(stack)
            await say("12", "13")
            await until_all_have(back, alice, said)
            await until_quiet(stack)

        assert offline_pushes(stack) == before, "their phones took them"
        for client in back:
            received = client.received[single_conversation_id(alice, client.user_id)]
            assert [item.text for item in received] == said
            assert [item.seq for item in received] == list(range(1, len(said) + 1))
            assert client.holes == []
            assert 8 <= client.pulled <= 11
    finally:
        stack.start_gateway(1)
        stack.wait_gateway(1)


async def until_all_have(clients: list[ResilientClient], other: str, said: list[str]) -> None:
    for client in clients:
        received = client.received[single_conversation_id(client.user_id, other)]
        await client.until(partial(has_all, received, said), f"{len(said)} messages", SECONDS)


def has_all(received: list[Received], said: list[str]) -> bool:
    return len(received) >= len(said)


async def test_a_node_that_hangs_keeps_its_users_offline_pushes_only_for_a_while(
    stack: Stack, api: Api, join: Join, names: Iterator[str]
) -> None:
    alice, bob, carol = itertools.islice(names, 3)
    await api.register(alice, bob, carol)
    sender, phone, other = await join(alice, 0), await join(bob, 1), await join(carol, 2)
    other.watch(single_conversation_id(alice, carol))
    await sender.send_text(bob, "1")
    await until_pushed_to(phone, 1)
    await until_quiet(stack)
    before = offline_pushes(stack)

    stack.pause("gateway1")
    try:
        sent_at = time.monotonic()
        server_ids = [(await sender.send_text(bob, text)).serverMsgID for text in "234"]
        (beside,) = await send_and_wait(sender, text_message(alice, carol, "meanwhile"), [other])
        await until(lambda: offline_pushes(stack) >= before + 3, "the offline pushes", OFFLINE_SECONDS)
        show(
            f"a node that hangs: offline pushes {time.monotonic() - sent_at:.2f} s after the messages to a phone on it;"
            f" {beside:.2f} s to a phone on another node meanwhile"
        )
    finally:
        stack.resume("gateway1")

    assert [offline_pushed_to(stack, server_id) for server_id in server_ids] == [{bob}] * 3
    # Who gets a notice has the message none the less, once.
    await phone.max_seqs()
    assert [text_of(msg) for msg in await phone.pull(single_conversation_id(alice, bob), 1, 4)] == list("1234")
    await until_quiet(stack)
    assert offline_pushes(stack) == before + 3


async def test_restarting_two_nodes_in_turn_loses_doubles_and_reorders_nothing(
    stack: Stack, api: Api, names: Iterator[str]
) -> None:
    users = list(itertools.islice(names, 2 * PAIRS))
    await api.register(*users)
    async with AsyncExitStack() as context:
        clients = [
            await context.enter_async_context(
                RoamingClient(
                    stack.gateway_urls, number % NODES, user, await api.token(user), is_compressed=bool(number % 2)
                )
            )
            for number, user in enumerate(users)
        ]
        pairs = [Pair(first, second) for first, second in zip(clients[::2], clients[1::2], strict=True)]
        for pair in pairs:
            pair.say()
        await until_all_arrived(pairs)
        is_over = False
        started = time.monotonic()
        talking = asyncio.create_task(talk(pairs, RATE, lambda: is_over))

        for number in (0, 1):
            await until_more_said(pairs, RATE)
            await restart(stack, number)
        await until_more_said(pairs, RATE)
        is_over = True
        await talking
        rate = said_in(pairs) / (time.monotonic() - started)

        await check_everything(stack, pairs)
        # By now everybody of node 0 has been on node 1, and all of node 1 are on node 2.
        for number, client in enumerate(clients):
            assert client.close_codes == [1012] * (2, 1, 0)[number % NODES], client.describe()
            assert client.connections == len(client.close_codes) + 1
        assert set.union(*(nodes_of(stack, user) for user in users)) == nodes_of(stack, users[2])
        away = [seconds for client in clients for seconds in client.away_seconds]
        resends = sum(client.resends for client in clients)
        show(
            f"rolling restart: {said_in(pairs)} messages at {rate:.0f} msg/s; away at most {max(away):.2f} s,"
            f" p50 {percentile(away, 0.5):.2f} s; {resends} sent again"
        )


async def restart(stack: Stack, number: int) -> None:
    """SIGTERM, wait for its end, start again; the clients go on meanwhile."""
    stack.tell_gateway_to_end(number)
    await until(lambda: stack.returncode(f"gateway{number}") is not None, f"node {number} to end")
    stack.stop_gateway(number)
    stack.start_gateway(number)
    await asyncio.to_thread(stack.wait_gateway, number)


async def until_more_said(pairs: list[Pair], count: int) -> None:
    wanted = said_in(pairs) + count
    await until(lambda: said_in(pairs) >= wanted, f"{count} more messages to be said")


# -- what a message costs


async def test_a_message_to_a_big_group_is_one_event_a_node_and_one_frame_an_encoding(
    stack: Stack, api: Api, join: Join, names: Iterator[str]
) -> None:
    users = list(itertools.islice(names, MEMBERS))
    await api.register(*users)
    group_id = await GroupApi(api, names).create(users[0], *users[1:], send_message=False)
    seats = list(itertools.islice(itertools.cycle(itertools.product(APPS, range(NODES))), ONLINE))
    online = await asyncio.gather(
        *(
            join(user, node, platform, **options)
            for user, ((platform, options), node) in zip(users[:ONLINE], seats, strict=True)
        )
    )
    for client in online:
        client.watch(group_conversation_id(group_id))
    not_on_a_phone = MEMBERS - sum(platform in (IOS, ANDROID) for (platform, _), _ in seats)
    msgs = [group_message(users[0], group_id, str(number)) for number in range(1 + GROUP_MSGS)]

    await send_and_wait(online[0], msgs[0], online)
    await until_quiet(stack)
    before = {name: counted(stack, name) for name in (FRAMES_ENCODED, NODE_EVENTS)}
    pushed_before = offline_pushes(stack)
    last = [max(await send_and_wait(online[0], msg, online)) for msg in msgs[1:]]
    wanted = pushed_before + GROUP_MSGS * not_on_a_phone
    await until(lambda: offline_pushes(stack) >= wanted, "the offline pushes", SECONDS)
    await until_quiet(stack)
    grown = {name: counted(stack, name) - value for name, value in before.items()}

    assert {tuple(client.client_msg_ids) for client in online} == {tuple(msg.clientMsgID for msg in msgs)}
    assert 0 < grown[FRAMES_ENCODED] <= GROUP_MSGS * NODES * len(APPS)
    assert 0 < grown[NODE_EVENTS] <= GROUP_MSGS * NODES
    assert offline_pushes(stack) == wanted
    show(
        f"group of {MEMBERS}, {ONLINE} online on {NODES} nodes: to the last one p50 {percentile(last, 0.5) * 1000:.0f} ms,"
        f" p99 {percentile(last, 0.99) * 1000:.0f} ms; a message is {grown[FRAMES_ENCODED] / GROUP_MSGS:g} frames encoded,"
        f" {grown[NODE_EVENTS] / GROUP_MSGS:g} node events"
    )


async def test_a_member_who_stops_reading_delays_nobody_else_in_the_group(
    stack: Stack, api: Api, join: Join, names: Iterator[str]
) -> None:
    alice, bob, *others = itertools.islice(names, 2 + READERS)
    await api.register(alice, bob, *others)
    group_id = await GroupApi(api, names).create(alice, bob, *others, send_message=False)
    conversation_id = group_conversation_id(group_id)
    sender = await join(alice, 0)
    readers = [await join(user, number % NODES, (IOS, WEB)[number % 2]) for number, user in enumerate(others)]
    for reader in readers:
        reader.watch(conversation_id)
    msgs = [group_message(alice, group_id, LONG_TEXT) for _ in range(2 * LONG_MSGS)]
    sleeper = Sleeper(Client(stack.gateway_urls[0], bob, await api.token(bob)))

    async def seconds_of(part: list[MsgData]) -> list[float]:
        return [seconds for msg in part for seconds in await send_and_wait(sender, msg, readers)]

    without = await seconds_of(msgs[:LONG_MSGS])
    await sleeper.connect()
    try:
        beside = await seconds_of(msgs[LONG_MSGS:])
        sent = [msg.clientMsgID for msg in msgs]
        assert all(reader.client_msg_ids == sent for reader in readers)
        assert await sleeper.wake() == 4001
    finally:
        await sleeper.close()

    again = await join(bob, 1)
    last = (await again.max_seqs())[conversation_id]
    pulled = [
        msg
        for begin in range(1, last + 1, 20)
        for msg in await again.pull(conversation_id, begin, min(begin + 19, last))
    ]
    assert [msg.clientMsgID for msg in pulled] == sent
    assert [msg.seq for msg in pulled] == list(range(1, last + 1))
    show(
        f"{len(LONG_TEXT) // 1000} kB to {READERS} readers: p99 {percentile(without, 0.99) * 1000:.0f} ms alone,"
        f" {percentile(beside, 0.99) * 1000:.0f} ms beside one who does not read"
        f" (p50 {percentile(without, 0.5) * 1000:.0f} and {percentile(beside, 0.5) * 1000:.0f} ms)"
    )


async def test_only_nodes_that_hold_sender_or_receiver_hear_of_a_message(
    stack: Stack, api: Api, join: Join, names: Iterator[str]
) -> None:
    people = list(itertools.islice(names, PEOPLE))
    await api.register(*people)
    # One device, two on any nodes, or none.
    devices = {
        user: [await join(user, random.randrange(NODES), platform) for platform in ((IOS,), (IOS, WEB), ())[number % 3]]
        for number, user in enumerate(people)
    }
    nodes = {user: nodes_of(stack, user) for user in people}
    senders = [user for user in people if devices[user]]
    msgs = []
    for number in range(SINGLE_MSGS):
        sender = random.choice(senders)
        msgs.append(text_message(sender, random.choice([user for user in people if user != sender]), str(number)))
    await until_quiet(stack)
    before = counted(stack, NODE_EVENTS)

    with closing(NodeListener(stack)) as listener:
        answers = [await devices[msg.sendID][0].submit(ReqIdentifier.SEND_MSG, msg.SerializeToString()) for msg in msgs]
        assert {answer.err_code for answer in await asyncio.gather(*answers)} == {0}
        await until_quiet(stack)
        heard = listener.heard()
        events = counted(stack, NODE_EVENTS) - before

    pairs = {(msg.clientMsgID, node) for msg in msgs for node in nodes[msg.sendID] | nodes[msg.recvID]}
    assert sorted((item.client_msg_id, item.node) for item in heard) == sorted(pairs)
    assert all(item.user_ids and all(item.node in nodes[user] for user in item.user_ids) for item in heard)
    assert listener.events == events <= len(pairs)
    for user in people:
        concerned = sorted(msg.clientMsgID for msg in msgs if user in (msg.sendID, msg.recvID))
        for device in devices[user]:
            await until_pushed_to(device, len(concerned))
            assert sorted(pushed_to(device)) == concerned
    show(f"{SINGLE_MSGS} messages: {len(pairs)} pairs of message and node, {events:.0f} node events")
