"""What the gateway answers: WebSockets on any path, /healthz, and a word to who came to the wrong port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from channels.routing import ProtocolTypeRouter

from gateway.consumers import GatewayConsumer
from gateway.node import get_node

Send = Callable[[dict[str, Any]], Awaitable[None]]


async def http(scope: dict[str, Any], _receive: object, send: Send) -> None:
    """``/healthz`` of this node; everything else is the web process's business."""
    node = get_node()
    if scope["path"] == "/healthz":
        healthy = node.is_running
        status = 200 if healthy else 503
        body = {"status": "ok" if healthy else "failing", "node": node.name, "connections": len(node.connections)}
    else:
        status, body = 426, {"status": "failing", "detail": "this port speaks WebSocket; REST is on the web port"}
    content = orjson.dumps(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    if status == 426:
        headers += [(b"upgrade", b"websocket"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


application = ProtocolTypeRouter({"http": http, "websocket": GatewayConsumer.as_asgi()})
