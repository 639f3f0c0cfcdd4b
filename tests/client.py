"""A small OpenIM client for tests: any codec, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import httpx
import orjson
import websockets
from google.protobuf.message import Message
from websockets.asyncio.client import ClientConnection

from gateway.codecs import gzip_compressor
from gateway.codecs.base import Request, Response
from gateway.codecs.registry import get_codec
from imserver.clock import now_ms
from imserver.constants import ContentType, MsgFrom, ReqIdentifier, SessionType
from imserver.protocol.conversations import single_conversation_id
from imserver.protocol.gen import msg_pb2, sdkws_pb2

ANSWER_SECONDS = 20


class RequestRefused(Exception):
    """An answer with an error code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


class Api:
    """The REST side: an app server with an admin token."""

    def __init__(self, web_url: str, secret: str = "openIM123") -> None:
        self.web_url = web_url
        self._secret = secret
        self._http = httpx.AsyncClient(base_url=web_url, timeout=ANSWER_SECONDS)
        self._admin_token = ""

    async def __aenter__(self) -> Self:
        data = await self.call("/auth/get_admin_token", {"secret": self._secret, "userID": "imAdmin"}, token="")
        self._admin_token = data["token"]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def post(self, path: str, body: Any, *, token: str | None = None, **headers: str) -> dict[str, Any]:
        """The whole envelope."""
        token = self._admin_token if token is None else token
        sent = {"operationID": secrets.token_hex(8), **({"token": token} if token else {}), **headers}
        answer = await self._http.post(path, content=orjson.dumps(body), headers=sent)
        assert answer.status_code == 200, answer.text
        envelope: dict[str, Any] = answer.json()
        return envelope

    async def call(self, path: str, body: Any, *, token: str | None = None) -> Any:
        """The data of a success."""
        envelope = await self.post(path, body, token=token)
        if envelope["errCode"]:
            raise RequestRefused(envelope["errCode"], envelope["errDlt"])
        return envelope.get("data")

    async def register(self, *user_ids: str) -> None:
        await self.call("/user/user_register", {"users": [{"userID": item, "nickname": item} for item in user_ids]})

    async def token(self, user_id: str, platform_id: int = 1) -> str:
        data = await self.call("/auth/get_user_token", {"userID": user_id, "platformID": platform_id})
        token: str = data["token"]
        return token


def text_message(sender: str, receiver: str, text: str, client_msg_id: str | None = None) -> sdkws_pb2.MsgData:
    return sdkws_pb2.MsgData(
        sendID=sender,
        recvID=receiver,
        clientMsgID=client_msg_id or secrets.token_hex(16),
        senderPlatformID=1,
        senderNickname=sender,
        sessionType=SessionType.SINGLE,
        msgFrom=MsgFrom.USER,
        contentType=ContentType.TEXT,
        content=orjson.dumps({"content": text}),
        createTime=now_ms(),
        status=1,
    )


def text_of(msg: sdkws_pb2.MsgData) -> str:
    text: str = orjson.loads(msg.content)["content"]
    return text


