"""Message options: an absent key means true."""

from __future__ import annotations

from imserver.constants import ContentType, Option
from imserver.protocol.gen.sdkws_pb2 import MsgData

#: What a typing message is forced to, whatever the client said: seen once, kept nowhere.
TRANSIENT_OPTIONS = (
    Option.HISTORY,
    Option.PERSISTENT,
    Option.SENDER_SYNC,
    Option.CONVERSATION_UPDATE,
    Option.SENDER_CONVERSATION_UPDATE,
    Option.UNREAD_COUNT,
    Option.OFFLINE_PUSH,
)
_FORCED_OFF = {
    ContentType.TYPING: TRANSIENT_OPTIONS,
    ContentType.HAS_READ_RECEIPT: (
        Option.CONVERSATION_UPDATE,
        Option.SENDER_CONVERSATION_UPDATE,
        Option.UNREAD_COUNT,
        Option.OFFLINE_PUSH,
    ),
    ContentType.REVOKE: (Option.UNREAD_COUNT, Option.OFFLINE_PUSH),
}


def is_on(msg: MsgData, option: str) -> bool:
    return msg.options.get(option, True)


def is_notification(msg: MsgData) -> bool:
    return not is_on(msg, Option.IS_NOT_NOTIFICATION)


def is_stored(msg: MsgData) -> bool:
    return is_on(msg, Option.HISTORY)


def force_options(msg: MsgData) -> None:
    """Switch off what a content type never has."""
    for option in _FORCED_OFF.get(msg.contentType, ()):  # type: ignore[call-overload]
        msg.options[option] = False


def split_send_msg(notification: MsgData) -> MsgData | None:
    """A notification that is also to be a chat message: returns the chat copy and switches the original's push off.

    The copy keeps content and client id; of the options only offlinePush and unreadCount are the original's.
    None when the notification does not ask for it (here the option must be there: absent means no copy).
    """
    if not notification.options.get(Option.IS_SEND_MSG, False):
        return None
    copy = MsgData()
    copy.CopyFrom(notification)
    copy.options.clear()
    for option in (Option.OFFLINE_PUSH, Option.UNREAD_COUNT):
        copy.options[option] = is_on(notification, option)
        notification.options[option] = False
    return copy
