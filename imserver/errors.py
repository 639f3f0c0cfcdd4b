"""Errors that reach a client: one class a code, the same numbers in REST and WebSocket answers.

``IMError`` subclasses carry OpenIM's code and name; the text given to the constructor is the detail (``errDlt``).
A raised ``IMError`` means that the request changed nothing.
"""

from __future__ import annotations


class IMError(Exception):
    """Base of every error with a code. ``code`` and ``name`` go to the client, ``detail`` says what to do."""

    code = 500
    name = "ServerInternalError"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.name)
        self.detail = detail


class InternalError(IMError):
    """Something failed that the client cannot mend."""


class ArgsError(IMError):
    code, name = 1001, "ArgsError"


class NoPermission(IMError):
    code, name = 1002, "NoPermissionError"


class DuplicateKey(IMError):
    code, name = 1003, "DuplicateKeyError"


class RecordNotFound(IMError):
    code, name = 1004, "RecordNotFoundError"


class UserIDNotFound(IMError):
    code, name = 1101, "UserIDNotFoundError"


class RegisteredAlready(IMError):
    code, name = 1102, "RegisteredAlreadyError"


class GroupIDNotFound(IMError):
    code, name = 1201, "GroupIDNotFoundError"


class GroupIDExisted(IMError):
    code, name = 1202, "GroupIDExisted"


class NotInGroup(IMError):
    code, name = 1203, "NotInGroupYetError"


class GroupDismissed(IMError):
    code, name = 1204, "DismissedAlreadyError"


class GroupRequestHandled(IMError):
    code, name = 1206, "GroupRequestHandled"


class CannotAddYourself(IMError):
    code, name = 1301, "CanNotAddYourselfError"


class BlockedByPeer(IMError):
    code, name = 1302, "BlockedByPeer"


class NotPeersFriend(IMError):
    code, name = 1303, "NotPeersFriend"


class RelationshipAlready(IMError):
    code, name = 1304, "RelationshipAlreadyError"


class FriendRequestHandled(IMError):
    code, name = 1305, "FriendRequestHandled"


class MutedInGroup(IMError):
    code, name = 1402, "MutedInGroup"


class MutedGroup(IMError):
    code, name = 1403, "MutedGroup"


class MsgAlreadyRevoked(IMError):
    code, name = 1404, "MsgAlreadyRevoke"


class TokenError(IMError):
    """Base of the codes 1501 to 1507: they log the client out, so nothing else may use them."""


class TokenExpired(TokenError):
    code, name = 1501, "TokenExpiredError"


class TokenInvalid(TokenError):
    code, name = 1502, "TokenInvalidError"


class TokenMalformed(TokenError):
    code, name = 1503, "TokenMalformedError"


class TokenNotValidYet(TokenError):
    code, name = 1504, "TokenNotValidYetError"


class TokenUnknown(TokenError):
    code, name = 1505, "TokenUnknownError"


class TokenKicked(TokenError):
    code, name = 1506, "TokenKickedError"


class TokenNotExist(TokenError):
    code, name = 1507, "TokenNotExistError"


class TooManyConnections(IMError):
    code, name = 1601, "ConnOverMaxNumLimit"


class ConnectionArgsError(IMError):
    code, name = 1602, "ConnArgsErr"


class UploadExpired(IMError):
    code, name = 1701, "FileUploadedExpiredError"


class NotSupported(IMError):
    """A route of OpenIM's that is not built here. Not in OpenIM's table."""

    code, name = 90102, "NotSupportedError"


class ObjectStoreUnavailable(IMError):
    """The store of uploaded files cannot be reached, or refuses."""

    code, name = 90004, "NetworkError"


class DatabaseUnavailable(IMError):
    """MongoDB cannot be reached; what Redis holds still works."""

    code, name = 90002, "DatabaseError"


class ServerBusy(IMError):
    """Back-pressure: a log is full. Not in OpenIM's table; clients treat it as a failed send and may repeat it."""

    code, name = 90101, "ServerBusyError"


class TooManyRequests(IMError):
    """Above REQUESTS_PER_SECOND. Not in OpenIM's table either; the connection stays, unless the flood goes on."""

    code, name = 90103, "TooManyRequestsError"


class StorageUnavailable(IMError):
    """Redis cannot be reached, so nothing can be accepted."""

    code, name = 90004, "NetworkError"


class WebhookRefused(IMError):
    """A before-webhook said no; code, name and detail are its answer's."""

    code, name = 80000, "CallbackError"

    def __init__(self, code: int = 0, name: str = "", detail: str = "") -> None:
        super().__init__(detail)
        self.code = code or self.code
        self.name = name or self.name


class WebhookUnreachable(IMError):
    """A before-webhook did not answer, or not with success, and is not set to fail open."""

    code, name = 90004, "NetworkError"


class WebhookAnswerInvalid(IMError):
    """A before-webhook's answer cannot be used, and it is not set to fail open."""

    code, name = 90007, "DataError"
