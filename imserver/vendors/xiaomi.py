"""Xiaomi push, message API v3: up to 1000 aliases (user ids) a call, as a form.

https://dev.mi.com/xiaomihyperos/documentation/detail?pId=1559
"""

from __future__ import annotations

from typing import ClassVar
from zlib import crc32

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

#: The vendor's limits, in characters.
MOST_TITLE_CHARS = 49
MOST_DESCRIPTION_CHARS = 127
#: How long Xiaomi keeps a notice for a device that is away.
KEEP_MS = 24 * 3600 * 1000
#: Faults of the vendor's own services.
LATER = frozenset({1, 10001, 10002, 10003, 20607, 26003, 65029})
TOO_OFTEN = 10027
NO_SUCH_DEVICE = 65003
#: "Sending failed" has this reason when no alias of the call is known.
SEND_FAILED = 20301
NO_TARGETS = "no valid targets"


class Xiaomi(Vendor):
    name: ClassVar[str] = "xiaomi"
    batch_size: ClassVar[int] = 1000

    async def send(self, notice: Notice, targets: list[Target]) -> list[Result]:
        response = await self.post(
            f"{self.config.xiaomi_url.rstrip('/')}/v3/message/alias",
            data=self._form_of(notice, targets),
            headers={"Authorization": f"key={self.config.xiaomi_app_secret}"},
        )
        body = body_of(response)
        code = whole_number(body.get("code"))
        if response.is_success and body.get("result") == "ok" and code == 0:
            return [Result(Outcome.OK)] * len(targets)
        reason = f"HTTP {response.status_code} code {code}"
        if code == NO_SUCH_DEVICE or (code == SEND_FAILED and NO_TARGETS in str(body.get("reason", "")).lower()):
            result = Result(Outcome.NO_DEVICE, reason)
        elif code == TOO_OFTEN:
            result = Result(Outcome.RETRY, reason, retry_after_of(response), pause=True)
        elif code in LATER:
            result = Result(Outcome.RETRY, reason, retry_after_of(response))
        else:
            result = failure_of(response, reason)
        return [result] * len(targets)

    def _form_of(self, notice: Notice, targets: list[Target]) -> dict[str, str]:
        form = {
            "alias": ",".join(target.user_id for target in targets),
            "restricted_package_name": self.config.xiaomi_package,
            "pass_through": "0",
            # Without it a notice replaces the one before, whoever that was from.
            "notify_id": str(crc32(notice.conversation_id.encode()) & 0x7FFFFFFF),
            "notify_type": "-1",
            "title": notice.title[:MOST_TITLE_CHARS],
            "description": notice.description[:MOST_DESCRIPTION_CHARS],
            "payload": notice.ex,
            "time_to_live": str(KEEP_MS),
            "extra.notify_effect": "1",
            "extra.notify_foreground": "1",
            "extra.conversationID": notice.conversation_id,
            "extra.clientMsgID": notice.message_id,
        }
        if self.config.xiaomi_channel_id:
            form["extra.channel_id"] = self.config.xiaomi_channel_id
        return form
