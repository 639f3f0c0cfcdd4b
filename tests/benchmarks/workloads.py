"""What is measured: one function a workload, called in the generator's process with everybody connected.

A function starts its traffic, calls ``load.measure()``, which returns when the measured time is over, and sends nothing
after that. Before ``load.measure()`` has warmed up nothing counts.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from imserver.constants import MSGS_PER_BLOCK, ReqIdentifier
from imserver.protocol.gen.sdkws_pb2 import PullMessageBySeqsReq, PullMessageBySeqsResp, SeqRange
from tests.benchmarks import wire
from tests.benchmarks.chats import Chat
from tests.benchmarks.exact_timer import ExactTimer
from tests.benchmarks.load import Load

Drive = Callable[[Load], Awaitable[None]]

#: What a client asks for when a conversation is opened.
PULLED_MSGS = 20
#: Rounds end when the shortest history has no block left that nobody has pulled from.
SENDS_PER_ROUND = 3


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    title: str
    drive: Drive
    #: At a given rate.
    is_open_loop: bool = False
    #: Who writes to whom: a function of ``people.py``.
    cast: str = "pairs"
    #: Whose processes run: the product's, or those of a baseline.
    stack: str = "product"
    #: Whether CPU by message says anything: not where most of the work is not messages.
    is_per_msg: bool = True
    #: With processes that nobody used before: their memory is measured, and what was freed is not given back.
    is_fresh: bool = False


WORKLOADS: dict[str, Workload] = {}


def _workload(
    title: str,
    *,
    is_open_loop: bool = False,
    cast: str = "pairs",
    stack: str = "product",
    is_per_msg: bool = True,
    is_fresh: bool = False,
) -> Callable[[Drive], Drive]:
    def register(drive: Drive) -> Drive:
        name = drive.__name__
        WORKLOADS[name] = Workload(name, title, drive, is_open_loop, cast, stack, is_per_msg, is_fresh)
        return drive

    return register


# -- the two ways of sending


async def keep_windows(load: Load) -> None:
    """Closed loop. A message counts against its chat's window from its sending until its last receiver has it."""

    def send_next(chat: Chat) -> None:
        if load.is_sending:
            chat.send(time.monotonic())

    for chat in load.chats:
        chat.on_delivered = send_next
    for _ in range(load.plan.window):
        for chat in load.chats:
            chat.send(time.monotonic())
    await load.measure()


async def keep_rate(load: Load) -> None:
    """Open loop: random (Poisson) moments, the same in every run. Time counts from the moment, not from the sending: a
    server or a generator that is late cannot hide it."""
    chance = random.Random(20)
    moment = time.monotonic() + chance.expovariate(load.plan.rate)

    def send() -> None:
        nonlocal moment
        if load.is_sending:
            chance.choice(load.chats).send(moment)
            moment += chance.expovariate(load.plan.rate)
            timer.set(moment)

    with ExactTimer(send) as timer:
        timer.set(moment)
        await load.measure()


# -- the workloads


@_workload("one-to-one at saturation: every pair keeps a window of messages on their way")
async def w1a(load: Load) -> None:
    await keep_windows(load)


@_workload("one-to-one at a fixed rate: messages start when their moment has come", is_open_loop=True)
async def w1b(load: Load) -> None:
    await keep_rate(load)


@_workload("the pairs of w1b among thousands of idle connections", is_open_loop=True, cast="crowd", is_fresh=True)
async def w1c(load: Load) -> None:
    await keep_rate(load)


@_workload("one large group at saturation: one member writes, all others receive", cast="group")
async def w2a(load: Load) -> None:
    await keep_windows(load)


@_workload("the group of w2a at a fixed rate", is_open_loop=True, cast="group")
async def w2b(load: Load) -> None:
    await keep_rate(load)


@_workload("one hot chat: a single sender, as fast as a wide window allows", cast="one_pair")
async def w3(load: Load) -> None:
    await keep_windows(load)


