"""Users of OpenIM's SDKs for browsers: real pages of a real Chromium, driven call by call."""

from __future__ import annotations

import base64
import functools
import json
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from playwright.sync_api import Page, sync_playwright

from imserver.constants import ContentType, Platform, SessionType
from imserver.protocol.conversations import single_conversation_id
from tests.stack import Stack

Json = dict[str, Any]

FOLDER = Path(__file__).parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
WASM_PAGE = "wasm.html"
JS_PAGE = "js.html"

EVERYTHING = {"offset": 0, "count": 100}

SECONDS = 20
POLL_SECONDS = 0.02
#: The page's own limit: the SDK gives up on an answer after 10 s and tries some things twice.
CALL_MS = 60_000


class Refused(Exception):
    """A call of the SDK failed with this code."""

    def __init__(self, name: str, code: int, text: str) -> None:
        super().__init__(f"{name}: {code} {text}")
        self.code = code


def what_is_missing() -> str:
    """What these tests need and do not find; empty if they can run."""
    if find_chromium() is None:
        return "Chromium is not installed"
    if not (FOLDER / "node_modules" / ".package-lock.json").exists():
        return f"OpenIM's SDKs are not installed: `npm ci` in {FOLDER} gets them, `make test` does it where npm exists"
    return ""


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


class _PageHandler(SimpleHTTPRequestHandler):
    """The harness pages and the packages. The two headers are what SharedArrayBuffer asks for, on which the SDK's
    database lives."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve_pages() -> Iterator[str]:
    """Yields the pages' address."""
    handler = functools.partial(_PageHandler, directory=str(FOLDER))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class AppServer:
    """The REST side, with an admin token."""

    def __init__(self, web_url: str) -> None:
        self._http = httpx.Client(base_url=web_url, timeout=SECONDS)
        data = self.call("/auth/get_admin_token", {"secret": "openIM123", "userID": "imAdmin"})
        self._http.headers["token"] = data["token"]

    def call(self, path: str, body: Json) -> Any:
        answer = self._http.post(path, json=body, headers={"operationID": secrets.token_hex(8)}).json()
        assert answer["errCode"] == 0, answer
        return answer.get("data")

    def register(self, nickname: str) -> str:
        """Returns the id of a new user."""
        user_id = f"{nickname.lower()}_{secrets.token_hex(4)}"
        self.call("/user/user_register", {"users": [{"userID": user_id, "nickname": nickname}]})
        return user_id

    def token(self, user_id: str, platform_id: int = Platform.WEB) -> str:
        token: str = self.call("/auth/get_user_token", {"userID": user_id, "platformID": platform_id})["token"]
        return token

    def send_text(self, sender: SdkUser, receiver: SdkUser, text: str) -> None:
        """In the name of a user."""
        body = {
            "sendID": sender.user_id,
            "recvID": receiver.user_id,
            "senderPlatformID": int(Platform.WEB),
            "sessionType": int(SessionType.SINGLE),
            "contentType": int(ContentType.TEXT),
            "content": {"content": text},
        }
        self.call("/msg/send_msg", body)

    def close(self) -> None:
        self._http.close()