class Client:
    """One connection. Pushes are kept in the order they came."""

    def __init__(
        self,
        gateway_url: str,
        user_id: str,
        token: str,
        *,
        platform_id: int = 1,
        sdk_type: str = "go",
        is_compressed: bool = False,
        wants_result: bool = False,
    ) -> None:
        self.user_id = user_id
        self.token = token
        self.codec = get_codec(sdk_type)
        self.is_compressed = is_compressed
        self.wants_result = wants_result
        query = {
            "sendID": user_id,
            "token": token,
            "platformID": platform_id,
            "operationID": secrets.token_hex(8),
            "isBackground": "false",
            "isMsgResp": str(wants_result).lower(),
            "sdkType": sdk_type,
            "compression": "gzip" if is_compressed else "",
        }
        self.url = f"{gateway_url}/?{urlencode(query)}"
        self.handshake: dict[str, Any] = {}
        self.pushes: list[Response] = []
        self.msgs: dict[str, list[sdkws_pb2.MsgData]] = defaultdict(list)
        self.frames: list[Response] = []
        self.texts: list[str] = []
        self.kicked = False
        self._is_over = False
        self._answers: dict[str, asyncio.Future[Response]] = {}
        self._changed = asyncio.Event()
        self._numbers = itertools.count(1)
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.connect()
        await self.until_registered()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self) -> None:
        self._is_over = False
        self._socket = await websockets.connect(self.url, compression=None, max_size=None, open_timeout=ANSWER_SECONDS)
        if self.wants_result:
            self.handshake = orjson.loads(await self._socket.recv())
        self._reader = asyncio.create_task(self._read(self._socket))

    async def until_registered(self) -> None:
        """A socket is accepted a moment before pushes find it. SDKs sync first; what they ask waits for that moment, as
        does this ping. Who is refused or kicked at once is not waited for."""
        ping = {"type": "ping", "body": f"registered {secrets.token_hex(4)}"}
        pong = orjson.dumps({**ping, "type": "pong"}).decode()
        with contextlib.suppress(websockets.ConnectionClosed):
            await self.socket.send(orjson.dumps(ping).decode())
        await self.until(lambda: pong in self.texts or self._is_over)
        if pong in self.texts:
            self.texts.remove(pong)

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=ANSWER_SECONDS)

    def abort(self) -> None:
        """Go away without a word."""
        if self._socket is not None:
            self._socket.transport.abort()

    @property
    def socket(self) -> ClientConnection:
        assert self._socket is not None
        return self._socket

    async def wait_closed(self) -> int | None:
        """Wait for the server to close; returns the close code."""
        await asyncio.wait_for(self.socket.wait_closed(), ANSWER_SECONDS)
        return self.socket.close_code

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for frame in socket:
                if isinstance(frame, str) and not (self.codec.is_text and "reqIdentifier" in frame):
                    self.texts.append(frame)
                    self._changed.set()
                    continue
                raw = frame.encode() if isinstance(frame, str) else frame
                self._handle(gzip_compressor.decompress(raw, 1 << 24) if self.is_compressed else raw)
        except websockets.ConnectionClosed:
            pass
        finally:
            for future in self._answers.values():
                if not future.done():
                    future.set_exception(ConnectionError("connection closed"))
                    future.exception()  # a test that does not wait for the answer does not care
            self._answers.clear()
            self._is_over = True
            self._changed.set()

    def _handle(self, frame: bytes) -> None:
        response = self.codec.decode_response(frame)
        self.frames.append(response)
        if response.req_identifier == ReqIdentifier.PUSH_MSG:
            self.pushes.append(response)
            push = sdkws_pb2.PushMessages.FromString(response.data)
            for by_conversation in (push.msgs, push.notificationMsgs):
                for conversation_id, entry in by_conversation.items():
                    self.msgs[conversation_id] += entry.Msgs
        elif response.req_identifier == ReqIdentifier.KICK_ONLINE:
            self.kicked = True
        else:
            future = self._answers.pop(response.msg_incr, None)
            if future is not None and not future.done():
                future.set_result(response)
        self._changed.set()

    async def until(self, condition: Any, seconds: float = ANSWER_SECONDS) -> None:
        """Wait until ``condition()`` holds, looked at after every frame."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def submit(self, identifier: int, data: bytes, operation_id: str = "") -> asyncio.Future[Response]:
        """Send a request; the future gives its answer."""
        incr = f"{self.user_id}_{next(self._numbers)}"
        future = self._answers[incr] = asyncio.get_running_loop().create_future()
        frame = self.codec.encode_request(
            Request(
                identifier, send_id=self.user_id, operation_id=operation_id or f"op_{incr}", msg_incr=incr, data=data
            )
        )
        if self.is_compressed:
            await self.socket.send(gzip_compressor.compress(frame))
        else:
            await self.socket.send(frame.decode() if self.codec.is_text else frame)
        return future

    async def request(self, identifier: int, message: Message | None = None) -> bytes:
        """Data of the answer. Raises RequestRefused."""
        future = await self.submit(identifier, message.SerializeToString() if message else b"")
        response = await asyncio.wait_for(future, ANSWER_SECONDS)
        if response.err_code:
            raise RequestRefused(response.err_code, response.err_msg)
        return response.data

    async def send_msg(self, msg: sdkws_pb2.MsgData) -> msg_pb2.SendMsgResp:
        return msg_pb2.SendMsgResp.FromString(await self.request(ReqIdentifier.SEND_MSG, msg))

    async def send_text(self, receiver: str, text: str, client_msg_id: str | None = None) -> msg_pb2.SendMsgResp:
        return await self.send_msg(text_message(self.user_id, receiver, text, client_msg_id))

    async def max_seqs(self) -> dict[str, int]:
        data = await self.request(ReqIdentifier.GET_NEWEST_SEQ, sdkws_pb2.GetMaxSeqReq(userID=self.user_id))
        return dict(sdkws_pb2.GetMaxSeqResp.FromString(data).maxSeqs)

    async def pull(self, conversation_id: str, begin: int, end: int, num: int = 0) -> list[sdkws_pb2.MsgData]:
        request = sdkws_pb2.PullMessageBySeqsReq(
            userID=self.user_id,
            seqRanges=[
                sdkws_pb2.SeqRange(conversationID=conversation_id, begin=begin, end=end, num=num or end - begin + 1)
            ],
        )
        data = await self.request(ReqIdentifier.PULL_MSG_BY_RANGE, request)
        answer = sdkws_pb2.PullMessageBySeqsResp.FromString(data)
        by_conversation = answer.notificationMsgs if conversation_id.startswith("n_") else answer.msgs
        return list(by_conversation[conversation_id].Msgs)

    def chat_with(self, other: str) -> list[sdkws_pb2.MsgData]:
        """Messages pushed in the chat with another user."""
        return self.msgs[single_conversation_id(self.user_id, other)]


#: The fixture ``connect``.
Connect = Callable[..., Awaitable[Client]]


class Sleeper:
    """A client that connects and then does not read."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.socket: Any = None

    async def connect(self) -> None:
        address = urlsplit(self.client.url)
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, (address.hostname, address.port))
        self.socket = await websockets.connect(self.client.url, sock=plain, compression=None, ping_interval=None)
        self.socket.transport.pause_reading()

    async def close(self) -> None:
        if self.socket is not None:
            self.socket.transport.abort()
            await asyncio.wait_for(self.socket.wait_closed(), ANSWER_SECONDS)

    async def wake(self) -> int | None:
        """Read everything to the end; returns the close code."""
        self.socket.transport.resume_reading()
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await asyncio.wait_for(self.socket.recv(), ANSWER_SECONDS)
        code: int | None = self.socket.close_code
        return code
