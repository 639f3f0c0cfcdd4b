"""How frames leave a connection: at once where the server can, in the order they were handed over in any case."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway import close
from gateway.codecs.base import Response
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


async def wait_behind(connection: Connection, operation_id: str) -> asyncio.Task[None]:
    """Four pushes that cannot leave, and a request that waits until they have."""
    for number in range(4):
        connection.push(operation_id, b"%d" % number)
    assert connection.is_crowded
    waiting = asyncio.create_task(connection.relief())
    await asyncio.sleep(0)
    assert not waiting.done()
    return waiting


async def test_who_sends_without_reading_waits_until_enough_is_read(server: Server) -> None:
    connection = server.connection(queue_frames=8)
    connection.start()
    server.is_ready = False
    waiting = await wait_behind(connection, "")

    server.get_ready()
    await asyncio.wait_for(waiting, 5)

    assert not connection.is_crowded
    await connection.drained()
    assert [frame for _, frame in server.written] == [b"0", b"1", b"2", b"3"]


async def test_who_waits_to_send_is_let_go_when_the_socket_is_lost(server: Server) -> None:
    connection = server.connection(queue_frames=8)
    connection.start()
    server.is_ready = False
    waiting = await wait_behind(connection, "")

    connection.lost(1006)

    await asyncio.wait_for(waiting, 5)
    server.get_ready()


async def test_pushes_that_wait_for_an_answer_hold_up_the_next_requests_until_it_is_out(server: Server) -> None:
    connection = server.connection(queue_frames=8)
    connection.start()
    connection.expect_answer("op")
    waiting = await wait_behind(connection, "op")

    connection.answer(Response(1003, operation_id="op"), expected=True)

    await asyncio.wait_for(waiting, 5)
    assert [frame for _, frame in server.written[1:]] == [b"0", b"1", b"2", b"3"]


async def test_a_server_that_fails_at_once_closes_that_connection_only(server: Server) -> None:
    def fail(frame: bytes, *, is_text: bool) -> bool:
        assert frame == b"one"
        raise RuntimeError(is_text)

    connection = server.connection()
    connection._write_now = fail
    connection.start()

    connection.push("", b"one")

    assert connection.is_closing
    await connection.drained()
    assert server.written == [("waited", "websocket.close")]
