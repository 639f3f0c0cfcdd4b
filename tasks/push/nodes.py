"""Messages to gateway nodes: the channel layer's, published from a thread.

The layer itself lives on an event loop; a hop there and back for each batch costs more than the publish. What is
published here is what the layer's own ``send`` would publish, on the same server.
"""

from __future__ import annotations

from typing import Any

import redis
from channels.layers import get_channel_layer
from channels_redis.utils import _consistent_hash

from imserver.conf import get_config
from imserver.storage.clients import new_redis
from imserver.storage.lean_redis import LeanRedis, error_in
from imserver.storage.logs import ScriptCall
from imserver.storage.scripts import get_script

Event = dict[str, Any]


class NodeSender:
    def __init__(self, client: redis.Redis) -> None:
        config = get_config()
        self._data = client
        # Twice pushed is once pushed, and so is trimmed.
        self._lean = LeanRedis(repeats=True)
        self._serialize = get_channel_layer().serialize
        #: By the layer's own order of its servers.
        self._servers = [
            client if url == config.redis_url else new_redis(url=url) for url in config.channel_layer_hosts
        ]

    def send(self, events: dict[str, Event], trims: list[ScriptCall]) -> tuple[set[str], list[Any]]:
        """Send each node its event, then trim what was handled; one round trip when the servers are the same.

        Returns the nodes that were there to take it, and the answers of the trims. Raises redis.RedisError.
        """
        elsewhere = {node: self._server_of(node) for node in events if self._server_of(node) is not self._data}
        takers = {node for node, server in elsewhere.items() if server.publish(node, self._serialize(events[node]))}
        here = [node for node in events if node not in elsewhere]
        trim = get_script("trim")
        answers = self._lean.round_trip(
            [
                *(("PUBLISH", node, self._serialize(events[node])) for node in here),
                *(trim.command(*call) for call in trims),
            ]
        )
        counts, trimmed = answers[: len(here)], answers[len(here) :]
        error = error_in(counts)
        if error is not None:
            raise error
        takers |= {node for node, count in zip(here, counts, strict=True) if count}
        if trim.is_missing(trimmed):
            trim.load(self._data)
            trimmed = trim.run_many(self._data, trims)
        return takers, trimmed

    def _server_of(self, node: str) -> redis.Redis:
        number: int = _consistent_hash(node, len(self._servers))
        return self._servers[number]
