"""/jssdk: the list of conversations as OpenIM's JS SDK shows it; protobuf in and out, or JSON.

Always the caller's own: what a request says of the owner is not looked at.
"""

from __future__ import annotations

import base64
from typing import Any

from django.http import HttpRequest
from google.protobuf.message import DecodeError, Message

from imserver.actions import jssdk
from imserver.errors import ArgsError
from imserver.protocol.gen import jssdk_pb2
from imserver.protocol.json_mapping import to_json
from imserver.rest.decorators import Answer, BodyReader, Call, Who, read_json, route

PROTOBUF = "application/x-protobuf"


def _reader(message_type: type[Message]) -> BodyReader:
    """Reads a body of protobuf bytes where the content type says so, else JSON."""

    def read(request: HttpRequest) -> dict[str, Any]:
        if request.content_type != PROTOBUF:
            return read_json(request)
        message = message_type()
        try:
            message.ParseFromString(request.body)
        except DecodeError as error:
            raise ArgsError(f"the body is no {message_type.DESCRIPTOR.name}") from error
        return to_json(message)

    return read


def _answer(call: Call, message: Message) -> Answer:
    if call.content_type != PROTOBUF:
        return message
    return base64.b64encode(message.SerializeToString()).decode()


@route(Who.ANY, _reader(jssdk_pb2.GetActiveConversationsReq))
async def get_active_conversations(call: Call) -> Answer:
    request = call.parse(jssdk_pb2.GetActiveConversationsReq)
    return _answer(call, await jssdk.get_active_conversations(call.user_id, request.count))


@route(Who.ANY, _reader(jssdk_pb2.GetConversationsReq))
async def get_conversations(call: Call) -> Answer:
    request = call.parse(jssdk_pb2.GetConversationsReq)
    return _answer(call, await jssdk.get_conversations(call.user_id, list(request.conversationIDs)))
