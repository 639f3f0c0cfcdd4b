"""What a wake-up costs when the same work is spread over more processes: ``python -m tests.benchmarks.wakeups``.

The floor under w6. Each process does nothing but send 200 bytes back, on the gateway's event loop; the rate is the same
however many there are. What the sum grows by is what the machine asks for: code and data are no longer in a core's caches
when a process gets its turn.
"""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import psutil
import uvloop

from imserver.conf import BASE_DIR
from imserver.devservices.launch import launcher

COUNTS = (1, 2, 5, 10, 20)
#: Three wake-ups a message at 200 messages a second.
RATE = 600
SECONDS = 6.0
PAYLOAD = b"x" * 200
START_SECONDS = 20.0


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


async def serve(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(Echo, path)
    await server.serve_forever()


def measure(count: int, folder: Path) -> float:
    """Microseconds of processor time a wake-up, of that many processes together."""
    with ExitStack() as cleanup:
        processes, sockets = [], []
        for number in range(count):
            path = str(folder / f"{count}-{number}")
            command = launcher([sys.executable, "-m", "tests.benchmarks.wakeups", path])
            process = subprocess.Popen(command, cwd=BASE_DIR, stdin=subprocess.DEVNULL)
            cleanup.callback(process.wait)
            cleanup.callback(process.kill)
            processes.append(psutil.Process(process.pid))
            sockets.append(cleanup.enter_context(_connect(path)))
        before, began, turns = _cpu_seconds(processes), time.monotonic(), 0
        while (now := time.monotonic() - began) < SECONDS:
            chosen = random.choice(sockets)
            chosen.sendall(PAYLOAD)
            chosen.recv(len(PAYLOAD))
            turns += 1
            time.sleep(max(0.0, turns / RATE - now))
        return (_cpu_seconds(processes) - before) / turns * 1e6


def _connect(path: str) -> socket.socket:
    deadline = time.monotonic() + START_SECONDS
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return connection


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    """Of the main threads, to the nanosecond: ticks of 10 ms would be too coarse."""
    return sum(int(Path(f"/proc/{item.pid}/schedstat").read_text().split()[0]) for item in processes) / 1e9


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for count in COUNTS:
            sys.stdout.write(f"{count:3} processes: {measure(count, Path(folder)):6.1f} µs a wake-up\n")
            sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        uvloop.run(serve(sys.argv[1]))
    else:
        main()
