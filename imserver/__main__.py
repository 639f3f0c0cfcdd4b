"""``python -m imserver``: the web process."""

from __future__ import annotations

from imserver.asgi import application
from imserver.conf import get_config
from imserver.serve import serve

if __name__ == "__main__":
    serve(application, get_config().web_port)
