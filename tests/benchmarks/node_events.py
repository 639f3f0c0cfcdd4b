"""Do pushes go to the nodes of their receivers, and to no other? Seen from outside, on the nodes' own mailboxes.

Listening makes Valkey deliver everything twice, so it ends before anything is measured. Which user is on which node is
known from the connections that the benchmark opened, not from the product's routing table.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import redis
from channels_redis.serializers import registry

from imserver.protocol.push_event import PUSH_EVENT, unpack
from imserver.storage.clients import as_text
from tests.benchmarks.plan import LoadError, UserPlan
from tests.benchmarks.processes import Product

#: What a name of a node consists of behind the prefix: gateway, host, process id, random.
PID_PART = -2
POLL_SECONDS = 0.1


@dataclass(slots=True)
class Seen:
    """``astray``: events that no user on their node was meant to get, or that name a user of another node."""

    events: int = 0
    astray: int = 0

    def note(self, event: dict[str, Any], users: set[str]) -> None:
        if event.get("type") != PUSH_EVENT:
            return
        named = {user for _operation, _payload, receivers in unpack(event) for user in receivers}
        self.events += 1
        self.astray += not named or not named <= users


class NodeListener:
    """Between entering and leaving, every event to every node is looked at."""

    def __init__(self, product: Product, users: list[UserPlan]) -> None:
        self.seen = Seen()
        self.users = users_by_node(product, users)
        self._client = redis.Redis.from_url(product.servers.redis_url, protocol=2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="node listener", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> Seen:
        """Ends the listening; what was seen."""
        self._stop.set()
        self._thread.join()
        self._client.close()
        return self.seen

    def _listen(self) -> None:
        decode = registry.get_serializer("msgpack").deserialize
        with self._client.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
            pubsub.subscribe(*self.users)
            while not self._stop.is_set():
                message = pubsub.get_message(timeout=POLL_SECONDS)
                if message is not None:
                    self.seen.note(decode(message["data"]), self.users[as_text(message["channel"])])


def users_by_node(product: Product, users: list[UserPlan]) -> dict[str, set[str]]:
    """Raises LoadError when a gateway has not made itself known."""
    names = {as_text(name) for name in product.redis.smembers(f"{product.prefix}NODES")}
    by_pid = {int(name.split(".")[PID_PART]): name for name in names}
    found: dict[str, set[str]] = {}
    for number in range(product.gateways):
        name = by_pid.get(product.pids[f"gateway{number}"])
        if name is None:
            raise LoadError(f"gateway {number} is not among the nodes {', '.join(sorted(names))}")
        found[name] = {user.user_id for user in users if user.gateway == number}
    return found
