"""Free ports, and who holds one that is not."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
import threading
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import psutil

from imserver.devservices.errors import PortTaken

EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
EPHEMERAL_START_ELSEWHERE = 32_768
LOWEST_PORT = 20_000
ATTEMPTS = 1_000

#: Not the common generator: whoever seeds that would get the same ports in every process.
_choice = random.SystemRandom()
_reserved: set[int] = set()
_reserving = threading.Lock()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        # As the servers do it: connections of an earlier run that linger in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        # Linux tells only at listen() about a listener that used SO_REUSEADDR too.
        probe.listen(1)
    except OSError:
        probe.close()
        raise
    return probe


def is_free(host: str, port: int) -> bool:
    try:
        _bind(host, port).close()
    except OSError:
        return False
    return True


def _ephemeral_start() -> int:
    try:
        start = int(EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return EPHEMERAL_START_ELSEWHERE
    return start if start > LOWEST_PORT + ATTEMPTS else EPHEMERAL_START_ELSEWHERE


@cache
def _reservations() -> int:
    """The file whose bytes stand for ports: who holds the lock of a byte has the port. The system lets go of the locks of a
    process that ends."""
    return os.open(Path(tempfile.gettempdir()) / f"imserver-ports-{os.getuid()}", os.O_RDWR | os.O_CREAT, 0o600)


def _reserve(port: int) -> bool:
    """False when another process has it, or this one."""
    with _reserving:
        if port in _reserved:
            return False
        try:
            fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
        _reserved.add(port)
        return True


def find_free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """``count`` different ports that nobody listens on, all below the range of outgoing connections.

    Not bind(0): it answers from that range, and a client that keeps dialling a killed server there may get the server's
    own port as its source, connect to itself, and keep the server from ever coming back.

    They are this process's until it ends: no other process that asks here gets them, also while nobody listens yet.
    """
    ports: list[int] = []
    end = _ephemeral_start()
    with ExitStack() as held:
        for _ in range(ATTEMPTS):
            if len(ports) == count:
                return ports
            port = _choice.randrange(LOWEST_PORT, end)
            try:
                probe = _bind(host, port)
            except OSError:
                continue
            held.callback(probe.close)
            if _reserve(port):
                ports.append(port)
    if len(ports) == count:
        return ports
    raise PortTaken(f"No {count} free ports were found on {host} between {LOWEST_PORT} and {end}.")


def find_holder(port: int) -> str:
    """Who listens on ``port``, as words for people; empty when the system does not say."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return ""
    for connection in connections:
        # An address is (host, port), or empty for a socket that has none yet.
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
            return describe_process(connection.pid)
    return ""


def describe_process(pid: int) -> str:
    try:
        words = " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        words = ""
    return f"process {pid} ({words[:120]})" if words else f"process {pid}"


def check_port(host: str, port: int, setting: str) -> None:
    """Raises ``PortTaken``, naming the holder and the setting that changes the port."""
    try:
        _bind(host, port).close()
    except PermissionError as error:
        raise PortTaken(
            f"Port {port} on {host} may not be used by this account: set {setting} to a port above 1023."
        ) from error
    except OSError as error:
        if not is_local(host):
            raise PortTaken(f"{host} is not an address of this machine: set BIND_HOST to one that is.") from error
        holder = find_holder(port) or "a process that this account may not see"
        raise PortTaken(
            f"Port {port} on {host} is taken by {holder}. Stop it, or set {setting} to another port."
        ) from error


def is_local(host: str) -> bool:
    try:
        _bind(host, 0).close()
    except OSError:
        return False
    return True
