"""OpenIM's JSON of protobuf messages: rest.md section 1, over every message there is."""

from __future__ import annotations

import base64
import importlib
import pkgutil
from functools import cache
from typing import Any

import orjson
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from imserver.protocol import gen
from imserver.protocol.gen import conversation_pb2, group_pb2, msg_pb2, sdkws_pb2
from imserver.protocol.json_mapping import JsonMismatch, from_json, to_json

VALUES: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: st.text(max_size=8),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=12),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_INT32: st.integers(-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, (1 << 32) - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, (1 << 64) - 1),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 1),
}
WHOLE_NUMBERS = {
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
}
#: What JSON may hold where a field wants something else.
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 64), 1 << 64) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def message_types() -> list[type[Message]]:
    """Every message of the protocol."""
    found = []
    for module in pkgutil.iter_modules(gen.__path__):
        descriptor = importlib.import_module(f"{gen.__name__}.{module.name}").DESCRIPTOR
        found += [GetMessageClass(kind) for kind in descriptor.message_types_by_name.values()]
    return found


def is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def is_wrapper(field: Any) -> bool:
    return field.message_type is not None and field.message_type.full_name.startswith("google.protobuf.")


@cache
def values_of(field: Any) -> st.SearchStrategy[Any]:
    if is_map(field):
        kinds = field.message_type.fields_by_name
        return st.dictionaries(values_of(kinds["key"]), values_of(kinds["value"]), max_size=2)
    one = messages_of(GetMessageClass(field.message_type)) if field.message_type else VALUES[field.type]
    return st.lists(one, max_size=2) if field.is_repeated else one


def messages_of(kind: Any) -> st.SearchStrategy[Any]:
    """Random messages of a type: each field set or not."""
    return _messages_of(kind)


@cache
def _messages_of(kind: Any) -> st.SearchStrategy[Any]:
    @st.composite
    def build(draw: st.DrawFn) -> Any:
        message = kind()
        for field in kind.DESCRIPTOR.fields:
            if not draw(st.booleans()):
                continue
            value = draw(values_of(field))
            target = getattr(message, field.name)
            if is_map(field) and field.message_type.fields_by_name["value"].message_type is not None:
                for key, item in value.items():
                    target[key].CopyFrom(item)
            elif is_map(field):
                target.update(value)
            elif field.is_repeated:
                target.extend(value)
            elif field.message_type is not None:
                target.CopyFrom(value)
            else:
                setattr(message, field.name, value)
        return message

    return build()


#: ``optional`` scalars (sendMessage of four group requests) exist in requests only, which are never written as JSON.
WRITTEN = [
    kind
    for kind in message_types()
    if not any(field.has_presence and field.message_type is None for field in kind.DESCRIPTOR.fields)
]
any_message: st.SearchStrategy[Any] = st.sampled_from(WRITTEN).flatmap(messages_of)
RICH = [
    sdkws_pb2.MsgData,
    sdkws_pb2.PullMessageBySeqsResp,
    sdkws_pb2.GetMaxSeqResp,
    sdkws_pb2.GroupInfo,
    msg_pb2.GetSeqMessageReq,
    msg_pb2.GetConversationsHasReadAndMaxSeqResp,
    conversation_pb2.ConversationReq,
    group_pb2.SetGroupMemberInfo,
]
rich_message: st.SearchStrategy[Any] = st.sampled_from(RICH).flatmap(messages_of)


def check_shape(message: Any, values: dict[str, Any]) -> None:
    """Names as written, everything present, each value in the form that OpenIM gives it."""
    assert list(values) == [field.name for field in message.DESCRIPTOR.fields]
    for field in message.DESCRIPTOR.fields:
        value = values[field.name]
        if is_map(field):
            assert isinstance(value, dict)
        elif field.is_repeated:
            assert isinstance(value, list)
        elif field.message_type is not None and not message.HasField(field.name):
            assert value is None
        elif is_wrapper(field):
            assert value == getattr(message, field.name).value
        elif field.message_type is not None:
            check_shape(getattr(message, field.name), value)
        elif field.type in WHOLE_NUMBERS:
            assert type(value) is int
        elif field.type == FieldDescriptor.TYPE_BYTES:
            assert base64.b64decode(value, validate=True) == getattr(message, field.name)


@given(any_message | rich_message)
@settings(max_examples=300, deadline=None)
def test_every_message_survives_the_way_to_json_text_and_back(message: Message) -> None:
    text = orjson.dumps(to_json(message))

    back = type(message)()
    from_json(back, orjson.loads(text))

    assert back == message


@given(any_message | rich_message)
@settings(max_examples=200, deadline=None)
def test_every_field_is_there_in_openims_form(message: Message) -> None:
    check_shape(message, to_json(message))


@pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: kind.DESCRIPTOR.full_name)
def test_an_empty_message_shows_all_its_zero_values(kind: type[Message]) -> None:
    values = to_json(kind())

    check_shape(kind(), values)
    assert all(value in (0, "", False, None, [], {}) for value in values.values())


