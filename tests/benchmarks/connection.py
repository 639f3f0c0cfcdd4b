"""One user's socket, and what comes over it.

A frame for many users is the same bytes for each, so it is decoded once and remembered for a moment: a group of 500
would otherwise cost the generator more than the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from gateway.codecs.base import CodecError, Request, Response
from gateway.codecs.registry import get_codec
from imserver.constants import ContentType, ReqIdentifier
from imserver.protocol.gen.sdkws_pb2 import PushMessages
from tests.benchmarks import wire
from tests.benchmarks.plan import LoadError

#: Pushed messages of one conversation: (number, seq); number -1 for what is none of ours, such as a group's notices.
Pushed = dict[str, list[tuple[int, int]]]
#: As plain numbers, which compare at a fifth of an enum's cost.
PUSH_MSG, TEXT = int(ReqIdentifier.PUSH_MSG), int(ContentType.TEXT)
#: Frames that are remembered at most.
REMEMBERED = 4096


class PushReader:
    """Shared by all connections."""

    def __init__(self, codec: str) -> None:
        self._decode = get_codec(codec).decode_response
        self._known: dict[bytes, Pushed] = {}
        #: Telling these frames by their look costs half of decoding the envelope.
        self._is_json = codec == "js"

    def read(self, payload: bytes) -> str | Response | Pushed:
        """``msgIncr`` of a plain answer to a message, any other response, or what is pushed.

        Raises WireError, CodecError, ValueError.
        """
        if self._is_json and (answer := wire.JSON_ANSWER.match(payload)):
            return answer[1].decode()
        known = self._known.get(payload)
        if known is not None:
            return known
        if self._is_json and payload.startswith(wire.JSON_PUSH):
            data = wire.json_push_data(payload)
        else:
            response = self._decode(payload)
            if response.req_identifier != PUSH_MSG:
                return response
            data = response.data
        msgs = PushMessages.FromString(data).msgs
        pushed: Pushed = {}
        for conversation_id in msgs:
            pushed[conversation_id] = [
                (wire.number_of_msg(msg) if msg.contentType == TEXT else -1, msg.seq)
                for msg in msgs[conversation_id].Msgs
            ]
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[payload] = pushed
        return pushed


class Connection(asyncio.Protocol):
    """``on_push`` gets the pushed messages, ``on_answer`` ``msgIncr`` of a message that was taken in, ``on_response`` all else."""

    def __init__(self, request: bytes, codec: str, reader: PushReader, on_failure: Callable[[str], None]) -> None:
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_push: Callable[[Pushed], None] = _ignore
        self.on_answer: Callable[[str], None] = _ignore
        self.on_response: Callable[[Response], None] = _ignore
        self._request = request
        self._encode = get_codec(codec).encode_request
        self._reader = reader
        self._on_failure = on_failure
        self._transport: asyncio.Transport | None = None
        self._greeting = b""
        self._frames = wire.FrameReader()
        self._is_closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one in all but its bases.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.accepted.done():
            self._greeting += data
            head, found, data = self._greeting.partition(b"\r\n\r\n")
            if not found:
                return
            status = head.partition(b"\r\n")[0].decode(errors="replace")
            if " 101 " not in f"{status} ":
                self._fail(f"the gateway refused a connection: {status} {data[:200].decode(errors='replace')}")
                return
            self.accepted.set_result(None)
        try:
            for opcode, payload in self._frames.feed(data):
                if opcode == wire.BINARY:
                    self._on_message(payload)
                else:
                    self._on_control(opcode, payload)
        except (wire.WireError, CodecError, ValueError) as error:
            self._fail(f"a frame is not understood: {error}")

    def _on_message(self, payload: bytes) -> None:
        message = self._reader.read(payload)
        if isinstance(message, str):
            self.on_answer(message)
        elif isinstance(message, dict):
            self.on_push(message)
        else:
            self.on_response(message)

    def _on_control(self, opcode: int, payload: bytes) -> None:
        if opcode == wire.PING:
            self.write(wire.client_frame(payload, wire.PONG))
        elif opcode == wire.CLOSE and not self._is_closing:
            code = int.from_bytes(payload[:2], "big")
            self._fail(f"the gateway closed a connection with {code} {payload[2:].decode(errors='replace')}")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_closing:
            self._fail(f"a connection was lost: {exc or 'closed by the gateway'}")

    def _fail(self, text: str) -> None:
        if not self.accepted.done():
            self.accepted.set_exception(LoadError(text))
        self._on_failure(text)

    def write(self, frame: bytes) -> None:
        # A broken connection is told of by connection_lost; until then nothing is to be said to it.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def submit(self, request: Request) -> None:
        self.write(wire.client_frame(self._encode(request)))

    def close(self) -> None:
        self._is_closing = True
        if self._transport is not None:
            self.write(wire.client_frame(b"\x03\xe8", wire.CLOSE))
            self._transport.close()


def _ignore(_message: object) -> None:
    """Nobody listens yet."""
