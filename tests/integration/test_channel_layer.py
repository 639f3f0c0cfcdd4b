"""The channel layer that the processes speak through: it waits, and comes back by itself."""

from __future__ import annotations

import asyncio

import redis
from channels.layers import get_channel_layer

from imserver.conf import Config

SECONDS = 10


async def until_heard(channel: str, event: dict[str, str]) -> None:
    """At most once: what is sent before the receiver has subscribed is lost, so it is sent again."""
    layer = get_channel_layer()
    receiving = asyncio.ensure_future(layer.receive(channel))
    async with asyncio.timeout(SECONDS):
        while not receiving.done():
            await layer.send(channel, event)
            await asyncio.wait([receiving], timeout=0.05)
    assert receiving.result() == event


async def test_messages_arrive_in_order_also_after_a_silence(config: Config) -> None:
    channel, layer = f"{config.key_prefix}order", get_channel_layer()
    await until_heard(channel, {"type": "first"})
    while layer.channels[channel].qsize():
        await layer.receive(channel)
    async with asyncio.timeout(SECONDS):
        waiting = asyncio.ensure_future(layer.receive(channel))
        assert not (await asyncio.wait([waiting], timeout=0.3))[0]

        for number in range(20):
            await layer.send(channel, {"type": "number", "number": number})

        events = [await waiting, *[await layer.receive(channel) for _ in range(19)]]
    assert [event["number"] for event in events] == list(range(20))
    await layer.flush()


async def test_a_connection_that_is_cut_is_made_anew(config: Config, redis_client: redis.Redis) -> None:
    channel, layer = f"{config.key_prefix}cut", get_channel_layer()
    await until_heard(channel, {"type": "before"})

    redis_client.client_kill_filter(_type="pubsub")

    await until_heard(channel, {"type": "after"})
    await layer.flush()
