"""The channel layer: ``channels_redis``'s publish/subscribe, which waits for messages instead of looking ten times a second."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

from channels_redis.pubsub import RedisPubSubChannelLayer, RedisSingleShardConnection

logger = logging.getLogger(__name__)

#: Before the first subscription there is no connection to wait on.
UNSUBSCRIBED_SECONDS = 0.1
#: After a failure, as when Redis is away.
RETRY_SECONDS = 1.0


class _WaitingConnection(RedisSingleShardConnection):  # type: ignore[misc]  # channels_redis has no types
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.subscribed: Counter[str] = Counter()

    async def _do_receiving(self) -> None:
        while True:
            try:
                if self._pubsub and self._pubsub.subscribed:
                    # Without a time-out: nothing is set up and taken down for each message, and an idle process sleeps.
                    message = await self._pubsub.get_message(timeout=None)
                    if message is not None and message["type"] == "message":
                        self._receive_message(message)
                    elif message is not None and message["type"] == "subscribe":
                        # Also after the driver connected again by itself.
                        self.subscribed[message["channel"].decode()] += 1
                else:
                    await asyncio.sleep(UNSUBSCRIBED_SECONDS)
            except Exception as error:
                logger.error("channel layer does not receive", extra={"action": "receive"}, exc_info=error)
                await asyncio.sleep(RETRY_SECONDS)


class WaitingPubSubChannelLayer(RedisPubSubChannelLayer):  # type: ignore[misc]
    """At most once, as its base: who is not subscribed when a message is sent, misses it."""

    def _get_layer(self) -> Any:
        is_new = asyncio.get_running_loop() not in self._layers
        layer = super()._get_layer()
        if is_new:
            layer._shards = [_WaitingConnection(shard.host, layer) for shard in layer._shards]
        return layer

    def times_subscribed(self, channel: str) -> int:
        """How often a subscription to the channel began. Each time but the first, something may have been missed before."""
        count: int = self._get_layer()._get_shard(channel).subscribed[channel]
        return count
