"""JPush, push API v3: up to 1000 aliases (user ids) a call.

https://docs.jiguang.cn/jpush/server/push/rest_api_v3_push
"""

from __future__ import annotations

from typing import Any, ClassVar

import orjson

from imserver.vendors.base import (
    Notice,
    Outcome,
    Result,
    Target,
    Vendor,
    body_of,
    failure_of,
    retry_after_of,
    whole_number,
)

#: JPush keeps a notice for a device that is away this long.
KEEP_SECONDS = 86_400
NO_SUCH_AUDIENCE = 1011
TOO_OFTEN = 2002


class JPush(Vendor):
    name: ClassVar[str] = "jpush"
    batch_size: ClassVar[int] = 1000

    async def send(self, notice: Notice, targets: list[Target]) -> list[Result]:
        response = await self.post(
            f"{self.config.jpush_url.rstrip('/')}/v3/push",
            content=orjson.dumps(self._payload_of(notice, targets)),
            headers={"Content-Type": "application/json"},
            auth=(self.config.jpush_app_key, self.config.jpush_master_secret),
        )
        if response.is_success:
            return [Result(Outcome.OK)] * len(targets)
        error = body_of(response).get("error")
        code = whole_number(error.get("code")) if isinstance(error, dict) else None
        reason = f"HTTP {response.status_code} code {code}"
        if code == NO_SUCH_AUDIENCE:
            result = Result(Outcome.NO_DEVICE, reason)
        elif code == TOO_OFTEN or response.status_code == 429:
            wait = retry_after_of(response, otherwise=retry_after_of(response, "X-Rate-Limit-Reset"))
            result = Result(Outcome.RETRY, reason, wait, pause=True)
        else:
            result = failure_of(response, reason)
        return [result] * len(targets)

    def _payload_of(self, notice: Notice, targets: list[Target]) -> dict[str, Any]:
        android: dict[str, Any] = {"alert": notice.description, "title": notice.title, "extras": notice.data}
        if self.config.jpush_intent:
            android["intent"] = {"url": self.config.jpush_intent}
        # Several users share a call, so the badge is counted by the vendor.
        ios = {
            "alert": {"title": notice.title, "body": notice.description},
            "sound": notice.sound or "default",
            "badge": "+1",
            "mutable-content": True,
            "extras": notice.data,
        }
        return {
            "platform": "all",
            "audience": {"alias": [target.user_id for target in targets]},
            "notification": {"alert": notice.description, "android": android, "ios": ios},
            "options": {"time_to_live": KEEP_SECONDS, "apns_production": self.config.jpush_apns_production},
        }
