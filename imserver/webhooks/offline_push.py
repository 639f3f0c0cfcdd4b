"""The before-offline-push hook: the app server may forbid a push, choose other receivers, or give other texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from imserver import metrics
from imserver.constants import PLATFORM_NAME, ContentType, WebhookCommand
from imserver.errors import WebhookAnswerInvalid
from imserver.protocol.gen.sdkws_pb2 import MsgData, OfflinePushInfo
from imserver.protocol.json_mapping import JsonMismatch, from_json
from imserver.storage.webhooks import Hooks
from imserver.webhooks.policy import ask_hook

COMMAND = WebhookCommand.BEFORE_OFFLINE_PUSH


@dataclass(frozen=True, slots=True)
class Decision:
    """Who gets the push, and other texts if the hook gave some."""

    user_ids: list[str]
    info: OfflinePushInfo | None = None


async def before_offline_push(hooks: Hooks, msg: MsgData, user_ids: list[str], operation_id: str) -> Decision:
    """Ask the hook, when there is one.

    Raises:
        WebhookRefused: nobody gets a push.
        WebhookUnreachable, WebhookAnswerInvalid: the hook failed and is not set to fail open.
    """
    hook = hooks.by_command.get(COMMAND)
    unchanged = Decision(user_ids)
    if hook is None or msg.contentType == ContentType.TYPING or msg.contentType in hook.denied_types:
        return unchanged
    answer = await ask_hook(hook, body_of(msg, user_ids, operation_id), operation_id)
    if answer is None:
        return unchanged
    try:
        decision = _decide(user_ids, answer)
    except JsonMismatch as error:
        if not hook.fail_open:
            raise WebhookAnswerInvalid(f"the webhook's answer: {error}") from error
        metrics.WEBHOOK_DECISIONS.labels(COMMAND, "failed open").inc()
        return unchanged
    metrics.WEBHOOK_DECISIONS.labels(COMMAND, "passed" if decision == unchanged else "modified").inc()
    return decision


def body_of(msg: MsgData, user_ids: list[str], operation_id: str) -> bytes:
    """The JSON of a call."""
    info = msg.offlinePushInfo
    body: dict[str, Any] = {
        "callbackCommand": COMMAND,
        "operationID": operation_id,
        "platformID": msg.senderPlatformID,
        "platform": PLATFORM_NAME.get(msg.senderPlatformID, ""),
        "userIDList": user_ids,
        "title": info.title,
        "desc": info.desc,
        "ex": info.ex,
        "iOSPushSound": info.iOSPushSound,
        "iOSBadgeCount": info.iOSBadgeCount,
        "signalInfo": info.signalInfo,
        "clientMsgID": msg.clientMsgID,
        "sendID": msg.sendID,
        "groupID": msg.groupID,
        "contentType": msg.contentType,
        "sessionType": msg.sessionType,
        # Go's JSON of an empty list that was never filled.
        "atUserIDList": list(msg.atUserIDList) or None,
        "content": msg.content.decode(errors="replace"),
    }
    return orjson.dumps(body)


def _decide(user_ids: list[str], answer: dict[str, Any]) -> Decision:
    """Raises JsonMismatch. Absent, null and an empty list leave the receivers as they are."""
    chosen = answer.get("useridlist") or user_ids
    if not isinstance(chosen, list) or not all(isinstance(user_id, str) for user_id in chosen):
        raise JsonMismatch("userIDList: expected a list of texts")
    info = None
    values = answer.get("offlinepushinfo")
    if values is not None:
        info = OfflinePushInfo()
        from_json(info, values)
    return Decision(list(dict.fromkeys(chosen)), info)