class SdkUser:
    """One user in a page of its own. ``events``: every callback of the SDK since the page came up, in order."""

    def __init__(self, page: Page, user_id: str, token: str) -> None:
        self.page = page
        self.user_id = user_id
        self.token = token
        #: Other than the stack's; the SDK keeps the first one it was told, as long as its page lives.
        self.gateway_url = ""
        self._events: list[Json] = []

    # -- calls and events

    def call(self, name: str, *args: Any) -> Any:
        """Data of the answer. Raises Refused."""
        return self._evaluate("call", name, args)

    def call_core(self, name: str, *args: Any) -> Any:
        """The same without the package's JavaScript around the binary."""
        return self._evaluate("callCore", name, args)

    def create_picture(self, name: str, size: int) -> Json:
        """A message with a picture of that many bytes, to be sent."""
        message: Json = self._evaluate("createPicture", name, (size,))
        return message

    def _evaluate(self, function: str, name: str, args: tuple[Any, ...]) -> Any:
        answer = self.page.evaluate(f"([name, args]) => {function}(name, ...args)", [name, list(args)])
        if answer["errCode"]:
            raise Refused(name, answer["errCode"], answer["errMsg"])
        return answer["data"]

    @property
    def events(self) -> list[Json]:
        self._events += self.page.evaluate("() => events.splice(0)")
        return self._events

    def told(self, name: str) -> list[Any]:
        """What the SDK told with the callbacks of that name."""
        return [event["data"] for event in self.events if event["name"] == name]

    def until(self, condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
        """Waits for a condition and returns what it gave."""
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            names = [event["name"] for event in self.events][-30:]
            assert time.monotonic() < deadline, f"{self.user_id} waited {seconds} s for {what}; told: {names}"
            time.sleep(POLL_SECONDS)
        return result

    def until_told(self, name: str, where: Callable[[Any], Any] = lambda _data: True, seconds: float = SECONDS) -> Any:
        """Waits for a callback and returns its data; if there were several, the first."""
        return self.until(lambda: next(([data] for data in self.told(name) if where(data)), None), name, seconds)[0]

    # -- connection

    def login(self, stack: Stack) -> Self:
        """Returns when the first sync is done."""
        self.page.evaluate("() => { events.length = 0; }")
        self._events.clear()
        self.log_in(stack)
        self.until(lambda: self.told("OnSyncServerFinish"), "the first sync")
        return self

    def log_in(self, stack: Stack) -> None:
        """Only the call; whether it succeeds, the callbacks tell."""
        self.call(
            "login",
            {
                "userID": self.user_id,
                "token": self.token,
                "platformID": int(Platform.WEB),
                "apiAddr": stack.web_url,
                "wsAddr": self.gateway_url or stack.gateway_url,
                "logLevel": 2,
            },
        )

    # -- messages

    def with_user(self, other: SdkUser) -> str:
        """Id of the chat with another user."""
        return single_conversation_id(self.user_id, other.user_id)

    def say(self, text: str, to: SdkUser | None = None, group_id: str = "") -> Json:
        """Returns the message as it was sent."""
        message = self.call("createTextMessage", text)
        return self.send(message, to, group_id)

    def send(self, message: Json, to: SdkUser | None = None, group_id: str = "") -> Json:
        params = {"recvID": to.user_id if to else "", "groupID": group_id, "message": message}
        sent: Json = self.call("sendMessage", params)
        return sent

    @property
    def received(self) -> list[Json]:
        """Messages of others, as they were told."""
        return [message for messages in self.told("OnRecvNewMessages") for message in messages]

    def until_received(self, client_msg_id: str, seconds: float = SECONDS) -> Json:
        def find() -> Json | None:
            return next((message for message in self.received if message["clientMsgID"] == client_msg_id), None)

        found: Json = self.until(find, "a message", seconds)
        return found

    def conversations(self) -> dict[str, Json]:
        """The SDK's list of conversations, in its order."""
        return {item["conversationID"]: item for item in self.call("getConversationListSplit", EVERYTHING)}

    def until_unread(self, conversation_id: str, count: int) -> None:
        def is_so() -> bool:
            conversation = self.conversations().get(conversation_id)
            return conversation is not None and conversation["unreadCount"] == count

        self.until(is_so, f"{count} unread messages")

    def history_page(self, conversation_id: str, count: int, before: str = "") -> Json:
        params = {"conversationID": conversation_id, "count": count, "startClientMsgID": before, "viewType": 0}
        page: Json = self.call("getAdvancedHistoryMessageList", params)
        return page

    def history(self, conversation_id: str, page_size: int = 40) -> list[Json]:
        """All messages of a conversation, oldest first: scrolled up to its beginning."""
        messages: list[Json] = []
        while True:
            before = messages[0]["clientMsgID"] if messages else ""
            page = self.history_page(conversation_id, page_size, before)
            messages = (page["messageList"] or []) + messages
            if page["isEnd"]:
                return messages
            assert page["messageList"], f"an empty page before {len(messages)} messages that is not the end"

    def texts(self, conversation_id: str) -> list[str]:
        return [message["textElem"]["content"] for message in self.history(conversation_id) if "textElem" in message]

    # -- the SDK's database

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Answer of the SDK's own SQLite database."""
        raw = base64.b64decode(self.page.evaluate("() => exportDatabase()"))
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(raw)
            return database.execute(query).fetchall()

    def stored(self, conversation_id: str) -> list[tuple[int, str, str, int]]:
        """Rows of a conversation by seq: seq, client_msg_id, text, status."""
        query = f'SELECT seq, client_msg_id, content, status FROM "chat_logs_{conversation_id}" ORDER BY seq'  # noqa: S608
        return [
            (seq, client_msg_id, json.loads(content).get("content", ""), status)
            for seq, client_msg_id, content, status in self.rows(query)
        ]


class SdkBrowser:
    """A Chromium. Its pages are used again by the next user: loading 36 MB of WebAssembly takes longer than a test."""

    def __init__(self, stack: Stack, page_name: str = WASM_PAGE) -> None:
        self.stack = stack
        self.app_server = AppServer(stack.web_url)
        self.page_name = page_name
        self.errors: list[str] = []
        self._idle: list[Page] = []
        self._users: list[SdkUser] = []

    def __enter__(self) -> Self:
        self._pages = serve_pages()
        self._url = self._pages.__enter__()
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._browser.close()
        self._playwright.stop()
        self._pages.__exit__(kind, error, trace)
        self.app_server.close()

    def new_page(self) -> Page:
        """In a profile of its own: nothing stored, nothing shared."""
        context = self._browser.new_context()
        context.set_default_timeout(CALL_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(f"{self._url}/{self.page_name}")
        page.wait_for_function("window.isReady")
        return page

    def open(self, user_id: str, *, is_fresh: bool = False) -> SdkUser:
        """A page for a registered user, with a new token; not logged in yet."""
        page = self._idle.pop() if self._idle and not is_fresh else self.new_page()
        user = SdkUser(page, user_id, self.app_server.token(user_id))
        self._users.append(user)
        return user

    def login(self, nickname: str, gateway_url: str = "") -> SdkUser:
        """A new user, logged in and synced; with another gateway than the stack's in a page of its own."""
        user = self.open(self.app_server.register(nickname), is_fresh=bool(gateway_url))
        user.gateway_url = gateway_url
        return user.login(self.stack)

    def log_everybody_out(self) -> None:
        """What is still logged in, is logged out and its page kept; other pages are closed."""
        for user in self._users:
            is_kept = not user.gateway_url
            try:
                user.call("logout")
            except Refused:
                is_kept = False
            if is_kept:
                self._idle.append(user.page)
            else:
                user.page.context.close()
        self._users.clear()
