"""Message options: schema.md section 3.5, pipeline.md section 3."""

from __future__ import annotations

import pytest
from hypothesis import given

from imserver.constants import ContentType, Option
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.options import force_options, is_notification, is_on, is_stored, split_send_msg
from tests.factories import any_msgs, make_msg, make_notification
from tests.factories import options as any_options

ONLINE_ONLY = {
    *("history", "persistent", "senderSync", "conversationUpdate"),
    *("senderConversationUpdate", "unreadCount", "offlinePush"),
}
FORCED_OFF = {
    ContentType.TYPING: ONLINE_ONLY,
    ContentType.HAS_READ_RECEIPT: {"conversationUpdate", "senderConversationUpdate", "unreadCount", "offlinePush"},
    ContentType.REVOKE: {"unreadCount", "offlinePush"},
}


@given(any_options)
def test_an_absent_option_is_on(options: dict[str, bool]) -> None:
    msg = make_msg("a", "b", options=options)

    for name in (*options, "history", "never heard of"):
        assert is_on(msg, name) == options.get(name, True)
    assert is_stored(msg) == (options.get("history") is not False)
    assert is_notification(msg) == (options.get("isNotNotification") is False)


@pytest.mark.parametrize("content_type", FORCED_OFF)
@given(options=any_options)
def test_some_content_types_never_have_some_options(content_type: int, options: dict[str, bool]) -> None:
    msg = make_msg("a", "b", contentType=content_type, options=options)

    force_options(msg)

    off = dict.fromkeys(FORCED_OFF[ContentType(content_type)], False)
    assert dict(msg.options) == {**options, **off}


@given(any_msgs())
def test_forced_options_touch_nothing_else(msg: MsgData) -> None:
    before = MsgData()
    before.CopyFrom(msg)

    force_options(msg)
    force_options(msg)

    if msg.contentType not in FORCED_OFF:
        assert msg == before
    msg.options.clear()
    before.options.clear()
    assert msg == before


@pytest.mark.parametrize("offline_push", [True, False])
@pytest.mark.parametrize("unread_count", [True, False])
def test_a_notification_that_is_sent_as_a_message_passes_its_push_on_to_the_copy(
    offline_push: bool, unread_count: bool
) -> None:
    given_options = {Option.IS_SEND_MSG: True, Option.OFFLINE_PUSH: offline_push, Option.UNREAD_COUNT: unread_count}
    notification = make_notification("a", "b", stored=False, options=given_options)
    content, client_msg_id = notification.content, notification.clientMsgID

    copy = split_send_msg(notification)

    assert copy is not None
    assert dict(copy.options) == {"offlinePush": offline_push, "unreadCount": unread_count}
    assert (copy.content, copy.clientMsgID) == (content, client_msg_id)
    assert not is_notification(copy)
    assert is_stored(copy)
    assert is_notification(notification)
    assert not is_on(notification, "offlinePush")
    assert not is_on(notification, "unreadCount")


def test_a_notification_that_is_not_sent_as_a_message_has_no_copy_and_stays_as_it_is() -> None:
    notification = make_notification("a", "b", stored=True, options={Option.OFFLINE_PUSH: True})
    before = notification.SerializeToString(deterministic=True)

    copy = split_send_msg(notification)

    assert copy is None
    assert notification.SerializeToString(deterministic=True) == before
