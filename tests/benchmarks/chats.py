"""Users and their chats in the generator, and whether each message arrived: once, in order, numbered without a gap."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.codecs.base import Request, Response
from imserver.constants import ReqIdentifier
from tests.benchmarks import wire
from tests.benchmarks.connection import Connection, Pushed
from tests.benchmarks.plan import LoadError

REQUEST_SECONDS = 30.0
SEND_MSG = int(ReqIdentifier.SEND_MSG)


@dataclass(slots=True)
class Tally:
    """What arrived of a sequence 0, 1, 2 …; ``seq`` is the number that the server gave, from 1."""

    doubled: int = 0
    #: Arrived after a later one, or with a seq that does not belong to it.
    disordered: int = 0
    _next: int = 0
    _early: set[int] = field(default_factory=set)

    def note(self, number: int, seq: int) -> bool:
        """Whether this is the first time that ``number`` arrives."""
        expected = self._next
        if number == expected and not self._early:
            self._next = number + 1
            if seq != number + 1:
                self.disordered += 1
            return True
        if number < expected or number in self._early:
            self.doubled += 1
            return False
        # A gap is open: it is the gap's messages that come too late, so they are counted when they come.
        if number == expected or seq != number + 1:
            self.disordered += 1
        self._early.add(number)
        while self._next in self._early:
            self._early.remove(self._next)
            self._next += 1
        return True

    @property
    def distinct(self) -> int:
        return self._next + len(self._early)


class User:
    """A connected user. A message or an answer goes to the chat that it is of."""

    def __init__(self, user_id: str, connection: Connection) -> None:
        self.user_id = user_id
        self.connection = connection
        #: By conversation: who to tell of what is pushed.
        self.chats: dict[str, tuple[Chat, Tally]] = {}
        #: By the template's unique part: who to tell of the answers.
        self.sends: dict[str, Chat] = {}
        self._waiting: dict[str, asyncio.Future[Response]] = {}
        self._numbers = itertools.count()
        connection.on_push = self._on_push
        connection.on_answer = self._on_answer
        connection.on_response = self._on_response

    def _on_push(self, pushed: Pushed) -> None:
        for conversation_id, msgs in pushed.items():
            entry = self.chats.get(conversation_id)
            if entry is None:
                raise wire.WireError("a push of another conversation")
            chat, tally = entry
            for number, seq in msgs:
                if number >= 0:
                    chat.on_push(tally, number, seq)

    def _on_answer(self, msg_incr: str) -> None:
        self.sends[msg_incr[: -wire.NUMBER_DIGITS]].on_answer(msg_incr)

    def _on_response(self, response: Response) -> None:
        if response.req_identifier == SEND_MSG:
            chat = self.sends[response.msg_incr[: -wire.NUMBER_DIGITS]]
            if response.err_code:
                chat.on_refusal(f"{response.err_code} {response.err_msg}")
            else:
                chat.on_answer(response.msg_incr)
            return
        future = self._waiting.pop(response.msg_incr, None)
        if future is None:
            raise wire.WireError(f"unexpected response {response.req_identifier}")
        if not future.done():
            future.set_result(response)

    async def request(self, identifier: int, data: bytes) -> Response:
        """Raises LoadError, TimeoutError."""
        incr = f"request-{next(self._numbers)}"
        future = self._waiting[incr] = asyncio.get_running_loop().create_future()
        self.connection.submit(
            Request(identifier, send_id=self.user_id, operation_id=f"bench-{incr}", msg_incr=incr, data=data)
        )
        response: Response = await asyncio.wait_for(future, REQUEST_SECONDS)
        if response.err_code:
            raise LoadError(f"request {identifier} was answered with {response.err_code} {response.err_msg}")
        return response


class Chat:
    """One user writes to others. Message ``n`` is the n-th sent here, counted from 0."""

    def __init__(
        self,
        template: wire.SendTemplate,
        conversation_id: str,
        sender: User,
        receivers: list[User],
        before: int,
        on_arrival: Callable[[], None],
    ) -> None:
        self.conversation_id = conversation_id
        #: Messages that the conversation held before.
        self.before = before
        self.on_delivered: Callable[[Chat], None] = lambda _chat: None
        #: By number: when its time counts from, and when it reached the last receiver (0.0: it did not).
        self.started_at: list[float] = []
        self.delivered_at: list[float] = []
        self.late_seconds: list[float] = []
        self.answered = Tally()
        #: The sender's own connection gets each message too.
        self.echoed = Tally()
        self.tallies = [Tally() for _ in receivers]
        self.refused: dict[str, int] = {}
        self._missing: list[int] = []
        self._template = template
        self._sender = sender
        self._on_arrival = on_arrival
        sender.sends[template.unique] = self
        for user, tally in ((sender, self.echoed), *zip(receivers, self.tallies, strict=True)):
            user.chats[conversation_id] = (self, tally)

    def send(self, started_at: float) -> None:
        number = len(self.started_at)
        self.started_at.append(started_at)
        self.delivered_at.append(0.0)
        self._missing.append(len(self.tallies))
        self._sender.connection.write(self._template.frame(number))
        self.late_seconds.append(time.monotonic() - started_at)

    def on_push(self, tally: Tally, number: int, seq: int) -> None:
        if not tally.note(number, seq - self.before) or tally is self.echoed:
            return
        self._on_arrival()
        self._missing[number] -= 1
        if not self._missing[number]:
            self.delivered_at[number] = time.monotonic()
            self.on_delivered(self)

    def on_answer(self, msg_incr: str) -> None:
        number = wire.number_of_answer(msg_incr)
        # Answers carry no seq, and their order is free.
        self.answered.note(number, number + 1)

    def on_refusal(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    @property
    def is_settled(self) -> bool:
        sent = len(self.started_at)
        return sent == self.echoed.distinct == self.answered.distinct and all(
            sent == tally.distinct for tally in self.tallies
        )

    def add_faults(self, faults: dict[str, int]) -> None:
        sent = len(self.started_at)
        faults["unanswered"] += sent - self.answered.distinct
        faults["answered twice"] += self.answered.doubled
        for tally, whose in (*((tally, "") for tally in self.tallies), (self.echoed, " to the sender")):
            faults[f"lost{whose}"] += sent - tally.distinct
            faults[f"doubled{whose}"] += tally.doubled
            faults[f"disordered{whose}"] += tally.disordered


def no_faults() -> dict[str, int]:
    return {
        "unanswered": 0,
        "answered twice": 0,
        "lost": 0,
        "doubled": 0,
        "disordered": 0,
        "lost to the sender": 0,
        "doubled to the sender": 0,
        "disordered to the sender": 0,
    }
