"""What uvicorn's connections do as time passes."""

from __future__ import annotations

from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.frames import Opcode
from websockets.protocol import State

from imserver.uvicorn_protocol import WebSocketProtocol


class Transport:
    """Writes at once, and keeps what was written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    @property
    def opcodes(self) -> list[int]:
        return [data[0] & 0x0F for data in self.written]


async def app(_scope: object, _receive: object, _send: object) -> None:
    """Not called."""


@pytest.fixture
async def protocol() -> WebSocketProtocol:
    """Of an accepted connection."""
    config = uvicorn.Config(app, ws_per_message_deflate=False, log_config=None)
    config.load()
    opened = WebSocketProtocol(config, ServerState(), {})
    transport: Any = Transport()
    opened.transport, opened.handshake_complete, opened.conn.state = transport, True, State.OPEN
    return opened


async def test_who_is_silent_is_pinged_and_who_does_not_answer_is_closed(protocol: WebSocketProtocol) -> None:
    transport: Any = protocol.transport
    start = protocol._heard_at

    protocol.check(start + 26)
    assert transport.opcodes == []
    protocol.check(start + 28)
    protocol.check(start + 37)
    assert transport.opcodes == [Opcode.PING]
    assert not transport.is_closed
    protocol.check(start + 39)

    assert transport.opcodes == [Opcode.PING, Opcode.CLOSE]
    assert transport.is_closed


async def test_who_answers_stays(protocol: WebSocketProtocol) -> None:
    transport: Any = protocol.transport
    start = protocol._heard_at

    protocol.check(start + 28)
    # Any frame counts.
    protocol._heard_at = start + 29
    protocol.check(start + 39)
    protocol.check(start + 57)

    assert transport.opcodes == [Opcode.PING, Opcode.PING]
    assert not transport.is_closed
