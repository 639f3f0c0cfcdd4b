"""What ``up`` prints when all is healthy: what is where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from imserver.conf import Config
from imserver.devservices import mongod, processes, valkey
from imserver.devservices.redact import hide_password


def render(config: Config, *, embedded: Mapping[str, Path], seconds: float, password_line: str = "") -> str:
    """The table, ready to print. ``embedded`` maps the names of embedded servers to their folders."""
    web = f"http://{processes.local_address(config, config.web_port)}"
    rows = [
        ("demo", f"{web}/", "chat in the browser, no account needed") if config.demo else None,
        ("REST", web, "OpenIM's HTTP interface; /metrics and /healthz too"),
        ("admin", f"{web}/admin/", "users, groups, messages, logs, dead letters"),
        ("gateway", f"ws://{processes.local_address(config, config.gateway_port)}/", "WebSocket, for OpenIM's SDKs"),
        ("Flower", f"http://{processes.local_address(config, config.flower_port)}/", "Celery: workers and tasks"),
        ("workers", ", ".join(processes.worker_names(config)), f"{config.worker_threads} threads each"),
        ("Redis", hide_password(config.redis_url), _where(embedded, valkey.NAME)),
        ("MongoDB", hide_password(config.mongo_url), _where(embedded, mongod.NAME)),
    ]
    shown = [row for row in rows if row is not None]
    name_width = max(len(name) for name, _, _ in shown)
    address_width = max(len(address) for _, address, _ in shown)
    lines = [f"  {name:<{name_width}}  {address:<{address_width}}  {purpose}" for name, address, purpose in shown]
    if password_line:
        lines += ["", f"  {password_line}   (shown only this once)"]
    head = f"Everything is up and healthy after {seconds:.1f} s."
    return "\n".join(["", head, "", *lines, "", "Ctrl-C stops it.", "", ""])


def _where(embedded: Mapping[str, Path], name: str) -> str:
    return f"embedded {name}, data in {embedded[name]}" if name in embedded else "yours, by configuration"
