from imserver.protocol.gen import sdkws_pb2 as _sdkws_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class userRegisterReq(_message.Message):
    __slots__ = ("users",)
    USERS_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[_sdkws_pb2.UserInfo]
    def __init__(self, users: _Optional[_Iterable[_Union[_sdkws_pb2.UserInfo, _Mapping]]] = ...) -> None: ...

class getDesignateUsersReq(_message.Message):
    __slots__ = ("userIDs",)
    USERIDS_FIELD_NUMBER: _ClassVar[int]
    userIDs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, userIDs: _Optional[_Iterable[str]] = ...) -> None: ...

class getDesignateUsersResp(_message.Message):
    __slots__ = ("usersInfo",)
    USERSINFO_FIELD_NUMBER: _ClassVar[int]
    usersInfo: _containers.RepeatedCompositeFieldContainer[_sdkws_pb2.UserInfo]
    def __init__(self, usersInfo: _Optional[_Iterable[_Union[_sdkws_pb2.UserInfo, _Mapping]]] = ...) -> None: ...

class updateUserInfoExReq(_message.Message):
    __slots__ = ("userInfo",)
    USERINFO_FIELD_NUMBER: _ClassVar[int]
    userInfo: _sdkws_pb2.UserInfoWithEx
    def __init__(self, userInfo: _Optional[_Union[_sdkws_pb2.UserInfoWithEx, _Mapping]] = ...) -> None: ...

class onlineStatus(_message.Message):
    __slots__ = ("userID", "status", "platformIDs")
    USERID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PLATFORMIDS_FIELD_NUMBER: _ClassVar[int]
    userID: str
    status: int
    platformIDs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, userID: _Optional[str] = ..., status: _Optional[int] = ..., platformIDs: _Optional[_Iterable[int]] = ...) -> None: ...
