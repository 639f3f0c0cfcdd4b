"""Before-online-push hooks: the app server may refuse an online push, or name other receivers."""

from __future__ import annotations

import logging
from typing import Any

import orjson

from imserver import metrics
from imserver.constants import PLATFORM_NAME, ContentType, SessionType, WebhookCommand
from imserver.errors import IMError, WebhookAnswerInvalid
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage.webhooks import Hook, Hooks
from imserver.webhooks.policy import ask_hook

logger = logging.getLogger(__name__)

COMMANDS = frozenset({WebhookCommand.BEFORE_ONLINE_PUSH, WebhookCommand.BEFORE_GROUP_ONLINE_PUSH})


def hook_for(hooks: Hooks, msg: MsgData) -> Hook | None:
    """The hook that is asked before this message is pushed, if there is one. Typing is never asked about."""
    is_group = msg.sessionType == SessionType.GROUP
    command = WebhookCommand.BEFORE_GROUP_ONLINE_PUSH if is_group else WebhookCommand.BEFORE_ONLINE_PUSH
    hook = hooks.by_command.get(command)
    if hook is None or msg.contentType in hook.denied_types or msg.contentType == ContentType.TYPING:
        return None
    return hook


async def receivers_after(hook: Hook, msg: MsgData, seq: int, operation_id: str, receivers: list[str]) -> list[str]:
    """Whom to push to, as the hook has it; nobody when it refuses, or fails and is not set to fail open.

    A list in the answer replaces the receivers; an empty one, or none, leaves them as they are.
    """
    try:
        answer = await ask_hook(hook, _body(hook, msg, seq, operation_id, receivers), operation_id)
        named = _users(answer) if answer is not None else []
    except IMError as error:
        logger.info(
            "not pushed online",
            extra={
                "action": "push",
                "operation_id": operation_id,
                "command": hook.command,
                "code": error.code,
                "detail": error.detail,
            },
        )
        return []
    metrics.WEBHOOK_DECISIONS.labels(hook.command, "modified" if named else "passed").inc()
    return named or receivers


def _users(answer: dict[str, Any]) -> list[str]:
    named = answer.get("useridlist") or []
    if not isinstance(named, list) or not all(isinstance(item, str) for item in named):
        raise WebhookAnswerInvalid("the webhook's answer has no list of texts in userIDList")
    return list(dict.fromkeys(named))


def _body(hook: Hook, msg: MsgData, seq: int, operation_id: str, receivers: list[str]) -> bytes:
    body: dict[str, Any] = {
        "callbackCommand": hook.command,
        "operationID": operation_id,
        "platformID": msg.senderPlatformID,
        "platform": PLATFORM_NAME.get(msg.senderPlatformID, ""),
        "clientMsgID": msg.clientMsgID,
        "sendID": msg.sendID,
        "groupID": msg.groupID,
        "contentType": msg.contentType,
        "sessionType": msg.sessionType,
        "atUserIDList": list(msg.atUserIDList) or None,
        "content": msg.content.decode(errors="replace"),
    }
    if hook.command == WebhookCommand.BEFORE_GROUP_ONLINE_PUSH:
        body["seq"] = seq
    else:
        body["userIDList"] = receivers
    return orjson.dumps(body)
