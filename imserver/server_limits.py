"""Times and sizes that both servers keep to, and what they offer an application beyond ASGI."""

from __future__ import annotations

#: Server-side control pings keep browsers connected that send nothing themselves (protocol: every 27 s).
PING_INTERVAL_SECONDS = 27
#: The protocol's idle limit of 30 s would leave a phone 3 s to answer.
PING_TIMEOUT_SECONDS = 10
#: How often connections are looked at.
CHECK_SECONDS = 1
#: A closed connection whose client neither reads the rest nor answers the close is aborted after this.
CLOSE_SECONDS = 10
#: How long an HTTP connection may be idle between two requests. Clients and reverse proxies keep idle connections for up to a
#: minute; if the server were the first to close, a request on its way at that moment would fail.
KEEP_ALIVE_SECONDS = 75
#: Request line and headers together.
MAX_HEADER_BYTES = 16_384
#: What is left when the gateway has drained gets this long for its last bytes.
LAST_BYTES_SECONDS = 3
#: ASGI extension of a WebSocket's scope: a function that writes a frame without waiting (gateway/connections.py WriteNow).
WRITE_NOW_EXTENSION = "imserver.write_now"
