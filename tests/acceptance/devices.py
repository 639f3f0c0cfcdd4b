"""Devices of a test that come and go, and what they hear of each other's online status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import orjson

from imserver.constants import ReqIdentifier
from imserver.protocol.gen import sdkws_pb2
from tests.client import Api, Client
from tests.stack import Stack

IOS, ANDROID, WINDOWS, OSX, WEB, IPAD = 1, 2, 3, 4, 5, 9
SECONDS = 20


async def until(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
    """Wait for something that no frame tells. The condition may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(0.05)


class Devices:
    """Clients of a test, closed at its end."""

    def __init__(self, stack: Stack, api: Api) -> None:
        self.stack = stack
        self.api = api
        self.open: list[Client] = []

    async def connect(
        self, user_id: str, platform_id: int = IOS, node: int = 0, token: str = "", **options: Any
    ) -> Client:
        token = token or await self.api.token(user_id, platform_id)
        client = Client(self.stack.gateway_urls[node], user_id, token, platform_id=platform_id, **options)
        self.open.append(client)
        await client.connect()
        # Accepted comes first, registered second; the answer to a request third.
        await client.max_seqs()
        return client

    def states(self, user_id: str, platform_id: int) -> dict[str, int]:
        found: Any = self.stack.redis.hgetall(f"{self.stack.prefix}TOKENS:{user_id}:{platform_id}")
        return {token.decode(): int(state) for token, state in found.items()}

    def routes(self, user_id: str) -> list[dict[str, Any]]:
        found: Any = self.stack.redis.hvals(f"{self.stack.prefix}ROUTE:{user_id}")
        return [orjson.loads(record) for record in found]


async def subscribe(client: Client, *user_ids: str, unsubscribe: tuple[str, ...] = ()) -> dict[str, list[int]]:
    request = sdkws_pb2.SubUserOnlineStatus(subscribeUserID=user_ids, unsubscribeUserID=unsubscribe)
    data = await client.request(ReqIdentifier.SUB_USER_ONLINE_STATUS, request)
    return tips_of(data)


def tips_of(data: bytes) -> dict[str, list[int]]:
    tips = sdkws_pb2.SubUserOnlineStatusTips.FromString(data)
    return {item.userID: list(item.onlinePlatformIDs) for item in tips.subscribers}


def heard(client: Client, user_id: str) -> list[list[int]]:
    """What was pushed of a user's status, in order."""
    pushed = [
        tips_of(frame.data)
        for frame in client.frames
        if frame.req_identifier == ReqIdentifier.SUB_USER_ONLINE_STATUS and not frame.msg_incr
    ]
    return [tips[user_id] for tips in pushed if user_id in tips]
