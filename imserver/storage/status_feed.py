"""News of users' online status: one Redis channel a user, so that only processes that follow a user hear of it.

Delivery promise: at most once, in order; after a break ``on_gap`` is called, and whoever follows reads anew.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.client import PubSub

from imserver.storage import keys
from imserver.storage.clients import get_async_redis

logger = logging.getLogger(__name__)

#: A subscription that is silent for this long is asked for a sign of life.
PING_SECONDS = 5
RETRY_SECONDS = 0.5
#: Following is one round trip; what takes longer is an outage.
CONFIRM_SECONDS = 5


class StatusFeed:
    """Follows users on the running event loop.

    Args:
        on_change: user id, platforms on which it is online now.
        on_gap: news may have been missed.
    """

    def __init__(self, on_change: Callable[[str, list[int]], None], on_gap: Callable[[], None]) -> None:
        self._on_change = on_change
        self._on_gap = on_gap
        self._followed: set[str] = set()
        self._prefix = len(keys.status_channel("").encode())
        self._subscription: PubSub | None = None
        self._is_ready = asyncio.Event()
        self._lock = asyncio.Lock()
        self._confirmations: dict[bytes, asyncio.Future[None]] = {}
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def follow(self, user_ids: Iterable[str]) -> None:
        """From the return on no change of these users' status is missed without ``on_gap``. May run twice.

        Raises redis.ConnectionError.
        """
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await self._is_ready.wait()
                async with self._lock:
                    new = [user_id for user_id in user_ids if user_id not in self._followed]
                    if not new:
                        return
                    confirmation = await self._subscribe(new)
                await confirmation
        except TimeoutError as error:
            raise redis.ConnectionError("the status of users cannot be followed") from error

    async def _subscribe(self, user_ids: list[str]) -> asyncio.Future[None]:
        subscription = self._subscription
        if subscription is None:
            raise redis.ConnectionError("the status of users cannot be followed now")
        await subscription.subscribe(*map(keys.status_channel, user_ids))
        self._followed.update(user_ids)
        # Answers come in order: when this one is here, the server has done what was asked before.
        token = secrets.token_hex(8).encode()
        confirmation = self._confirmations[token] = asyncio.get_running_loop().create_future()
        confirmation.add_done_callback(lambda _: self._confirmations.pop(token, None))
        await subscription.ping(token)
        return confirmation

    async def unfollow(self, user_ids: Iterable[str]) -> None:
        """Raises redis.RedisError; they are unfollowed nevertheless as soon as the connection is made anew."""
        async with self._lock:
            gone = [user_id for user_id in user_ids if user_id in self._followed]
            self._followed.difference_update(gone)
            if gone and self._subscription is not None:
                await self._subscription.unsubscribe(*map(keys.status_channel, gone))

    async def close(self) -> None:
        self._listener.cancel()
        await asyncio.wait([self._listener])

    async def _listen(self) -> None:
        while True:
            try:
                async with get_async_redis().pubsub() as subscription:
                    await self._read(subscription)
            except (redis.RedisError, OSError) as error:
                logger.warning("status of users not followed", extra={"action": "status", "error": repr(error)[:300]})
            finally:
                self._subscription = None
                self._is_ready.clear()
                self._fail_confirmations()
            await asyncio.sleep(RETRY_SECONDS)

    async def _read(self, subscription: PubSub) -> None:
        """Handle what is published, until the connection breaks."""
        async with self._lock:
            # In one command: who is subscribed to the feed's own channel is to all.
            await subscription.subscribe(
                keys.status_feed_channel(), *(keys.status_channel(user_id) for user_id in self._followed)
            )
            self._subscription = subscription
        own, is_silent = keys.status_feed_channel().encode(), False
        while True:
            message: dict[str, Any] | None = await subscription.get_message(timeout=PING_SECONDS)
            if message is None:
                if is_silent:
                    raise redis.ConnectionError("the subscription gives no sign of life")
                is_silent = True
                await subscription.ping()
                continue
            is_silent = False
            if message["type"] == "message":
                user_id = message["channel"][self._prefix :].decode()
                self._on_change(user_id, [int(platform) for platform in message["data"].split(b",") if platform])
            elif message["type"] == "pong":
                confirmation = self._confirmations.get(message["data"])
                if confirmation is not None and not confirmation.done():
                    confirmation.set_result(None)
            elif message["type"] == "subscribe" and message["channel"] == own:
                # Also after the driver connected again by itself: what was published meanwhile is lost.
                if self._is_ready.is_set():
                    self._fail_confirmations()
                self._is_ready.set()
                self._on_gap()

    def _fail_confirmations(self) -> None:
        for confirmation in list(self._confirmations.values()):
            if not confirmation.done():
                confirmation.set_exception(redis.ConnectionError("the connection broke"))
                confirmation.exception()  # who waits is told anyway
