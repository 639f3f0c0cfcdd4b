"""No vendor: says in the log that it would have pushed. For trying the way there."""

from __future__ import annotations

import logging
from typing import ClassVar

from imserver.vendors.base import Notice, Outcome, Result, Target, Vendor

logger = logging.getLogger(__name__)


class Dummy(Vendor):
    name: ClassVar[str] = "dummy"
    batch_size: ClassVar[int] = 1000

    async def send(self, notice: Notice, targets: list[Target]) -> list[Result]:
        logger.info(
            "offline push",
            extra={
                "action": "offline_push",
                "conversation_id": notice.conversation_id,
                "client_msg_id": notice.message_id,
                "users": len(targets),
            },
        )
        return [Result(Outcome.OK)] * len(targets)
