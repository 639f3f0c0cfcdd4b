"""Before hooks: the app server may refuse or change a message before it is in a log.

Somebody waits for the answer, so a hook that does not give any is soon asked by one call at a time; for all others it
has failed at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from weakref import WeakKeyDictionary

import orjson

from imserver import metrics
from imserver.conf import get_config
from imserver.constants import WebhookCommand
from imserver.errors import WebhookAnswerInvalid, WebhookRefused, WebhookUnreachable
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.json_mapping import JsonMismatch, from_json
from imserver.storage import webhooks
from imserver.storage.clients import get_mongo
from imserver.storage.webhooks import Hook, Hooks
from imserver.webhooks import events
from imserver.webhooks.breaker import Breaker, HookDown
from imserver.webhooks.client import HookError

logger = logging.getLogger(__name__)

#: Calls in a row without an answer until a hook is taken for down. Not one: a message that the app server cannot digest
#: must not speak for all others.
PATIENCE_CALLS = 3
#: The longest pause until one call asks again: what comes meanwhile is refused, or passes unseen.
LONGEST_PAUSE_SECONDS = 5.0

#: Of the answer: the action is refused when actionCode is 0 and nextCode is this.
_STOP = 1
_INT32 = range(-(1 << 31), 1 << 31)

#: By event loop, then by command and address: another address is another app server.
_breakers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], Breaker]] = WeakKeyDictionary()

#: What the answer of before-modify may replace, by the answer's name in lower case (Go reads names so).
_MODIFIABLE = {
    name.lower(): name
    for name in (
        "recvID",
        "groupID",
        "clientMsgID",
        "serverMsgID",
        "senderPlatformID",
        "senderNickname",
        "senderFaceURL",
        "sessionType",
        "msgFrom",
        "contentType",
        "status",
        "options",
        "offlinePushInfo",
        "atUserIDList",
        "attachedInfo",
        "ex",
    )
}


async def before_send(msg: MsgData, operation_id: str) -> bool:
    """Ask the before hooks about a checked, complete message; True when before-modify changed it (in place).

    A changed message must be checked again. Without a before hook this is a look into a dict.

    Raises:
        WebhookRefused: a hook said no.
        WebhookUnreachable, WebhookAnswerInvalid: a hook failed that is not set to fail open.
        DatabaseUnavailable: the settings were never read.
    """
    cache = webhooks.find_cache(get_config().mongo_database)
    hooks = cache.recent() if cache is not None else None
    if hooks is None:
        hooks = await webhooks.get_cache(get_mongo()).get_soon()
    if not hooks.has_before or events.is_exempt(msg):
        return False
    command = events.before_send_command(msg)
    if command is not None:
        answer = await _ask(hooks, command, msg, operation_id)
        if answer is not None:
            metrics.WEBHOOK_DECISIONS.labels(command, "passed").inc()
    return await _modify(hooks, msg, operation_id)


async def _modify(hooks: Hooks, msg: MsgData, operation_id: str) -> bool:
    command = WebhookCommand.BEFORE_MODIFY
    answer = await _ask(hooks, command, msg, operation_id)
    if answer is None:
        return False
    try:
        changed = modified(msg, answer)
    except JsonMismatch as error:
        _fail(hooks.by_command[command], WebhookAnswerInvalid(f"the webhook's answer: {error}"), operation_id)
        return False
    is_changed = changed != msg
    metrics.WEBHOOK_DECISIONS.labels(command, "modified" if is_changed else "passed").inc()
    if is_changed:
        msg.CopyFrom(changed)
    return is_changed


async def _ask(hooks: Hooks, command: WebhookCommand, msg: MsgData, operation_id: str) -> dict[str, Any] | None:
    hook = hooks.by_command.get(command)
    if hook is None or msg.contentType in hook.denied_types:
        return None
    return await ask_hook(hook, events.body_of(command, msg, operation_id), operation_id)


async def ask_hook(hook: Hook, body: bytes, operation_id: str) -> dict[str, Any] | None:
    """The answer (names in lower case) of a hook that said yes; None when it failed and is to fail open.

    Raises:
        WebhookRefused: it said no.
        WebhookUnreachable, WebhookAnswerInvalid: it failed and is not set to fail open.
    """
    try:
        answer = _parse(await _post(hook, body, operation_id))
    except HookError as error:
        _fail(hook, WebhookUnreachable(f"the webhook {error}"), operation_id, cause=error)
        return None
    except ValueError as error:
        _fail(hook, WebhookAnswerInvalid(f"the webhook's answer {error}"), operation_id, cause=error)
        return None
    if answer["actioncode"] == 0 and answer["nextcode"] == _STOP:
        metrics.WEBHOOK_DECISIONS.labels(hook.command, "refused").inc()
        raise WebhookRefused(answer["errcode"], answer["errmsg"], answer["errdlt"])
    return answer


async def _post(hook: Hook, body: bytes, operation_id: str) -> bytes:
    """``client.post``; fails at once while it is not known whether a hook that did not answer is back. Raises HookError."""
    breakers = _breakers.setdefault(asyncio.get_running_loop(), {})
    breaker = breakers.setdefault((hook.command, hook.url), Breaker(PATIENCE_CALLS, LONGEST_PAUSE_SECONDS))
    if breaker.is_busy:
        raise HookDown
    return await breaker.post(hook, body, operation_id)


def _fail(
    hook: Hook,
    error: WebhookUnreachable | WebhookAnswerInvalid,
    operation_id: str,
    cause: Exception | None = None,
) -> None:
    """A hook could not be asked: go on or raise, as it is set."""
    metrics.WEBHOOK_DECISIONS.labels(hook.command, "failed open" if hook.fail_open else "failed closed").inc()
    logger.warning(
        "before webhook failed",
        extra={
            "action": "webhook",
            "operation_id": operation_id,
            "command": hook.command,
            "fail_open": hook.fail_open,
            "detail": error.detail,
        },
    )
    if not hook.fail_open:
        raise error from cause


def _parse(body: bytes) -> dict[str, Any]:
    """An answer with names in lower case and its common part checked. Raises ValueError."""
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError("is not JSON") from error
    if not isinstance(values, dict):
        raise ValueError("is not a JSON object")
    answer = {name.lower(): value for name, value in values.items()}
    for name in ("actioncode", "errcode", "nextcode"):
        number = answer.get(name)
        if number is None:
            answer[name] = 0
        elif not isinstance(number, int) or isinstance(number, bool) or number not in _INT32:
            raise ValueError(f"has no number in {name}")
    for name in ("errmsg", "errdlt"):
        text = answer.get(name)
        if text is None:
            answer[name] = ""
        elif not isinstance(text, str):
            raise ValueError(f"has no text in {name}")
    return answer


def modified(msg: MsgData, answer: dict[str, Any]) -> MsgData:
    """A copy of a message with what an answer (names in lower case) replaces. Raises JsonMismatch."""
    changed = MsgData()
    changed.CopyFrom(msg)
    content = answer.get("content")
    if content is not None:
        changed.content = _content(content)
    for key, name in _MODIFIABLE.items():
        value = answer.get(key)
        if value is not None:
            changed.ClearField(name)
            from_json(changed, {name: value})
    return changed


def _content(content: object) -> bytes:
    """Clients read every content as JSON, so nothing else may become one."""
    try:
        if isinstance(content, str) and isinstance(orjson.loads(content), dict):
            return content.encode()
    except orjson.JSONDecodeError:
        pass
    raise JsonMismatch("content: expected the text of a JSON object")