@given(rich_message, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_keys_match_without_regard_to_case_and_unknown_ones_are_ignored(message: Message, random: Any) -> None:
    values = {
        "".join(random.choice((letter.lower(), letter.upper())) for letter in name): value
        for name, value in to_json(message).items()
    }

    back = type(message)()
    from_json(back, {**values, "no such field": [1], "": {}})

    assert back == message


@given(rich_message)
@settings(deadline=None)
def test_nulls_and_absent_keys_set_nothing(message: Message) -> None:
    before = message.SerializeToString(deterministic=True)

    from_json(message, dict.fromkeys(to_json(message)))
    from_json(message, {})

    assert message.SerializeToString(deterministic=True) == before


def test_a_wrapper_is_a_bare_value_and_zero_is_not_null() -> None:
    request = conversation_pb2.ConversationReq()

    from_json(request, {"recvMsgOpt": 0, "isPinned": False, "ex": "", "minSeq": None})

    assert request.HasField("recvMsgOpt")
    assert request.HasField("isPinned")
    assert request.HasField("ex")
    assert not request.HasField("minSeq")
    values = to_json(request)
    assert (values["recvMsgOpt"], values["isPinned"], values["ex"], values["minSeq"]) == (0, False, "", None)


def test_the_greatest_numbers_are_numbers() -> None:
    values = to_json(sdkws_pb2.MsgData(sendTime=(1 << 63) - 1, createTime=-(1 << 63)))

    assert (values["sendTime"], values["createTime"]) == ((1 << 63) - 1, -(1 << 63))


@pytest.mark.parametrize(
    ("kind", "values", "field"),
    [
        (sdkws_pb2.MsgData, {"sendID": 5}, "sendID"),
        (sdkws_pb2.MsgData, {"sendID": True}, "sendID"),
        (sdkws_pb2.MsgData, {"seq": "5"}, "seq"),
        (sdkws_pb2.MsgData, {"seq": 1.5}, "seq"),
        (sdkws_pb2.MsgData, {"seq": True}, "seq"),
        (sdkws_pb2.MsgData, {"seq": 1 << 63}, "seq"),
        (sdkws_pb2.MsgData, {"contentType": 1 << 31}, "contentType"),
        (sdkws_pb2.MsgData, {"isRead": 1}, "isRead"),
        (sdkws_pb2.MsgData, {"isRead": "true"}, "isRead"),
        (sdkws_pb2.MsgData, {"content": "not base64!"}, "content"),
        (sdkws_pb2.MsgData, {"content": "QQ"}, "content"),
        (sdkws_pb2.MsgData, {"content": [1]}, "content"),
        (sdkws_pb2.MsgData, {"options": []}, "options"),
        (sdkws_pb2.MsgData, {"options": {"history": 0}}, "history|value"),
        (sdkws_pb2.MsgData, {"atUserIDList": "u1"}, "atUserIDList"),
        (sdkws_pb2.MsgData, {"atUserIDList": [1]}, "atUserIDList"),
        (sdkws_pb2.MsgData, {"offlinePushInfo": "x"}, "OfflinePushInfo"),
        (sdkws_pb2.MsgData, {"offlinePushInfo": {"title": 1}}, "title"),
        (conversation_pb2.ConversationReq, {"recvMsgOpt": {"value": 1}}, "recvMsgOpt"),
        (conversation_pb2.ConversationReq, {"isPinned": "no"}, "value|isPinned"),
        (sdkws_pb2.GetMaxSeqResp, {"maxSeqs": {"si_a_b": "1"}}, "maxSeqs"),
        (sdkws_pb2.PullMessageBySeqsReq, {"seqRanges": {}}, "seqRanges"),
        (sdkws_pb2.PullMessageBySeqsReq, {"seqRanges": [5]}, "SeqRange"),
        (sdkws_pb2.PullMessageBySeqsReq, [], "PullMessageBySeqsReq"),
        (sdkws_pb2.PullMessageBySeqsReq, "text", "PullMessageBySeqsReq"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(kind: type[Message], values: Any, field: str) -> None:
    with pytest.raises(JsonMismatch, match=field):
        from_json(kind(), values)


@given(st.sampled_from(WRITTEN), st.data())
@settings(max_examples=300, deadline=None)
def test_no_json_makes_anything_but_a_message_or_a_mismatch(kind: type[Message], data: st.DataObject) -> None:
    names = [field.name for field in kind.DESCRIPTOR.fields] or ["x"]
    values = data.draw(st.dictionaries(st.sampled_from(names), ANY_JSON, max_size=3) | ANY_JSON)
    message = kind()

    try:
        from_json(message, values)
    except JsonMismatch:
        return

    message.SerializeToString()


def test_a_whole_number_may_come_as_a_float() -> None:
    message = sdkws_pb2.MsgData()

    from_json(message, {"seq": 3.0})

    assert message.seq == 3
