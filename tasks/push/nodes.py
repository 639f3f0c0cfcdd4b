"""Messages to gateway nodes: the channel layer's, published from a thread.

The layer itself lives on an event loop; a hop there and back for each batch costs more than the publish. What is
published here is what the layer's own ``send`` would publish, on the same server.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import redis
from channels.layers import get_channel_layer
from channels_redis.utils import _consistent_hash

from imserver.conf import get_config
from imserver.storage.clients import new_redis
from imserver.storage.lean_redis import Command, LeanRedis, error_in
from imserver.storage.logs import ScriptCall
from imserver.storage.scripts import get_script

logger = logging.getLogger(__name__)

Event = dict[str, Any]
#: By node, in order.
Events = dict[str, list[Event]]

#: A channel-layer server that did not answer is left alone for so long.
AWAY_SECONDS = 2.0


class NodeSender:
    def __init__(self, client: redis.Redis) -> None:
        config = get_config()
        self._data = client
        # Twice pushed is once pushed, and so is trimmed.
        self._lean = LeanRedis(repeats=True)
        self._serialize = get_channel_layer().serialize
        self._away_until: dict[redis.Redis, float] = {}
        #: By the layer's own order of its servers.
        self._servers = [
            client if url == config.redis_url else new_redis(url=url) for url in config.channel_layer_hosts
        ]

    def send(self, events: Events, trims: list[ScriptCall]) -> tuple[set[str], list[Any]]:
        """Send each node its events, then trim what was handled; one round trip when the servers are the same.

        Returns the nodes that were there to take theirs, and the answers of the trims. Raises redis.RedisError.
        """
        elsewhere = self._publish_elsewhere(events)
        here = [node for node in events if node not in elsewhere for _event in events[node]]
        trim = get_script("trim")
        answers = self._lean.round_trip([*self._commands(events, elsewhere), *(trim.command(*call) for call in trims)])
        counts, trimmed = answers[: len(here)], answers[len(here) :]
        error = error_in(counts)
        if error is not None:
            raise error
        if trim.is_missing(trimmed):
            trim.load(self._data)
            trimmed = trim.run_many(self._data, trims)
        missed = {node for node, count in zip(here, counts, strict=True) if not count}
        missed |= {node for node, was_heard in elsewhere.items() if not was_heard}
        return events.keys() - missed, trimmed

    def send_deferred(self, events: Events) -> list[Command]:
        """The same for who needs no answers: the commands that do it, to be sent soon and in this order.

        What goes to other servers than that of the data is sent at once.
        """
        return self._commands(events, self._publish_elsewhere(events))

    def _commands(self, events: Events, elsewhere: dict[str, bool]) -> list[Command]:
        return [
            ("PUBLISH", node, self._serialize(event))
            for node, of_node in events.items()
            if node not in elsewhere
            for event in of_node
        ]

    def _publish_elsewhere(self, events: Events) -> dict[str, bool]:
        """Whether it was heard, for each node whose mailbox is on another server than the data.

        A server that is away costs its own nodes their push, and nobody else anything.
        """
        heard: dict[str, bool] = {}
        for node, of_node in events.items():
            server = self._server_of(node)
            if server is self._data:
                continue
            heard[node] = False
            if self._away_until.get(server, 0.0) > time.monotonic():
                continue
            try:
                heard[node] = all(server.publish(node, self._serialize(event)) for event in of_node)
            except redis.RedisError as error:
                self._away_until[server] = time.monotonic() + AWAY_SECONDS
                logger.warning("channel-layer server is away", extra={"action": "push", "error": repr(error)[:300]})
        return heard

    def _server_of(self, node: str) -> redis.Redis:
        number: int = _consistent_hash(node, len(self._servers))
        return self._servers[number]
