"""``python -m gateway``: one gateway node."""

from __future__ import annotations

from gateway.asgi import application
from gateway.node import get_node
from imserver.conf import get_config
from imserver.serve import serve

if __name__ == "__main__":
    serve(application, get_config().gateway_port, on_start=get_node().start, on_stop=get_node().drain)
