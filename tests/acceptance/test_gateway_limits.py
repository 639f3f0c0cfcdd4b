"""Clients that ask too much, do not read, or are here when the node goes: on both servers, with limits that are quickly met."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest
import websockets
from websockets.typing import Subprotocol

from imserver.conf import get_config
from imserver.constants import ReqIdentifier
from imserver.protocol.conversations import single_conversation_id
from imserver.protocol.gen import sdkws_pb2
from tests.acceptance.devices import until
from tests.client import ANSWER_SECONDS, Api, Client, Connect, Sleeper, text_message, text_of
from tests.stack import Stack, on_both_servers, wait_until

pytestmark = [pytest.mark.acceptance, on_both_servers]

RATE = 20
#: Of more requests than the limits allow, until one is refused.
BURSTS = 5
PER_USER = 3
#: Longer than a test lasts, and what a test can wait for.
PATIENT_SECONDS, STALL_SECONDS = 600, 5
QUEUE_BYTES = 2_097_152
#: Far more than the queue, the server's buffer and the kernel's buffers take together.
LONG_TEXT, LONG_TEXTS, WAVE = "x" * 40_000, 200, 20


@pytest.fixture(scope="module")
def strict(shared_stack: Stack, gateway_server: str) -> Iterator[Stack]:
    """The shared stack, seen through a gateway with small limits."""
    with shared_stack.with_gateway(
        f"strict-{gateway_server}",
        GATEWAY_SERVER=gateway_server,
        REQUESTS_PER_SECOND=str(RATE),
        REQUESTS_PER_SECOND_PER_USER=str(RATE * 3 // 2),
        MAX_CONNECTIONS_PER_USER=str(PER_USER),
        SEND_QUEUE_BYTES=str(QUEUE_BYTES),
        SEND_STALL_SECONDS=str(PATIENT_SECONDS),
        DRAIN_SECONDS="1",
    ) as running:
        yield running


Join = Callable[..., Awaitable[Client]]


@pytest.fixture
async def join(strict: Stack, api: Api) -> AsyncIterator[Join]:
    """Connects a user to the strict gateway; connections of a user share a token."""
    tokens: dict[str, str] = {}
    clients: list[Client] = []

    async def join(user_id: str, **options: Any) -> Client:
        if user_id not in tokens:
            tokens[user_id] = await api.token(user_id)
        client = Client(strict.gateway_url, user_id, tokens[user_id], **options)
        clients.append(client)
        await client.connect()
        return client

    yield join
    for client in clients:
        client.abort()
        await client.close()


def connection_count(strict: Stack) -> int:
    count: int = httpx.get(f"http{strict.gateway_url[2:]}/healthz", timeout=ANSWER_SECONDS).json()["connections"]
    return count


async def until_connected(strict: Stack, count: int) -> None:
    """Wait, reading meanwhile, until the gateway has so many connections."""
    await asyncio.to_thread(wait_until, lambda: connection_count(strict) == count, f"{count} connections")


async def until_routed(node: Stack, user_id: str, count: int = 1) -> None:
    """A connection is registered a moment after it is accepted. This wait, unlike a ping, spends nothing of its rate, and
    does not read."""
    await until(lambda: node.redis.hlen(f"{node.prefix}ROUTE:{user_id}") == count, f"{count} routes")


# -- readers


FallAsleep = Callable[..., Awaitable[Sleeper]]


@pytest.fixture
async def fall_asleep(strict: Stack, api: Api) -> AsyncIterator[FallAsleep]:
    """Connects a user who does not read, to the strict gateway or another."""
    sleepers: list[Sleeper] = []

    async def fall_asleep(user_id: str, node: Stack = strict) -> Sleeper:
        sleeper = Sleeper(Client(node.gateway_url, user_id, await api.token(user_id)))
        sleepers.append(sleeper)
        await sleeper.connect()
        await until_routed(node, user_id)
        return sleeper

    yield fall_asleep
    for sleeper in sleepers:
        await sleeper.close()


async def flood(connect: Connect, sender: str, *receivers: str, reader: Client | None = None) -> None:
    """Send long texts in waves that a client which reads can take."""
    client = await connect(sender)
    for sent in range(WAVE, LONG_TEXTS + 1, WAVE):
        answers = [
            await client.submit(ReqIdentifier.SEND_MSG, text_message(sender, receiver, LONG_TEXT).SerializeToString())
            for _ in range(WAVE)
            for receiver in receivers
        ]
        await asyncio.gather(*answers)
        if reader is not None:
            await reader.until(lambda sent=sent: len(reader.chat_with(sender)) >= sent)


async def test_a_reader_that_stops_reading_delays_nobody_and_gets_everything_after_reconnecting(
    api: Api, connect: Connect, join: Join, fall_asleep: FallAsleep, names: Iterator[str]
) -> None:
    alice, bob, carol = next(names), next(names), next(names)
    await api.register(alice, bob, carol)
    sleeper = await fall_asleep(bob)
    reader = await join(carol)
    await reader.until_registered()

    await flood(connect, alice, bob, carol, reader=reader)

    assert [msg.seq for msg in reader.chat_with(alice)] == list(range(1, LONG_TEXTS + 1))
    assert await sleeper.wake() == 4001
    again = await join(bob)
    conversation_id = single_conversation_id(alice, bob)
    assert (await again.max_seqs())[conversation_id] == LONG_TEXTS
    pulled = [
        text_of(msg)
        for begin in range(1, LONG_TEXTS, 20)
        for msg in await again.pull(conversation_id, begin, begin + 19)
    ]
    assert pulled == [LONG_TEXT] * LONG_TEXTS


async def test_a_client_that_never_reads_again_is_gone_after_a_while(
    shared_stack: Stack,
    gateway_server: str,
    api: Api,
    connect: Connect,
    fall_asleep: FallAsleep,
    names: Iterator[str],
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    with shared_stack.with_gateway(
        f"stalling-{gateway_server}",
        GATEWAY_SERVER=gateway_server,
        SEND_QUEUE_BYTES=str(QUEUE_BYTES),
        SEND_STALL_SECONDS=str(STALL_SECONDS),
    ) as node:
        await fall_asleep(bob, node)
        await until_connected(node, 1)

        await flood(connect, alice, bob)

        await until_connected(node, 0)
        assert "slow reader cut off" in node.log(node.gateway_name)


# -- requests


async def test_requests_above_the_rate_are_answered_with_their_code_and_change_nothing(
    api: Api, join: Join, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    client = await join(alice)
    codes: list[int] = []

    # A machine that stands still for seconds gives back what was spent.
    for burst in range(BURSTS):
        numbers = range(burst * RATE * 5, (burst + 1) * RATE * 5)
        frames = [text_message(alice, bob, str(number)).SerializeToString() for number in numbers]
        answers = await asyncio.gather(*[await client.submit(ReqIdentifier.SEND_MSG, frame) for frame in frames])
        codes += [answer.err_code for answer in answers]
        if 90103 in codes:
            break

    assert set(codes) == {0, 90103}
    assert codes[: RATE * 3 // 2] == [0] * (RATE * 3 // 2)
    await client.until(lambda: len(client.chat_with(bob)) >= codes.count(0))
    admitted = [number for number, code in enumerate(codes) if code == 0]
    assert [int(text_of(msg)) for msg in client.chat_with(bob)] == admitted


async def test_connections_of_a_user_share_a_rate(strict: Stack, api: Api, join: Join, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)
    clients = [await join(alice) for _ in range(PER_USER)]
    await until_routed(strict, alice, PER_USER)

    # What cannot be decoded is answered at once: the user's rate must not refill as fast as it is spent. Each connection
    # keeps to its own rate.
    codes: set[int] = set()
    for _ in range(BURSTS):
        answers = await asyncio.gather(
            *[await client.submit(ReqIdentifier.GET_NEWEST_SEQ, b"\xff") for client in clients for _ in range(RATE * 2)]
        )
        codes |= {answer.err_code for answer in answers}
        if 90103 in codes:
            break

    assert codes == {1001, 90103}


async def test_a_flood_that_goes_on_is_closed(api: Api, join: Join, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)
    client = await join(alice)
    request = sdkws_pb2.GetMaxSeqReq(userID=alice).SerializeToString()

    with contextlib.suppress(websockets.ConnectionClosed):
        for _ in range(RATE * 100):
            await client.submit(ReqIdentifier.GET_NEWEST_SEQ, request)

    assert await client.wait_closed() == 4002


async def test_a_frame_larger_than_allowed_is_closed_with_its_code(api: Api, join: Join, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)
    for size in (get_config().max_frame_bytes + 1, get_config().max_frame_bytes * 4):
        client = await join(alice)
        await client.socket.send(b"x" * size)
        assert await client.wait_closed() == 1009


# -- connections


async def test_a_user_has_so_many_connections_on_all_nodes_and_no_more(
    strict: Stack, stack: Stack, api: Api, join: Join, names: Iterator[str]
) -> None:
    alice = next(names)
    await api.register(alice)
    here = [await join(alice) for _ in range(PER_USER - 1)]
    async with Client(stack.gateway_url, alice, await api.token(alice, 5), platform_id=5) as elsewhere:
        await elsewhere.max_seqs()  # requests wait until the connection is in the routing table
        refused = await join(alice, wants_result=True)
        assert refused.handshake["errCode"] == 1601
        assert await refused.wait_closed() == 4105
    await here[0].close()
    await until_connected(strict, PER_USER - 2)

    assert (await join(alice, wants_result=True)).handshake["errCode"] == 0


async def test_of_connections_that_come_at_once_only_so_many_are_let_in(
    strict: Stack, api: Api, join: Join, names: Iterator[str]
) -> None:
    alice = next(names)
    await api.register(alice)
    token = await api.token(alice)
    clients = [Client(strict.gateway_url, alice, token, wants_result=True) for _ in range(PER_USER * 4)]

    await asyncio.gather(*(client.connect() for client in clients))

    codes = [client.handshake["errCode"] for client in clients]
    assert (codes.count(0), codes.count(1601)) == (PER_USER, PER_USER * 3)
    for client in clients:
        await client.close()


async def test_of_users_that_come_at_once_a_node_lets_in_only_so_many(
    shared_stack: Stack, gateway_server: str, api: Api, names: Iterator[str]
) -> None:
    users = [next(names) for _ in range(PER_USER * 4)]
    await api.register(*users)
    tokens = [await api.token(user) for user in users]
    with shared_stack.with_gateway(
        f"small-{gateway_server}", GATEWAY_SERVER=gateway_server, MAX_CONNECTIONS=str(PER_USER)
    ) as node:
        clients = [Client(node.gateway_url, user, token) for user, token in zip(users, tokens, strict=True)]

        outcomes = await asyncio.gather(*(client.connect() for client in clients), return_exceptions=True)

        refused = [outcome for outcome in outcomes if isinstance(outcome, websockets.InvalidStatus)]
        assert outcomes.count(None) == PER_USER
        assert [orjson.loads(item.response.body or b"")["errCode"] for item in refused] == [1601] * PER_USER * 3
        for client, outcome in zip(clients, outcomes, strict=True):
            if outcome is None:
                await client.close()


async def test_where_a_page_comes_from_and_sub_protocols_do_not_matter(
    strict: Stack, api: Api, names: Iterator[str]
) -> None:
    alice = next(names)
    await api.register(alice)
    url = Client(strict.gateway_url, alice, await api.token(alice), wants_result=True).url
    for origin in ("null", "https://chat.example.com", "no address: at all", "file://"):
        async with websockets.connect(
            url, additional_headers={"Origin": origin}, subprotocols=[Subprotocol("a"), Subprotocol("b")]
        ) as connection:
            assert orjson.loads(await connection.recv())["errCode"] == 0
            assert connection.subprotocol is None


async def test_a_request_that_is_no_upgrade_is_told_so(strict: Stack) -> None:
    async with httpx.AsyncClient(base_url=f"http{strict.gateway_url[2:]}", timeout=ANSWER_SECONDS) as http:
        for answer in (await http.get("/"), await http.post("/msg/send_msg", content=b"{}")):
            assert answer.status_code == 426
            assert "WebSocket" in answer.json()["detail"]
        assert (await http.get("/healthz")).json()["status"] == "ok"


# -- the end


async def test_a_node_that_goes_away_answers_first_and_then_tells_everybody_to_come_back(
    strict: Stack, shared_stack: Stack, gateway_server: str, api: Api, names: Iterator[str]
) -> None:
    users = [next(names) for _ in range(10)]
    await api.register(*users)
    with shared_stack.with_gateway(
        f"leaving-{gateway_server}", GATEWAY_SERVER=gateway_server, DRAIN_SECONDS="1"
    ) as node:
        clients = [Client(node.gateway_url, user, await api.token(user)) for user in users]
        for client in clients:
            await client.connect()
        answers = [
            await client.submit(
                ReqIdentifier.SEND_MSG, text_message(client.user_id, users[0], str(number)).SerializeToString()
            )
            for number in range(20)
            for client in clients[1:]
        ]
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)

        node.tell_gateway_to_end()

        closed = await asyncio.gather(*(client.wait_closed() for client in clients))
        assert closed == [1012] * len(clients)
        with pytest.raises((OSError, websockets.InvalidHandshake)):
            await Client(node.gateway_url, users[0], "token").connect()
        # What was read before the end is answered; the rest is not lost silently, its client sees the close.
        assert {answer.result().err_code for answer in answers if answer.exception() is None} == {0}
