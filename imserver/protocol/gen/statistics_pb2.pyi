from imserver.protocol.gen import sdkws_pb2 as _sdkws_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CountReq(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class CountResp(_message.Message):
    __slots__ = ("total", "before", "count")
    class CountEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    total: int
    before: int
    count: _containers.ScalarMap[str, int]
    def __init__(self, total: _Optional[int] = ..., before: _Optional[int] = ..., count: _Optional[_Mapping[str, int]] = ...) -> None: ...

class GetActiveUserReq(_message.Message):
    __slots__ = ("start", "end", "ase", "group", "pagination")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ASE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    PAGINATION_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    ase: bool
    group: bool
    pagination: _sdkws_pb2.RequestPagination
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., ase: _Optional[bool] = ..., group: _Optional[bool] = ..., pagination: _Optional[_Union[_sdkws_pb2.RequestPagination, _Mapping]] = ...) -> None: ...

class ActiveUser(_message.Message):
    __slots__ = ("user", "count")
    USER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    user: _sdkws_pb2.UserInfo
    count: int
    def __init__(self, user: _Optional[_Union[_sdkws_pb2.UserInfo, _Mapping]] = ..., count: _Optional[int] = ...) -> None: ...

class GetActiveUserResp(_message.Message):
    __slots__ = ("msgCount", "userCount", "dateCount", "users")
    class DateCountEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MSGCOUNT_FIELD_NUMBER: _ClassVar[int]
    USERCOUNT_FIELD_NUMBER: _ClassVar[int]
    DATECOUNT_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    msgCount: int
    userCount: int
    dateCount: _containers.ScalarMap[str, int]
    users: _containers.RepeatedCompositeFieldContainer[ActiveUser]
    def __init__(self, msgCount: _Optional[int] = ..., userCount: _Optional[int] = ..., dateCount: _Optional[_Mapping[str, int]] = ..., users: _Optional[_Iterable[_Union[ActiveUser, _Mapping]]] = ...) -> None: ...

class GetActiveGroupReq(_message.Message):
    __slots__ = ("start", "end", "ase", "pagination")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ASE_FIELD_NUMBER: _ClassVar[int]
    PAGINATION_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    ase: bool
    pagination: _sdkws_pb2.RequestPagination
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., ase: _Optional[bool] = ..., pagination: _Optional[_Union[_sdkws_pb2.RequestPagination, _Mapping]] = ...) -> None: ...

class ActiveGroup(_message.Message):
    __slots__ = ("group", "count")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    group: _sdkws_pb2.GroupInfo
    count: int
    def __init__(self, group: _Optional[_Union[_sdkws_pb2.GroupInfo, _Mapping]] = ..., count: _Optional[int] = ...) -> None: ...

class GetActiveGroupResp(_message.Message):
    __slots__ = ("msgCount", "groupCount", "dateCount", "groups")
    class DateCountEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MSGCOUNT_FIELD_NUMBER: _ClassVar[int]
    GROUPCOUNT_FIELD_NUMBER: _ClassVar[int]
    DATECOUNT_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    msgCount: int
    groupCount: int
    dateCount: _containers.ScalarMap[str, int]
    groups: _containers.RepeatedCompositeFieldContainer[ActiveGroup]
    def __init__(self, msgCount: _Optional[int] = ..., groupCount: _Optional[int] = ..., dateCount: _Optional[_Mapping[str, int]] = ..., groups: _Optional[_Iterable[_Union[ActiveGroup, _Mapping]]] = ...) -> None: ...
