from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class LogBatch(_message.Message):
    __slots__ = ("msgs", "operation_ids", "trigger_id")
    MSGS_FIELD_NUMBER: _ClassVar[int]
    OPERATION_IDS_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_ID_FIELD_NUMBER: _ClassVar[int]
    msgs: _containers.RepeatedScalarFieldContainer[bytes]
    operation_ids: _containers.RepeatedScalarFieldContainer[str]
    trigger_id: str
    def __init__(self, msgs: _Optional[_Iterable[bytes]] = ..., operation_ids: _Optional[_Iterable[str]] = ..., trigger_id: _Optional[str] = ...) -> None: ...
