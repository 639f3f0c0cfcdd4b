"""How frames leave a connection: at once where the server can, in the order they were handed over in any case."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway import close
from gateway.codecs.registry import get_codec
from gateway.connections import Connection


class Server:
    """Its side of a socket. ``is_ready``: whether it can write without waiting."""

    def __init__(self) -> None:
        self.is_ready = True
        self.written: list[tuple[str, Any]] = []
        self._may_go_on = asyncio.Event()

    def write_now(self, frame: bytes, *, is_text: bool) -> bool:
        if self.is_ready:
            self.written.append(("at once", frame.decode() if is_text else frame))
        return self.is_ready

    async def send(self, event: dict[str, Any]) -> None:
        if not self.is_ready:
            await self._may_go_on.wait()
        self.written.append(("waited", event.get("bytes") or event.get("text") or event["type"]))

    def get_ready(self) -> None:
        self.is_ready = True
        self._may_go_on.set()

    def connection(self, sdk_type: str = "go", *, is_compressed: bool = False, queue_frames: int = 10) -> Connection:
        return Connection(
            self.send,
            user_id="u",
            platform_id=1,
            token="t",
            codec=get_codec(sdk_type),
            is_compressed=is_compressed,
            queue_frames=queue_frames,
            queue_bytes=1 << 20,
            write_now=self.write_now,
        )


@pytest.fixture
async def server() -> Server:
    return Server()


async def test_a_frame_is_written_at_once_where_the_server_can(server: Server) -> None:
    connection = server.connection()
    connection.start()

    connection.push("", b"one")
    connection.push("", b"two")

    assert server.written == [("at once", b"one"), ("at once", b"two")]


@pytest.mark.parametrize(("is_compressed", "frame"), [(False, "{}"), (True, b"{}")])
async def test_the_text_codec_is_written_as_text_unless_it_is_compressed(
    server: Server, is_compressed: bool, frame: str | bytes
) -> None:
    connection = server.connection("json", is_compressed=is_compressed)
    connection.start()

    connection.push("", b"{}")

    assert server.written == [("at once", frame)]


async def test_nothing_is_written_before_the_socket_is_accepted(server: Server) -> None:
    connection = server.connection()
    connection.push("", b"one")
    assert server.written == []

    connection.start()
    connection.push("", b"two")
    await connection.drained()

    assert server.written == [("waited", b"one"), ("waited", b"two")]


async def test_what_comes_while_something_waits_does_not_overtake_it(server: Server) -> None:
    connection = server.connection()
    connection.start()
    server.is_ready = False
    connection.push("", b"one")
    await asyncio.sleep(0)

    server.get_ready()
    connection.push("", b"two")
    await connection.drained()
    connection.push("", b"three")

    assert server.written == [("waited", b"one"), ("waited", b"two"), ("at once", b"three")]


async def test_a_reader_for_whom_too_much_waits_is_cut_off_and_gets_nothing_more(server: Server) -> None:
    connection = server.connection(queue_frames=2)
    connection.start()
    server.is_ready = False
    for number in range(5):
        connection.push("", b"%d" % number)
    assert connection.is_closing

    server.get_ready()
    connection.push("", b"late")
    await connection.drained()

    assert server.written == [("waited", "websocket.close")]


async def test_a_closing_connection_takes_nothing_more(server: Server) -> None:
    connection = server.connection()
    connection.start()

    connection.close(close.KICKED)
    connection.push("", b"late")
    await connection.drained()

    assert server.written == [("waited", "websocket.close")]
