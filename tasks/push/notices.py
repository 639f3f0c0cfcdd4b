"""What an offline push says: the sender's own texts, or a default by content type.

Only texts that a person wrote for the other to read are shown, and only of ordinary messages: not of encrypted or private
(burn after reading) ones, never of custom content, and not at all when OFFLINE_PUSH_SHOW_TEXT is off.
"""

from __future__ import annotations

from typing import Any

import orjson

from imserver.constants import ContentType, Option
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.options import is_on
from imserver.vendors.base import Notice

#: OpenIM's labels.
LABELS: dict[int, str] = {
    ContentType.TEXT: "[TEXT]",
    ContentType.PICTURE: "[PICTURE]",
    ContentType.VOICE: "[VOICE]",
    ContentType.VIDEO: "[VIDEO]",
    ContentType.FILE: "[File]",
    ContentType.AT_TEXT: "[@TEXT]",
}
OTHER_LABEL = "[NEWMSG]"

#: Where each content type's JSON holds the text.
_TEXT_FIELDS: dict[int, str] = {
    ContentType.TEXT: "content",
    ContentType.AT_TEXT: "text",
    ContentType.QUOTE: "text",
    ContentType.ADVANCED_TEXT: "text",
    ContentType.MARKDOWN_TEXT: "content",
}

#: Every vendor limits the whole notice to about 4 KB, and a screen shows less.
MOST_TITLE_CHARS = 64
MOST_DESCRIPTION_CHARS = 200


def notice_of(msg: MsgData, conversation_id: str, *, show_text: bool) -> Notice:
    info = msg.offlinePushInfo
    label = LABELS.get(msg.contentType, OTHER_LABEL)
    text = _text_of(msg) if show_text else ""
    return Notice(
        title=_cut(info.title or msg.senderNickname or label, MOST_TITLE_CHARS),
        description=_cut(info.desc or text or label, MOST_DESCRIPTION_CHARS),
        message_id=msg.clientMsgID,
        conversation_id=conversation_id,
        ex=info.ex,
        sound=info.iOSPushSound,
    )


def _text_of(msg: MsgData) -> str:
    """The text of a message, empty when it has none or none that may be shown."""
    name = _TEXT_FIELDS.get(msg.contentType)
    if name is None or not is_on(msg, Option.NOT_PRIVATE) or _is_hidden(msg.attachedInfo):
        return ""
    text = _object(msg.content).get(name)
    return text.strip() if isinstance(text, str) else ""


def _is_hidden(attached_info: str) -> bool:
    """The sender's client says so in ``attachedInfo``. What cannot be read may say so too."""
    if not attached_info:
        return False
    values = _object(attached_info)
    return not values or bool(values.get("isEncryption") or values.get("isPrivateChat"))


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return values if isinstance(values, dict) else {}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
