"""Why the server closes a connection: number, reason, and whether the client should come back."""

from __future__ import annotations

from dataclasses import dataclass

from imserver.constants import SLOW_READER_CODE


@dataclass(frozen=True, slots=True)
class CloseReason:
    code: int
    reason: str
    reconnect: bool


#: The node goes away; another (or its successor) takes over.
RESTART = CloseReason(1012, "service restart", reconnect=True)
#: An exception that is ours to mend.
INTERNAL_ERROR = CloseReason(1011, "internal error", reconnect=True)
FRAME_TOO_BIG = CloseReason(1009, "frame too big", reconnect=True)
#: 4000 to 4099 come back, 4100 to 4199 do not.
SLOW_READER = CloseReason(SLOW_READER_CODE, "reads too slowly", reconnect=True)
TOO_MANY_REQUESTS = CloseReason(4002, "too many requests", reconnect=True)
BAD_FRAME = CloseReason(4101, "frame not understood", reconnect=False)
WRONG_SENDER = CloseReason(4102, "sendID is not the connected user", reconnect=False)
UNKNOWN_REQUEST = CloseReason(4103, "unknown reqIdentifier", reconnect=False)
KICKED = CloseReason(4104, "logged in elsewhere or logged out by the server", reconnect=False)
HANDSHAKE_REFUSED = CloseReason(4105, "handshake refused", reconnect=False)
LOGGED_OUT = CloseReason(1000, "logged out", reconnect=False)
