"""The envelope of a WebSocket frame, and what a codec promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


class CodecError(Exception):
    """The bytes are not an envelope of this codec; the connection is to be closed."""


@dataclass(slots=True)
class Request:
    """What a client sends. ``data`` is a serialized protobuf message, whatever the codec."""

    req_identifier: int = 0
    token: str = ""
    send_id: str = ""
    operation_id: str = ""
    msg_incr: str = ""
    data: bytes = b""


@dataclass(slots=True)
class Response:
    """An answer (``msg_incr`` of its request) or a push (``msg_incr`` empty)."""

    req_identifier: int = 0
    msg_incr: str = ""
    operation_id: str = ""
    err_code: int = 0
    err_msg: str = ""
    data: bytes = b""


class Codec(ABC):
    """Envelope <-> bytes. Stateless: every call stands alone, so one instance serves all connections and threads.

    Decoding raises CodecError for anything malformed, within memory proportional to the input.
    """

    #: Value of the ``sdkType`` query parameter.
    name: str
    #: Frames leave as WebSocket TEXT (unless compressed) instead of BINARY.
    is_text = False

    @abstractmethod
    def decode_request(self, frame: bytes) -> Request:
        """Server side."""

    @abstractmethod
    def encode_response(self, response: Response) -> bytes:
        """Server side."""

    @abstractmethod
    def encode_request(self, request: Request) -> bytes:
        """Client side: tests, the load generator, scripts."""

    @abstractmethod
    def decode_response(self, frame: bytes) -> Response:
        """Client side."""
