"""Push vendors for tests: real HTTP/1.1 and HTTP/2 (TLS) servers on loopback; what they answer is the test's to say."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded
from h2.exceptions import ProtocolError


@dataclass(frozen=True)
class Request:
    """One request it got. Header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    protocol: str
    at: float = field(default_factory=time.monotonic)

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What it answers. ``body`` that is not bytes becomes JSON."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else orjson.dumps(self.body)


#: Answers a request; None: never.
Answer = Callable[[Request], Reply | None]


class PushServer(ABC):
    """Keeps what came, in order. A failed check of a request is kept too, and answered with 599."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        self.stopping = threading.Event()
        self._lock = threading.Lock()

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def handle(self, request: Request) -> Reply | None:
        with self._lock:
            self.requests.append(request)
        try:
            return self.answer(request)
        except (AssertionError, KeyError, ValueError, TypeError) as error:
            self.complaints.append(f"{request.path}: {error!r}")
            return Reply(599)


class Http1Server(PushServer):
    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = outer.handle(Request("POST", self.path, headers, body, "HTTP/1.1"))
                if reply is None:
                    outer.stopping.wait(30)
                    self.close_connection = True
                    return
                # The caller may not have waited for it.
                with contextlib.suppress(OSError):
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(reply.content)))
                    self.end_headers()
                    self.wfile.write(reply.content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


class Http2Server(PushServer):
    """TLS with a certificate of its own, and nothing but HTTP/2. ``ca_file`` is what a client has to trust."""

    def __init__(self, answer: Answer, folder: Path) -> None:
        super().__init__(answer)
        self.ca_file = folder / "certificate.pem"
        self._context = _server_context(self.ca_file, folder / "key.pem")
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        # Ends the accept, which a close does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        expected = (OSError, ssl.SSLError, ProtocolError)
        with contextlib.suppress(*expected), self._context.wrap_socket(raw, server_side=True) as connection:
            assert connection.selected_alpn_protocol() == "h2"
            connection.settimeout(0.2)
            self._talk(connection)

    def _talk(self, connection: ssl.SSLSocket) -> None:
        h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        h2.initiate_connection()
        connection.sendall(h2.data_to_send())
        heads: dict[int, dict[str, str]] = {}
        bodies: dict[int, bytes] = {}
        while not self.stopping.is_set():
            try:
                data = connection.recv(65_536)
            except TimeoutError:
                continue
            if not data:
                return
            for event in h2.receive_data(data):
                if isinstance(event, RequestReceived):
                    heads[event.stream_id] = {str(name): str(value) for name, value in event.headers}
                    bodies[event.stream_id] = b""
                elif isinstance(event, DataReceived):
                    bodies[event.stream_id] += event.data
                    h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    self._reply(h2, event.stream_id, heads.pop(event.stream_id), bodies.pop(event.stream_id))
                elif isinstance(event, ConnectionTerminated):
                    return
            connection.sendall(h2.data_to_send())

    def _reply(self, h2: H2Connection, stream_id: int, head: dict[str, str], body: bytes) -> None:
        headers = {name: value for name, value in head.items() if not name.startswith(":")}
        reply = self.handle(Request(head[":method"], head[":path"], headers, body, "HTTP/2"))
        if reply is None:
            return
        extra = [(name.lower(), value) for name, value in reply.headers.items()]
        h2.send_headers(stream_id, [(":status", str(reply.status)), *extra], end_stream=not reply.content)
        if reply.content:
            h2.send_data(stream_id, reply.content, end_stream=True)


def _server_context(certificate_file: Path, key_file: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "push vendor of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    context.set_alpn_protocols(["h2"])
    return context
