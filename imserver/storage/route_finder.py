"""For pushing: which living node holds which of a batch's users."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass

import orjson
import redis

from imserver.constants import Platform
from imserver.storage import keys
from imserver.storage.lean_redis import Command

#: A node that had a heartbeat is not asked for again so soon.
TAKEN_FOR_LIVING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where the users of a batch have connections that an online push is written to, on living nodes."""

    #: Node -> its users.
    users_by_node: dict[str, set[str]]
    #: User -> node and platform of each connection.
    terminals: dict[str, set[tuple[str, int]]]


class RouteFinder:
    """For the push stage: who is connected where. Its owner may ask the questions together with its own."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        #: Node -> until when it is taken for living. A node that stopped is also told by its publish reaching nobody.
        self._alive_until: dict[str, float] = {}

    def find(self, user_ids: list[str]) -> Whereabouts:
        """One round trip, whatever the number of users; a second one at most once a second."""
        if not user_ids:
            return Whereabouts({}, {})
        pipe = self._client.pipeline(transaction=False)
        for question in self.questions(user_ids):
            pipe.execute_command(*question)  # type: ignore[no-untyped-call]
        return self.read(user_ids, pipe.execute())

    @staticmethod
    def questions(user_ids: list[str]) -> list[Command]:
        return [("HVALS", keys.route(user_id)) for user_id in user_ids]

    def read(self, user_ids: list[str], answers: list[list[bytes]]) -> Whereabouts:
        """What the answers to ``questions`` say."""
        found = [
            (user_id, orjson.loads(record))
            for user_id, records in zip(user_ids, answers, strict=True)
            for record in records
        ]
        alive = self._living({record["node"] for _, record in found})
        users_by_node: dict[str, set[str]] = defaultdict(set)
        terminals: dict[str, set[tuple[str, int]]] = defaultdict(set)
        for user_id, record in found:
            node = record["node"]
            if node in alive and is_written_to(record["platform_id"], is_background=record["is_background"]):
                users_by_node[node].add(user_id)
                terminals[user_id].add((node, record["platform_id"]))
        return Whereabouts(users_by_node, terminals)

    def _living(self, nodes: set[str]) -> set[str]:
        now = time.monotonic()
        unsure = [node for node in nodes if self._alive_until.get(node, 0.0) <= now]
        if unsure:
            beats = self._client.mget([keys.node(node) for node in unsure])
            # Names of nodes that went away are forgotten with the rest.
            self._alive_until = {node: until for node, until in self._alive_until.items() if until > now}
            self._alive_until |= {
                node: now + TAKEN_FOR_LIVING_SECONDS
                for node, beat in zip(unsure, beats, strict=True)
                if beat is not None
            }
        return {node for node in nodes if node in self._alive_until}


def is_written_to(platform_id: int, *, is_background: bool) -> bool:
    """An iOS app in the background takes no frames: it is reached by the vendor's push (pipeline.md section 7.4)."""
    return not (is_background and platform_id == Platform.IOS)
