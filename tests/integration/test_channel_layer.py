"""The channel layer that the processes speak through: it waits, and comes back by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import redis
from channels.layers import get_channel_layer

from imserver.conf import Config

SECONDS = 10


async def receive(channel: str, kind: str) -> dict[str, Any]:
    """The next event of a kind. Repeats of an earlier one may still be on their way."""
    while True:
        event: dict[str, Any] = await get_channel_layer().receive(channel)
        if event["type"] == kind:
            return event


async def until_heard(channel: str, kind: str) -> None:
    """At most once: what is sent before the receiver has subscribed is lost, so it is sent again."""
    receiving = asyncio.ensure_future(receive(channel, kind))
    async with asyncio.timeout(SECONDS):
        while not receiving.done():
            await get_channel_layer().send(channel, {"type": kind})
            await asyncio.wait([receiving], timeout=0.05)


async def test_messages_arrive_in_order_also_after_a_silence(config: Config) -> None:
    channel, layer = f"{config.key_prefix}order", get_channel_layer()
    await until_heard(channel, "first")
    async with asyncio.timeout(SECONDS):
        waiting = asyncio.ensure_future(receive(channel, "number"))
        assert not (await asyncio.wait([waiting], timeout=0.3))[0]

        for number in range(20):
            await layer.send(channel, {"type": "number", "number": number})

        events = [await waiting, *[await receive(channel, "number") for _ in range(19)]]
    assert [event["number"] for event in events] == list(range(20))
    await layer.flush()


async def test_a_connection_that_is_cut_is_made_anew(config: Config, redis_client: redis.Redis) -> None:
    channel, layer = f"{config.key_prefix}cut", get_channel_layer()
    await until_heard(channel, "before")

    redis_client.client_kill_filter(_type="pubsub")

    await until_heard(channel, "after")
    await layer.flush()
