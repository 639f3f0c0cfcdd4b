"""Dead letters: entries that were set aside, ``log:dead:{s}``. Listed, put back and dropped by operators; sync."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import redis

from imserver.conf import get_config
from imserver.storage import keys
from imserver.storage.clients import as_text
from imserver.storage.logs import STAGE_LOGS
from imserver.storage.scripts import get_script

_STAGE_OF_LOG = {log: stage for stage, log in STAGE_LOGS.items()}


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a dead letter is. In order of age; written ``<entry id>@<shard>``."""

    milliseconds: int
    number: int
    shard: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        entry_id, _, shard = text.partition("@")
        milliseconds, _, number = entry_id.partition("-")
        place = cls(int(milliseconds), int(number), int(shard))
        if str(place) != text or not 0 <= place.shard < get_config().shards:
            raise ValueError(f"not a place of a dead letter: {text[:64]!r}")
        return place

    @property
    def entry_id(self) -> str:
        return f"{self.milliseconds}-{self.number}"

    def __str__(self) -> str:
        return f"{self.entry_id}@{self.shard:02d}"


@dataclass(frozen=True, slots=True)
class Listed:
    """A dead letter as an operator sees it: everything but its content."""

    place: Place
    reason: str
    origin: str
    conversation: str
    bytes_count: int

    @property
    def can_put_back(self) -> bool:
        return self.origin in _STAGE_OF_LOG


def count(client: redis.Redis) -> int:
    pipe = client.pipeline(transaction=False)
    for shard in range(get_config().shards):
        pipe.xlen(keys.log(keys.DEAD, shard))
    return sum(pipe.execute())


def newest(client: redis.Redis, limit: int, before: Place | None = None) -> list[Listed]:
    """The newest ones of all shards, older than ``before``."""
    found: list[Listed] = []
    for shard in range(get_config().shards):
        until = "+"
        if before is not None:
            until = before.entry_id if shard < before.shard else f"({before.entry_id}"
        for entry_id, *texts, size in get_script("list_dead").run(client, [keys.log(keys.DEAD, shard)], [until, limit]):
            milliseconds, _, number = as_text(entry_id).partition("-")
            reason, origin, conversation = (text.decode(errors="replace") for text in texts)
            place = Place(int(milliseconds), int(number), shard)
            found.append(Listed(place, reason, origin, conversation, size))
    return sorted(found, key=lambda item: item.place, reverse=True)[:limit]


def find(client: redis.Redis, place: Place) -> Listed | None:
    """One of them."""
    entries = get_script("list_dead").run(client, [keys.log(keys.DEAD, place.shard)], [place.entry_id, 1])
    if not entries or as_text(entries[0][0]) != place.entry_id:
        return None
    reason, origin, conversation = (text.decode(errors="replace") for text in entries[0][1:4])
    return Listed(place, reason, origin, conversation, entries[0][4])


@dataclass(frozen=True, slots=True)
class PutBack:
    """Whether it was there, and the stage whose shard is to be woken, if any."""

    done: bool
    stage_to_wake: str = ""


def put_back(client: redis.Redis, letter: Listed) -> PutBack:
    """Move a dead letter to the end of the log it came from, in one step. Of two at once one succeeds."""
    if not letter.can_put_back:
        return PutBack(done=False)
    stage, shard = _STAGE_OF_LOG[letter.origin], letter.place.shard
    script_keys = [
        keys.log(keys.DEAD, shard),
        keys.log(letter.origin, shard),
        keys.lease(stage, shard),
        keys.wake(stage, shard),
    ]
    answer = get_script("put_back").run(client, script_keys, [letter.place.entry_id, letter.origin, keys.WAKE_TTL_MS])
    return PutBack(done=bool(answer), stage_to_wake=stage if answer == 2 else "")


def drop(client: redis.Redis, letter: Listed) -> bool:
    """Remove a dead letter for good; False when it was gone."""
    return bool(client.xdel(keys.log(keys.DEAD, letter.place.shard), letter.place.entry_id))
