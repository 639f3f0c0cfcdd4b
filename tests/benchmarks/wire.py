"""The generator's side of the socket: WebSocket frames, and requests that are made by putting a number into a template.

A load generator shares the machine with what it measures, so a frame costs it a few microseconds: no library between
it and the socket, and nothing is serialized per message.
"""

from __future__ import annotations

import base64
import re
import secrets
import struct
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

import orjson

from gateway.codecs.base import Request
from gateway.codecs.registry import get_codec
from imserver.constants import ReqIdentifier, SessionType
from imserver.protocol.gen.sdkws_pb2 import MsgData
from tests.client import text_message

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
FINAL = 0x80
MASKED = 0x80
#: A mask of zeros is as good as any other on the wire and costs the server the same, but leaves our bytes as they are.
MASK = bytes(4)

#: Width of a message's number in all its places; templates stay equally long up to that many messages of one chat.
NUMBER_DIGITS = 9
#: Stands for the number while a template is made; must not occur in it by chance.
MARKER = b"987612345"
CONTENT_HEAD = b'{"content":"'

#: ``sdkType`` -> how it carries the protobuf data inside its envelope.
DATA_ENCODERS = {"js": lambda data: b2a_base64(data, newline=False), "go": bytes}

#: How the two frames begin that come all the time with ``sdkType=js``: the answer to a message that was taken in (the group is
#: its ``msgIncr``), and a push.
JSON_ANSWER = re.compile(
    rb'\{"reqIdentifier":%d,"msgIncr":"(\w+)","operationID":"[^"\\]*","errCode":0,"errMsg":""' % ReqIdentifier.SEND_MSG
)
JSON_PUSH = b'{"reqIdentifier":%d,"msgIncr":"","operationID":' % ReqIdentifier.PUSH_MSG


class WireError(Exception):
    """The server said something that this client does not understand."""


def client_frame(payload: bytes, opcode: int = BINARY) -> bytes:
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", FINAL | opcode, MASKED | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", FINAL | opcode, MASKED | 126, size)
    else:
        head = struct.pack("!BBQ", FINAL | opcode, MASKED | 127, size)
    return head + MASK + payload


class FrameReader:
    """Cuts what arrives into frames, however the network cut it."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are complete now, as (opcode, payload). Raises WireError for a masked or partial one."""
        if self._rest:
            data = self._rest + data
        frames: list[tuple[int, bytes]] = []
        at, end = 0, len(data)
        while end - at >= 2:
            first, size = data[at], data[at + 1]
            start = at + 2
            if size == 126:
                start += 2
                size = int.from_bytes(data[at + 2 : start], "big")
            elif size == 127:
                start += 8
                size = int.from_bytes(data[at + 2 : start], "big")
            elif size > 127:
                raise WireError("the server masked a frame")
            if end - start < size or end < start:
                break
            if not first & FINAL:
                raise WireError("the server cut a message into several frames")
            frames.append((first & 15, data[start : start + size]))
            at = start + size
        self._rest = data[at:]
        return frames


def upgrade_request(gateway_url: str, user_id: str, token: str, codec: str) -> bytes:
    query = urlencode(
        {
            "sendID": user_id,
            "token": token,
            "platformID": 1,
            "operationID": secrets.token_hex(8),
            "isBackground": "false",
            "sdkType": codec,
        }
    )
    lines = (
        f"GET /?{query} HTTP/1.1",
        f"Host: {urlsplit(gateway_url).netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(secrets.token_bytes(16)).decode()}",
        "Sec-WebSocket-Version: 13",
    )
    return "\r\n".join((*lines, "", "")).encode()


@dataclass(frozen=True, slots=True)
class SendTemplate:
    """Frames that send text messages to one receiver; message ``n`` carries ``n`` in its text and all its ids."""

    codec: str
    receiver: str
    #: What the ids of all its messages, and the answers to them, begin with.
    unique: str
    head: tuple[bytes, ...]
    data: tuple[bytes, ...]
    tail: tuple[bytes, ...]

    @classmethod
    def build(cls, codec: str, sender: str, receiver: str, text_bytes: int, *, is_group: bool = False) -> SendTemplate:
        """``text_bytes`` is the length of the text, at least the number's digits; ``is_group``: the receiver is a group."""
        number = MARKER.decode()
        unique = _unique()
        text = number + "." * (text_bytes - NUMBER_DIGITS)
        msg = text_message(sender, "" if is_group else receiver, text, client_msg_id=unique + number)
        if is_group:
            msg.groupID, msg.sessionType = receiver, SessionType.GROUP
        data = msg.SerializeToString()
        request = Request(
            ReqIdentifier.SEND_MSG,
            send_id=sender,
            operation_id=f"bench-{unique}-{number}",
            msg_incr=unique + number,
            data=data,
        )
        encoded = DATA_ENCODERS[codec](data)
        head, found, tail = client_frame(get_codec(codec).encode_request(request)).partition(encoded)
        pieces = (tuple(part.split(MARKER)) for part in (head, data, tail))
        template = cls(codec, receiver, unique, *pieces)
        if not found or len(template.data) != 3 or len(template.head) + len(template.tail) != 4:
            raise WireError("the template's number is not where it belongs")
        return template

    def to(self, receiver: str) -> SendTemplate:
        """The same for another receiver, much cheaper than building it. Raises ValueError when its id is not as long."""
        if len(receiver) != len(self.receiver):
            raise ValueError(f"{receiver} is not as long as {self.receiver}")
        unique = _unique()
        swaps = ((self.unique.encode(), unique.encode()), (self.receiver.encode(), receiver.encode()))

        def swapped(pieces: tuple[bytes, ...]) -> tuple[bytes, ...]:
            for old, new in swaps:
                pieces = tuple(piece.replace(old, new) for piece in pieces)
            return pieces

        return SendTemplate(self.codec, receiver, unique, *map(swapped, (self.head, self.data, self.tail)))

    def frame(self, number: int) -> bytes:
        digits = b"%09d" % number
        data = DATA_ENCODERS[self.codec](digits.join(self.data))
        return b"".join((digits.join(self.head), data, digits.join(self.tail)))


def _unique() -> str:
    """Random, so that two runs against the same servers are not taken for a repeat of each other."""
    return secrets.token_hex(12)[: 32 - NUMBER_DIGITS]


def number_of_msg(msg: MsgData) -> int:
    """The number in a message's text. Raises ValueError for a message that is none of ours."""
    start = len(CONTENT_HEAD)
    return int(msg.content[start : start + NUMBER_DIGITS])


def json_push_data(payload: bytes) -> bytes:
    """The protobuf data of a push that begins like JSON_PUSH. Raises ValueError."""
    return a2b_base64(orjson.loads(payload).get("data") or "", strict_mode=True)


def number_of_answer(msg_incr: str) -> int:
    """The number of the message that an answer is for. Raises ValueError."""
    return int(msg_incr[-NUMBER_DIGITS:])
