"""What the presence webhooks are sent. The event is JSON that change_routes.lua wrote."""

from __future__ import annotations

from typing import Any

import orjson

from imserver.constants import PLATFORM_NAME, PresenceCommand
from imserver.storage.webhooks import Hook


def parse(raw: bytes) -> dict[str, Any]:
    """An event as it stands in the log. Raises ValueError."""
    try:
        event = orjson.loads(raw)
        return {
            "command": PresenceCommand(event["command"]),
            "userID": str(event["userID"]),
            "platformID": int(event["platformID"]),
            "connID": str(event["connID"]),
            "isAppBackground": bool(event["isAppBackground"]),
            "seq": int(event["seq"]),
        }
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError("not a presence event") from error


def is_wanted(hook: Hook, event: dict[str, Any]) -> bool:
    """The hook's own filter: users that it only wants."""
    return not hook.attention_ids or event["userID"] in hook.attention_ids


def body_of(event: dict[str, Any], operation_id: str) -> bytes:
    """The JSON of a call."""
    command = event["command"]
    body: dict[str, Any] = {
        "callbackCommand": command,
        "operationID": operation_id,
        "platformID": event["platformID"],
        "platform": PLATFORM_NAME.get(event["platformID"], ""),
        "userID": event["userID"],
        "seq": event["seq"],
    }
    if command is not PresenceCommand.KICK_OFF:
        body["connID"] = event["connID"]
    if command is PresenceCommand.ONLINE:
        body["isAppBackground"] = event["isAppBackground"]
    return orjson.dumps(body)