@_workload("random new chats: each message is the first of its conversation", cast="strangers")
async def w4(load: Load) -> None:
    """A window of messages on their way; each that arrives is followed by one between two who never wrote before."""
    chance = random.Random(20)
    ways = list(itertools.combinations(range(len(load.users)), 2))
    chance.shuffle(ways)
    templates: dict[int, wire.SendTemplate] = {}

    def send_next(_chat: Chat | None = None) -> None:
        if not load.is_sending or not ways:
            return
        sender, receiver = ways.pop()
        to = load.users[receiver]
        template = templates.get(sender)
        if template is None:
            template = templates[sender] = wire.SendTemplate.build(
                load.plan.codec, load.users[sender].user_id, to.user_id, load.plan.text_bytes
            )
        chat = load.open_chat(load.users[sender], [to], template=template.to(to.user_id))
        chat.on_delivered = send_next
        chat.send(time.monotonic())

    for _ in range(load.plan.window):
        send_next()
    await load.measure()
    # Without it the figure would be of a load that had run dry.
    load.faults["ran out of new pairs"] += not ways


@_workload(
    "long histories: sending and pulling one after the other, sizes by turns", cast="histories", is_per_msg=False
)
async def w5(load: Load) -> None:
    """Every size has its turn in every round, so that drift hits all alike. Old messages are pulled from a block that
    nobody pulled from before: they come from MongoDB and not from the cache."""
    rounds = min(chat.before for chat in load.chats) // MSGS_PER_BLOCK - 1
    chance = random.Random(20)
    fresh = {
        chat.conversation_id: chance.sample(range(chat.before // MSGS_PER_BLOCK - 1), rounds) for chat in load.chats
    }
    arrived = asyncio.Event()

    async def send(chat: Chat) -> None:
        arrived.clear()
        chat.on_delivered = lambda _chat: arrived.set()
        chat.send(time.monotonic())
        await arrived.wait()
        load.series[f"send {chat.before:,}"].append(chat.delivered_at[-1] - chat.started_at[-1])

    async def pull(number: int, what: str, last_seq: int) -> None:
        chat, user = load.chats[number], load.users[load.plan.chats[number].receivers[0]]
        asked = SeqRange(
            conversationID=chat.conversation_id, begin=last_seq - PULLED_MSGS + 1, end=last_seq, num=PULLED_MSGS
        )
        data = PullMessageBySeqsReq(userID=user.user_id, seqRanges=[asked]).SerializeToString()
        began = time.monotonic()
        response = await user.request(ReqIdentifier.PULL_MSG_BY_RANGE, data)
        load.series[f"pull {what} {chat.before:,}"].append(time.monotonic() - began)
        msgs = PullMessageBySeqsResp.FromString(response.data).msgs[chat.conversation_id].Msgs
        is_whole = [msg.seq for msg in msgs] == list(range(asked.begin, asked.end + 1)) and all(
            msg.clientMsgID for msg in msgs
        )
        load.faults["pulls with wrong messages"] += not is_whole

    async def work() -> None:
        for turn in range(rounds):
            for number, chat in enumerate(load.chats):
                for _ in range(SENDS_PER_ROUND):
                    await send(chat)
                newest = chat.before + len(chat.started_at)
                await pull(number, "newest", newest)
                await pull(number, "old", (fresh[chat.conversation_id][turn] + 1) * MSGS_PER_BLOCK)
            # A round that was begun is finished: every chat has been asked as often as the others.
            if not load.is_measuring:
                return

    await load.measure(work())


@_workload(
    "one-to-one at a fixed rate, users spread over several gateway nodes", is_open_loop=True, cast="spread_pairs"
)
async def w6(load: Load) -> None:
    await keep_rate(load)


# -- baselines


@_workload("w1a with a chain of four Celery tasks a message in place of the pipeline", stack="chain")
async def chain(load: Load) -> None:
    await keep_windows(load)


@_workload("w1b with batches that gather for 100 ms before they are handled", is_open_loop=True, stack="batching")
async def batching(load: Load) -> None:
    await keep_rate(load)
