"""Getui, REST v2: one alias (user id) a call, or a task for up to 999; an auth token that lasts a day.

https://docs.getui.com/getui/server/rest_v2/push/
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from typing import Any, ClassVar

import httpx
import orjson

from imserver.conf import Config
from imserver.vendors.base import (
    Notice,
    Outcome,
    Result,
    Target,
    TryLater,
    Vendor,
    body_of,
    failure_of,
    retry_after_of,
    whole_number,
)

TOKEN_EXPIRED = 10001
#: 10003: asked for too many auth tokens a minute; 10005: too many calls a minute.
TOO_OFTEN = frozenset({10003, 10005})
#: The vendor counts by the minute.
TOO_OFTEN_SECONDS = 60.0
STARTING = 2
NO_SUCH_TARGET = "target user is invalid"
SPARE_SECONDS = 300
#: How long Getui keeps a notice for a device that is away.
KEEP_MS = 24 * 3600 * 1000


class Getui(Vendor):
    name: ClassVar[str] = "getui"
    batch_size: ClassVar[int] = 999

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._base = f"{config.getui_url.rstrip('/')}/{config.getui_app_id}"
        self._token = ""
        self._expires_at = 0.0
        self._refreshing = asyncio.Lock()

    async def send(self, notice: Notice, targets: list[Target]) -> list[Result]:
        aliases = [target.user_id for target in targets]
        if len(aliases) == 1:
            # 10 to 32 characters; the vendor drops a request whose id it has seen.
            body = {"request_id": secrets.token_hex(16), "audience": {"alias": aliases}, **self._task_of(notice)}
            result = await self._call("/push/single/alias", body)
        else:
            # Making the task pushes nothing.
            task = await self._request("/push/list/message", self._task_of(notice), can_repeat=True)
            result, data = _result_of(task)
            if result.outcome is not Outcome.OK:
                return [result] * len(targets)
            body = {"audience": {"alias": aliases}, "taskid": data.get("taskid"), "is_async": True}
            result = await self._call("/push/list/alias", body)
        return [result] * len(targets)

    async def _call(self, path: str, body: dict[str, Any]) -> Result:
        return _result_of(await self._request(path, body))[0]

    async def _request(self, path: str, body: dict[str, Any], *, can_repeat: bool = False) -> httpx.Response:
        """A call with a token; a token that the vendor no longer takes is replaced once. It pushed nothing then."""
        for is_last in (False, True):
            token = await self._get_token()
            response = await self.post(
                self._base + path,
                can_repeat=can_repeat,
                content=orjson.dumps(body),
                headers={"Content-Type": "application/json;charset=utf-8", "token": token},
            )
            if whole_number(body_of(response).get("code")) != TOKEN_EXPIRED or is_last:
                break
            if token == self._token:
                self._token = ""
        return response

    async def _get_token(self) -> str:
        """Raises TryLater."""
        async with self._refreshing:
            if not self._token or time.time() >= self._expires_at:
                await self._refresh()
            return self._token

    async def _refresh(self) -> None:
        config, stamp = self.config, str(time.time_ns() // 1_000_000)
        sign = hashlib.sha256(f"{config.getui_app_key}{stamp}{config.getui_master_secret}".encode()).hexdigest()
        response = await self.post(
            f"{self._base}/auth",
            can_repeat=True,
            content=orjson.dumps({"sign": sign, "timestamp": stamp, "appkey": config.getui_app_key}),
            headers={"Content-Type": "application/json;charset=utf-8"},
        )
        result, data = _result_of(response)
        token, expires_ms = data.get("token"), whole_number(data.get("expire_time"))
        if result.outcome is not Outcome.OK or not isinstance(token, str) or not token or expires_ms is None:
            raise TryLater(f"no auth token: {result.reason}", result.retry_after, pause=True)
        self._token, self._expires_at = token, expires_ms / 1000 - SPARE_SECONDS

    def _task_of(self, notice: Notice) -> dict[str, Any]:
        click = {"click_type": "payload", "payload": notice.ex} if notice.ex else {"click_type": "startapp"}
        shown = {"title": notice.title, "body": notice.description, **click}
        channel = {"channel_id": self.config.getui_channel_id, "channel_name": self.config.getui_channel_name}
        android = {**shown, **{name: value for name, value in channel.items() if value}, "badge_add_num": "1"}
        ios = {
            "type": "notify",
            "auto_badge": "+1",
            "payload": orjson.dumps(notice.data).decode(),
            "aps": {
                "alert": {"title": notice.title, "body": notice.description},
                "sound": notice.sound or "default",
                "content-available": 0,
                "mutable-content": 1,
            },
        }
        return {
            "settings": {"ttl": KEEP_MS},
            "push_message": {"notification": android},
            "push_channel": {"ios": ios, "android": {"ups": {"notification": shown}}},
        }


def _result_of(response: httpx.Response) -> tuple[Result, dict[str, Any]]:
    body = body_of(response)
    code, data = whole_number(body.get("code")), body.get("data")
    if response.is_success and code == 0:
        return Result(Outcome.OK), data if isinstance(data, dict) else {}
    reason = f"HTTP {response.status_code} code {code}"
    if code in TOO_OFTEN:
        result = Result(Outcome.RETRY, reason, retry_after_of(response, otherwise=TOO_OFTEN_SECONDS), pause=True)
    elif code in (TOKEN_EXPIRED, STARTING):
        result = Result(Outcome.RETRY, reason, pause=True)
    elif str(body.get("msg", "")).strip() == NO_SUCH_TARGET:
        result = Result(Outcome.NO_DEVICE, reason)
    else:
        result = failure_of(response, reason)
    return result, {}
