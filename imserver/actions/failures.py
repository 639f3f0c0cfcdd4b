"""What a client is told of an exception: one answer for REST and WebSocket."""

from __future__ import annotations

import redis
from pymongo.errors import PyMongoError

from imserver.errors import DatabaseUnavailable, IMError, InternalError, StorageUnavailable


def as_im_error(error: BaseException) -> IMError:
    """The error itself when it has a code, else the code of its cause; InternalError is ours to mend and to be logged."""
    if isinstance(error, IMError):
        return error
    if isinstance(error, redis.RedisError):
        return StorageUnavailable("the message log is not reachable; try again")
    if isinstance(error, PyMongoError):
        return DatabaseUnavailable("the message store is not reachable; recent messages still work")
    return InternalError("internal error; the log has it under this operationID")
