"""Runs an ASGI application on the configured server. The applications themselves depend on no server.

``on_start`` runs once the event loop does, ``on_stop`` when SIGTERM or SIGINT arrived: nobody new is let in any more, and
connections still live. Without ``on_stop`` the requests that have begun are finished, for at most GRACE_SECONDS.
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
from imserver.runtime import settle
from imserver.server_limits import (
    CLOSE_SECONDS,
    KEEP_ALIVE_SECONDS,
    LAST_BYTES_SECONDS,
    MAX_HEADER_BYTES,
    PING_INTERVAL_SECONDS,
    PING_TIMEOUT_SECONDS,
)

logger = logging.getLogger(__name__)

Hook = Callable[[], Awaitable[None]]

#: An application that does not see that its connection is gone is cancelled after this.
APPLICATION_CLOSE_SECONDS = 5


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

    from imserver import uvicorn_protocol  # noqa: PLC0415

    config = get_config()

    async def main() -> None:
        if on_start is not None:
            await on_start()
        settle()
        options = uvicorn.Config(
            application,
            host=host,
            port=port,
            http=uvicorn_protocol.HttpProtocol,
            ws=uvicorn_protocol.WebSocketProtocol,
            ws_max_size=config.max_frame_bytes * 2,
            # The protocol pings by itself.
            ws_ping_interval=None,
            ws_ping_timeout=None,
            ws_per_message_deflate=False,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=LAST_BYTES_SECONDS if on_stop is not None else config.grace_seconds,
        )
        await uvicorn_protocol.Server(options, on_stop).serve()

    try:
        uvloop.run(main())
    except KeyboardInterrupt:
        # uvicorn raises the signal again after a graceful shutdown.
        logger.info("stopped")


def _serve_daphne(application: Any, host: str, port: int, on_start: Hook | None, on_stop: Hook | None) -> None:
    from daphne.server import reactor, twisted_loop  # noqa: PLC0415  (installs the reactor, so it is first)

    from imserver import daphne_protocol  # noqa: PLC0415

    daphne_protocol.install()

    config = get_config()
    tasks: set[asyncio.Task[None]] = set()

    def spawn(hook: Hook) -> None:
        task: asyncio.Task[None] = twisted_loop.create_task(hook())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def stop() -> None:
        try:
            await server.stop_listening()
            if on_stop is not None:
                await on_stop()
                await server.finish_requests(LAST_BYTES_SECONDS)
            else:
                await server.finish_requests(config.grace_seconds)
        finally:
            reactor.stop()

    stopping = False

    def on_signal(_sig: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            reactor.callFromThread(spawn, stop)

    def on_ready() -> None:
        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, on_signal)
        # Autobahn's own second is too short for a client that has yet to read what was sent before the close; and it would
        # drop who breaks the protocol without telling why.
        server.ws_factory.setProtocolOptions(closeHandshakeTimeout=CLOSE_SECONDS, failByDrop=False)
        server.http_factory.timeOut = config.handshake_seconds
        if on_start is not None:
            spawn(on_start)
        settle()

    server = daphne_protocol.Server(
        daphne_protocol.with_flow_control(application),
        endpoints=[f"tcp:port={port}:interface={host.replace(':', chr(92) + ':')}"],
        signal_handlers=False,
        # A day is Daphne's default; a chat connection may last longer.
        websocket_timeout=-1,
        websocket_connect_timeout=config.handshake_seconds,
        websocket_handshake_timeout=config.handshake_seconds,
        websocket_max_message_size=config.max_frame_bytes * 2,
        websocket_max_frame_size=config.max_frame_bytes * 2,
        ping_interval=PING_INTERVAL_SECONDS,
        ping_timeout=PING_TIMEOUT_SECONDS,
        application_close_timeout=APPLICATION_CLOSE_SECONDS,
        server_name="imserver",
        verbosity=0,
        ready_callable=on_ready,
    )
    server.run()
