"""Ten thousand messages at once: to one group, and spread over two thousand conversations.

Prints figures of the run (``pytest -s``): entries a batch, time of the scripts inside Redis, total time.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.codecs.base import Request
from imserver.constants import ReqIdentifier, SessionType
from imserver.protocol.conversations import group_conversation_id, single_conversation_id
from tests.acceptance.group_api import GroupApi
from tests.client import ANSWER_SECONDS, Api, Client, Connect, Sleeper, text_message
from tests.stack import Stack, wait_until

pytestmark = pytest.mark.acceptance

MSGS = 10_000
SENDERS = 20
RECEIVERS_EACH = 100
MSGS_EACH = MSGS // (SENDERS * RECEIVERS_EACH)
REGISTER_AT_ONCE = 1000


class Figures:
    """What the stages and Redis count, from the start of the measured part."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._before = self._batches()
        stack.redis.config_resetstat()
        self._started = time.perf_counter()

    def _batches(self) -> dict[tuple[str, str], float]:
        text = httpx.get(f"{self._stack.web_url}/metrics", timeout=ANSWER_SECONDS).text
        return {
            (sample.name, sample.labels["stage"]): sample.value
            for family in text_string_to_metric_families(text)
            if family.name == "im_stage_batch_entries"
            for sample in family.samples
            if sample.name.endswith(("_sum", "_count"))
        }

    def show(self, what: str) -> None:
        seconds = time.perf_counter() - self._started
        after = self._batches()
        scripts = self._stack.redis.info("latencystats")["latency_percentiles_usec_evalsha"]
        print(f"\n{what}: {MSGS / seconds:,.0f} msg/s, {seconds:.1f} s in all; scripts p50/p99/p99.9 µs: {scripts}")  # noqa: T201
        for stage in ("transfer", "persist", "push"):
            entries, batches = (
                after.get((f"im_stage_batch_entries_{kind}", stage), 0)
                - self._before.get((f"im_stage_batch_entries_{kind}", stage), 0)
                for kind in ("sum", "count")
            )
            print(f"  {stage}: {batches:.0f} batches, {entries / max(batches, 1):.1f} entries each")  # noqa: T201


def stored_texts(stack: Stack, conversation_ids: list[str]) -> dict[str, list[tuple[int, str]]]:
    """(seq, client id) of each conversation in MongoDB, by block and slot."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    cursor = stack.database["msg"].find({"conversation_id": {"$in": conversation_ids}})
    for document in cursor.sort([("conversation_id", 1), ("block", 1)]):
        for slot in document["msgs"]:
            if slot["msg"] is not None:
                found[document["conversation_id"]].append((slot["msg"]["seq"], slot["msg"]["client_msg_id"]))
    return found


def stored_count(stack: Stack, conversation_ids: list[str]) -> int:
    return sum(len(msgs) for msgs in stored_texts(stack, conversation_ids).values())


async def send_all(client: Client, frames: list[bytes]) -> None:
    answers = [await client.submit(ReqIdentifier.SEND_MSG, frame) for frame in frames]
    for response in await asyncio.gather(*answers):
        assert response.err_code == 0


async def test_ten_thousand_messages_to_one_group_are_stored_contiguous_and_in_order(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    owner, member = next(names), next(names)
    await api.register(owner, member)
    client = await connect(owner)
    receiver = await connect(member)
    group_id = await GroupApi(api, names).create(owner, member)
    conversation_id = group_conversation_id(group_id)
    await client.until(lambda: client.msgs[conversation_id])
    first = client.msgs[conversation_id][-1].seq + 1
    frames = []
    for number in range(MSGS):
        msg = text_message(owner, "", str(number), client_msg_id=f"m{number}")
        msg.sessionType, msg.groupID = SessionType.GROUP, group_id
        frames.append(msg.SerializeToString())

    figures = Figures(stack)
    await send_all(client, frames)
    wait_until(lambda: stored_count(stack, [conversation_id]) >= first - 1 + MSGS, "all to be stored")
    figures.show("one group")

    stored = [item for item in stored_texts(stack, [conversation_id])[conversation_id] if item[0] >= first]
    assert stored == [(first + number, f"m{number}") for number in range(MSGS)]
    pushed = [msg.clientMsgID for msg in receiver.msgs[conversation_id] if msg.seq >= first]
    assert pushed == [f"m{number}" for number in range(len(pushed))]


async def test_ten_thousand_messages_over_two_thousand_conversations_are_stored_contiguous_and_in_order(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    users = [next(names) for _ in range(SENDERS * (1 + RECEIVERS_EACH))]
    for at in range(0, len(users), REGISTER_AT_ONCE):
        await api.register(*users[at : at + REGISTER_AT_ONCE])
    senders, receivers = users[:SENDERS], users[SENDERS:]
    clients = [await connect(sender) for sender in senders]
    peers = {sender: receivers[at::SENDERS] for at, sender in enumerate(senders)}
    wanted: dict[str, list[tuple[int, str]]] = {}
    frames: dict[str, list[bytes]] = {sender: [] for sender in senders}
    for sender in senders:
        for number in range(1, MSGS_EACH + 1):
            for peer in peers[sender]:
                client_id = f"{peer} {number}"
                frames[sender].append(text_message(sender, peer, "hello", client_msg_id=client_id).SerializeToString())
                wanted.setdefault(single_conversation_id(sender, peer), []).append((number, client_id))

    figures = Figures(stack)
    await asyncio.gather(*(send_all(client, frames[client.user_id]) for client in clients))
    wait_until(lambda: stored_count(stack, list(wanted)) >= MSGS, "all to be stored")
    figures.show("2,000 conversations")

    assert stored_texts(stack, list(wanted)) == wanted
    # The records are written after the messages.
    records = {"conversation_id": {"$in": list(wanted)}}
    wait_until(
        lambda: stack.database["conversation"].count_documents(records) == 2 * len(wanted),
        "a record for each of the two",
    )


async def test_who_sends_without_reading_is_held_up_and_not_cut_off(
    stack: Stack, api: Api, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    sleeper = Sleeper(Client(stack.gateway_url, alice, await api.token(alice)))
    await sleeper.connect()
    codec = sleeper.client.codec

    async def say(number: int) -> None:
        data = text_message(alice, bob, "x" * 1000, client_msg_id=f"{alice} {number}").SerializeToString()
        operation_id = f"{alice} {number}"
        request = Request(
            ReqIdentifier.SEND_MSG, send_id=alice, operation_id=operation_id, msg_incr=operation_id, data=data
        )
        await sleeper.socket.send(codec.encode_request(request))

    async def talk() -> None:
        for number in range(MSGS):
            await say(number)

    talking = asyncio.create_task(talk())
    await asyncio.wait([talking], timeout=2)
    sleeper.socket.transport.resume_reading()
    answered: set[str] = set()
    pushed: set[str] = set()
    async with asyncio.timeout(60):
        while len(answered) < MSGS or len(pushed) < MSGS:
            response = codec.decode_response(await sleeper.socket.recv())
            assert response.err_code == 0
            (pushed if response.req_identifier == ReqIdentifier.PUSH_MSG else answered).add(response.operation_id)
    await talking

    assert answered == pushed == {f"{alice} {number}" for number in range(MSGS)}
    await sleeper.close()
