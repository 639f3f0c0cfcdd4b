"""One run, as the generator's process is told it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import orjson


class LoadError(Exception):
    """The run cannot go on, so there is no result."""


@dataclass(frozen=True, slots=True)
class UserPlan:
    """``gateway`` is the number of the node that the user connects to."""

    user_id: str
    token: str
    gateway: int = 0


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """Users by their place in the plan's list."""

    sender: int
    receivers: list[int]
    #: Empty: a single chat with the one receiver.
    group_id: str = ""
    #: Messages that the conversation holds already.
    before: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    workload: str
    gateway_urls: list[str]
    codec: str
    users: list[UserPlan]
    #: Who is in none of them is connected and only listens.
    chats: list[ChatPlan]
    seconds: float
    warmup_seconds: float
    window: int
    #: Messages a second in all; 0: as many as go through.
    rate: float
    text_bytes: int

    def to_json(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        fields: dict[str, Any] = orjson.loads(text)
        fields["users"] = [UserPlan(**item) for item in fields["users"]]
        fields["chats"] = [ChatPlan(**item) for item in fields["chats"]]
        return cls(**fields)
