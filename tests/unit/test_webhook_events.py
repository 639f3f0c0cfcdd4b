"""What is sent to a webhook, and what its answer may change (protocol/webhooks.md)."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given

from imserver.constants import SessionType, WebhookCommand
from imserver.protocol.gen.sdkws_pb2 import MsgData, OfflinePushInfo
from imserver.protocol.json_mapping import JsonMismatch
from imserver.storage.webhooks import AFTER_SAVE, AFTER_SEND, Hook
from imserver.webhooks import events
from imserver.webhooks.policy import modified
from tests.factories import any_msgs, make_msg

COMMON = {
    "sendID": "a",
    "serverMsgID": "server1",
    "clientMsgID": "client1",
    "operationID": "op",
    "senderPlatformID": 5,
    "senderNickname": "Anna",
    "sessionType": 1,
    "msgFrom": 100,
    "contentType": 101,
    "status": 2,
    "sendTime": 1_760_000_000_001,
    "createTime": 1_760_000_000_000,
    "content": '{"content":"hi"}',
    "seq": 7,
    "atUserList": ["b"],
    "faceURL": "http://x/face",
    "ex": "extra",
}


def full_msg(**changes: Any) -> MsgData:
    fields: dict[str, Any] = {
        "clientMsgID": "client1",
        "serverMsgID": "server1",
        "senderPlatformID": 5,
        "senderNickname": "Anna",
        "senderFaceURL": "http://x/face",
        "sendTime": 1_760_000_000_001,
        "atUserIDList": ["b"],
        "ex": "extra",
    }
    return make_msg("a", "b", **{**fields, **changes})


def group_msg(**changes: Any) -> MsgData:
    return full_msg(sessionType=SessionType.GROUP, groupID="g", **changes)


def body_of(command: WebhookCommand, msg: MsgData, seq: int = 7) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(events.body_of(command, msg, "op", seq))
    return body


@pytest.mark.parametrize(
    ("command", "more"),
    [
        (WebhookCommand.BEFORE_SEND_SINGLE, {"recvID": "b"}),
        (WebhookCommand.BEFORE_MODIFY, {}),
        (WebhookCommand.AFTER_SEND_SINGLE, {"recvID": "b"}),
        (WebhookCommand.AFTER_SAVE, {"recvID": "b", "groupID": ""}),
    ],
)
def test_the_body_for_a_single_chat_has_exactly_openims_fields(command: WebhookCommand, more: dict[str, str]) -> None:
    assert body_of(command, full_msg()) == {**COMMON, "callbackCommand": command.value, **more}


@pytest.mark.parametrize(
    ("command", "more"),
    [
        (WebhookCommand.BEFORE_SEND_GROUP, {"groupID": "g"}),
        (WebhookCommand.AFTER_SEND_GROUP, {"groupID": "g"}),
        (WebhookCommand.AFTER_SAVE, {"recvID": "", "groupID": "g"}),
    ],
)
def test_the_body_for_a_group_names_the_group(command: WebhookCommand, more: dict[str, str]) -> None:
    expected = {**COMMON, "sessionType": 3, "callbackCommand": command.value, **more}

    assert body_of(command, group_msg()) == expected


def test_nobody_mentioned_is_null_and_the_seq_has_32_bits() -> None:
    body = body_of(WebhookCommand.AFTER_SEND_SINGLE, full_msg(atUserIDList=[]), seq=(1 << 32) + 3)

    assert body["atUserList"] is None
    assert body["seq"] == 3


@pytest.mark.parametrize(
    ("content_type", "content", "shown"),
    [
        (101, b"\xff{}", "�{}"),
        (110, b'{"detail":"x"}', '{"detail":"x"}'),
        (1400, b'{"detail":"{\\"a\\":1}"}', '{"a":1}'),
        (1400, b"not json", ""),
        (1400, b"[]", ""),
    ],
)
def test_content_is_text_and_of_a_notification_its_detail(content_type: int, content: bytes, shown: str) -> None:
    msg = full_msg(contentType=content_type, content=content)

    assert body_of(WebhookCommand.AFTER_SAVE, msg)["content"] == shown


@given(any_msgs())
def test_any_message_can_be_sent_to_any_hook(msg: MsgData) -> None:
    for command in WebhookCommand:
        assert body_of(command, msg)["clientMsgID"] == msg.clientMsgID


def test_after_hooks_have_the_ids_in_the_query_so_that_a_bot_can_answer() -> None:
    for command in WebhookCommand:
        query = events.query_of(command, group_msg())
        if "After" in command:
            assert base64.b64decode(query["key"]) == b'{"sendID":"a","recvID":"b","groupID":"g"}'
        else:
            assert query == {}


def test_a_message_goes_to_the_hooks_of_its_session_type() -> None:
    single, group, service = full_msg(), group_msg(), full_msg(sessionType=4)

    assert events.before_send_command(single) is WebhookCommand.BEFORE_SEND_SINGLE
    assert events.before_send_command(group) is WebhookCommand.BEFORE_SEND_GROUP
    assert events.before_send_command(service) is None
    assert events.after_command(AFTER_SEND, single) is WebhookCommand.AFTER_SEND_SINGLE
    assert events.after_command(AFTER_SEND, group) is WebhookCommand.AFTER_SEND_GROUP
    assert events.after_command(AFTER_SEND, service) is None
    assert {events.after_command(AFTER_SAVE, msg) for msg in (single, group)} == {WebhookCommand.AFTER_SAVE}


@pytest.mark.parametrize("content_type", [113, 1000, 1400, 2101, 2200, 5000])
def test_typing_and_notifications_go_to_no_hook(content_type: int) -> None:
    msg = full_msg(contentType=content_type)

    assert events.is_exempt(msg)
    assert events.after_command(AFTER_SEND, msg) is events.after_command(AFTER_SAVE, msg) is None


@pytest.mark.parametrize("content_type", [101, 110, 112, 114, 999, 5001])
def test_what_is_said_goes_to_hooks(content_type: int) -> None:
    assert not events.is_exempt(full_msg(contentType=content_type))


@pytest.mark.parametrize(
    ("hook", "is_wanted"),
    [
        (Hook("x", ""), True),
        (Hook("x", "", denied_types=frozenset({101})), False),
        (Hook("x", "", denied_types=frozenset({102})), True),
        (Hook("x", "", attention_ids=frozenset({"b"})), True),
        (Hook("x", "", attention_ids=frozenset({"a", "g"})), False),
    ],
)
def test_a_hook_filters_by_content_type_and_receiver(hook: Hook, is_wanted: bool) -> None:
    assert events.is_wanted(hook, full_msg()) is is_wanted


def test_of_a_group_message_the_group_counts_as_receiver() -> None:
    assert events.is_wanted(Hook("x", "", attention_ids=frozenset({"g"})), group_msg())
    assert not events.is_wanted(Hook("x", "", attention_ids=frozenset({"b"})), group_msg())


# -- what before-modify may change


def lower(answer: dict[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in answer.items()}


def test_null_and_absent_fields_leave_the_message_as_it_is() -> None:
    msg = full_msg()

    assert modified(msg, {}) == msg
    assert modified(msg, lower(dict.fromkeys(("content", "recvID", "options", "atUserIDList", "status")))) == msg


def test_every_modifiable_field_is_replaced() -> None:
    values: dict[str, Any] = {
        "content": '{"content":"***"}',
        "recvID": "c",
        "groupID": "h",
        "clientMsgID": "client2",
        "serverMsgID": "server2",
        "senderPlatformID": 1,
        "senderNickname": "",
        "senderFaceURL": "f",
        "sessionType": 3,
        "msgFrom": 200,
        "contentType": 110,
        "status": 3,
        "options": {"history": False},
        "offlinePushInfo": {"title": "t", "iOSBadgeCount": True},
        "atUserIDList": ["c", "d"],
        "attachedInfo": "{}",
        "ex": "e",
    }
    msg = full_msg(options={"offlinePush": False}, offlinePushInfo=OfflinePushInfo(title="old", desc="old"))

    changed = modified(msg, lower(values))

    kept = {"sendID": "a", "sendTime": msg.sendTime, "createTime": msg.createTime}
    push = OfflinePushInfo(title="t", iOSBadgeCount=True)
    assert changed == MsgData(**{**kept, **values, "content": b'{"content":"***"}', "offlinePushInfo": push})
    assert msg.options == {"offlinePush": False}


@pytest.mark.parametrize(
    "values",
    [
        {"content": "not json"},
        {"content": "[1]"},
        {"content": {"content": "x"}},
        {"status": "3"},
        {"status": 1 << 40},
        {"recvID": 5},
        {"options": {"history": 1}},
        {"atUserIDList": "c"},
        {"offlinePushInfo": "t"},
    ],
)
def test_a_change_that_does_not_fit_is_refused_whole(values: dict[str, Any]) -> None:
    msg = full_msg()

    with pytest.raises(JsonMismatch):
        modified(msg, lower({"ex": "new", **values}))

    assert msg == full_msg()
