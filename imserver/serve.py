"""Runs an ASGI application on the configured server. The applications themselves depend on no server.

``on_start`` runs once the event loop does, ``on_stop`` when SIGTERM or SIGINT arrived, while connections still live.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

from imserver.conf import get_config

logger = logging.getLogger(__name__)

Hook = Callable[[], Awaitable[None]]

#: Server-side control pings keep browsers connected that send nothing themselves (protocol: every 27 s, idle limit 30 s).
PING_INTERVAL_SECONDS = 27
PING_TIMEOUT_SECONDS = 30
#: Who has not finished the upgrade by then is dropped.
HANDSHAKE_TIMEOUT_SECONDS = 10
SHUTDOWN_SECONDS = 5


def serve(application: Any, port: int, *, on_start: Hook | None = None, on_stop: Hook | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Exits with a sentence when the port is taken."""
    config = get_config()
    # A connection is a file; the usual soft limit of 1024 would end the party early.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _check_port(config.bind_host, port)
    run = _serve_uvicorn if config.gateway_server == "uvicorn" else _serve_daphne
    run(application, config.bind_host, port, on_start, on_stop)


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            sys.exit(f"cannot listen on {host}:{port}: {error.strerror}")


def _serve_uvicorn(application: Any, host: str, port: int, on_start: Hook | None, on_stop: Hook | None) -> None:
    import uvicorn  # noqa: PLC0415  (each server is imported only where it runs: Daphne installs a reactor)
    import uvloop  # noqa: PLC0415

    config = get_config()

    class Server(uvicorn.Server):
        """Runs ``on_stop`` between the signal and uvicorn's own shutdown."""

        loop: asyncio.AbstractEventLoop
        _stopping: asyncio.Task[None] | None = None

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if on_stop is None or self._stopping is not None:
                super().handle_exit(sig, frame)
            else:
                self.loop.call_soon_threadsafe(self._stop_soon, on_stop, sig, frame)

        def _stop_soon(self, hook: Hook, sig: int, frame: FrameType | None) -> None:
            async def stop() -> None:
                try:
                    await hook()
                finally:
                    uvicorn.Server.handle_exit(self, sig, frame)

            self._stopping = self._stopping or self.loop.create_task(stop())

    async def main() -> None:
        if on_start is not None:
            await on_start()
        server = Server(
            uvicorn.Config(
                application,
                host=host,
                port=port,
                ws="websockets-sansio",
                ws_max_size=config.max_frame_bytes * 2,
                ws_ping_interval=PING_INTERVAL_SECONDS,
                ws_ping_timeout=PING_TIMEOUT_SECONDS,
                ws_per_message_deflate=False,
                lifespan="off",
                access_log=False,
                log_config=None,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )
        server.loop = asyncio.get_running_loop()
        await server.serve()

    try:
        uvloop.run(main())
    except KeyboardInterrupt:
        # uvicorn raises the signal again after a graceful shutdown.
        logger.info("stopped")


def _serve_daphne(application: Any, host: str, port: int, on_start: Hook | None, on_stop: Hook | None) -> None:
    from daphne.server import Server, reactor, twisted_loop  # noqa: PLC0415  (installs the reactor, so it is first)

    from imserver import daphne_protocol  # noqa: PLC0415

    daphne_protocol.install()

    config = get_config()
    tasks: set[asyncio.Task[None]] = set()

    def spawn(hook: Hook | None, then: Callable[[], None] | None = None) -> None:
        async def run() -> None:
            try:
                if hook is not None:
                    await hook()
            finally:
                if then is not None:
                    then()

        task = twisted_loop.create_task(run())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    stopping = False

    def on_signal(_sig: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            reactor.callFromThread(spawn, on_stop, reactor.stop)

    def on_ready() -> None:
        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, on_signal)
        spawn(on_start)

    Server(
        daphne_protocol.with_denial(application),
        endpoints=[f"tcp:port={port}:interface={host.replace(':', chr(92) + ':')}"],
        signal_handlers=False,
        # A day is Daphne's default; a chat connection may last longer.
        websocket_timeout=-1,
        websocket_connect_timeout=HANDSHAKE_TIMEOUT_SECONDS,
        websocket_handshake_timeout=HANDSHAKE_TIMEOUT_SECONDS,
        websocket_max_message_size=config.max_frame_bytes * 2,
        websocket_max_frame_size=config.max_frame_bytes * 2,
        ping_interval=PING_INTERVAL_SECONDS,
        ping_timeout=PING_TIMEOUT_SECONDS,
        application_close_timeout=SHUTDOWN_SECONDS,
        server_name="imserver",
        verbosity=0,
        ready_callable=on_ready,
    ).run()
