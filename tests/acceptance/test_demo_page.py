"""The demo page in a real Chromium against the whole stack: two people, a reload, history, a gateway that dies."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from websockets.sync.client import connect

from tests.stack import Stack

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
DEADLINE_MS = 30_000
#: Restart of the gateway, then up to 16 s of back-off.
RECONNECT_MS = 60_000

WITHOUT_GATEWAY = re.compile("reconnecting|connecting|offline")
DELIVERED_OR_READ = re.compile("delivered|read")

#: The socket dies right after it has sent the next message, before the answer.
CLOSE_AFTER_NEXT_SEND = """() => {
  const send = WebSocket.prototype.send;
  WebSocket.prototype.send = function (data) {
    send.call(this, data);
    if (JSON.parse(data).reqIdentifier !== 1003 || JSON.parse(data).data.contentType === 113) return;
    WebSocket.prototype.send = send;
    this.close();
  };
}"""

#: The next message is never sent, though the page believes so.
SWALLOW_NEXT_SEND = """() => {
  const send = WebSocket.prototype.send;
  WebSocket.prototype.send = function (data) {
    const isMessage = JSON.parse(data).reqIdentifier === 1003 && JSON.parse(data).data.contentType === 101;
    if (isMessage) WebSocket.prototype.send = send;
    else send.call(this, data);
  };
}"""

#: Writes down every mark a message goes through; the early ones last a few milliseconds.
RECORD_MARKS = """
window.recordedMarks = {};
new MutationObserver((records) => {
  for (const { dataset } of records.flatMap(({ target, addedNodes }) => [target, ...addedNodes])) {
    if (!dataset?.mark || !dataset.clientMsgId) continue;
    const seen = (window.recordedMarks[dataset.clientMsgId] ??= []);
    if (seen.at(-1) !== dataset.mark) seen.push(dataset.mark);
  }
}).observe(document, { subtree: true, childList: true, attributeFilter: ["data-mark"] });
"""


@dataclass
class Tab:
    """One person's browser: a context of its own, so that nothing is shared with the others."""

    page: Page
    user_id: str
    nickname: str

    @property
    def messages(self) -> Locator:
        return self.page.locator("#message-list > .message")

    def message(self, text: str) -> Locator:
        return self.messages.filter(has=self.page.locator(".bubble-text", has_text=re.compile(f"^{text}$")))

    def texts(self) -> list[str]:
        return self.messages.locator(".bubble-text").all_text_contents()

    def chat_item(self, peer: Tab) -> Locator:
        return self.page.locator(f"#chat-list > li[data-peer='{peer.user_id}']")

    def open_chat(self, peer: Tab) -> None:
        self.chat_item(peer).get_by_role("button").click()
        expect(self.page.locator("#chat-title")).to_have_text(peer.nickname)

    def start_chat(self, peer: Tab) -> None:
        self.page.get_by_role("button", name="New chat").click()
        dialog = self.page.get_by_role("dialog", name="New chat")
        dialog.get_by_label("User ID").fill(peer.user_id)
        dialog.get_by_role("button", name="Start chat").click()
        expect(dialog).to_be_hidden()
        expect(self.page.locator("#chat-title")).to_have_text(peer.nickname)

    def say(self, text: str) -> None:
        box = self.page.get_by_label("Message", exact=True)
        box.fill(text)
        box.press("Enter")

    def expect_connection(self, state: str | re.Pattern[str], timeout: int = DEADLINE_MS) -> None:
        expect(self.page.locator("#connection")).to_have_attribute("data-state", state, timeout=timeout)

    def expect_mark(self, text: str, mark: str | re.Pattern[str], timeout: int = DEADLINE_MS) -> None:
        expect(self.message(text)).to_have_attribute("data-mark", mark, timeout=timeout)

    def expect_unread(self, peer: Tab, count: int) -> None:
        badge = self.chat_item(peer).locator(".badge")
        if count:
            expect(badge).to_be_visible()
            expect(badge.locator(".badge-count")).to_have_text(str(count))
        else:
            expect(badge).to_be_hidden()

    def marks_of(self, text: str) -> list[str]:
        msg_id = self.message(text).get_attribute("data-client-msg-id")
        marks: list[str] = self.page.evaluate("(id) => window.recordedMarks[id]", msg_id)
        return marks


OpenTab = Callable[[str], Tab]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture
def open_tab(browser: Browser, stack: Stack) -> Iterator[OpenTab]:
    """Signs a new user in. At the end no tab may have seen a script error."""
    contexts = []
    errors: list[str] = []

    def open_one(nickname: str) -> Tab:
        context = browser.new_context(viewport={"width": 1100, "height": 700})
        context.set_default_timeout(DEADLINE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.add_init_script(RECORD_MARKS)
        page.goto(stack.web_url)
        user_id = f"{re.sub('[^a-z]', '', nickname.lower())}_{uuid.uuid4().hex[:8]}"
        page.get_by_label("User ID").and_(page.locator("#login-id")).fill(user_id)
        page.get_by_label("Nickname").fill(nickname)
        page.get_by_role("button", name="Continue").click()
        tab = Tab(page, user_id, nickname)
        tab.expect_connection("online")
        return tab

    expect.set_options(timeout=DEADLINE_MS)
    yield open_one
    for context in contexts:
        context.close()
    assert errors == []


def login(stack: Stack, user_id: str) -> str:
    body = json.dumps({"userID": user_id, "nickname": ""}).encode()
    request = urllib.request.Request(  # noqa: S310
        f"{stack.web_url}/demo/login", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310
        token: str = json.load(response)["token"]
        return token


def send_texts(stack: Stack, sender_id: str, recipient_id: str, texts: list[str]) -> None:
    """Another path than the page: a bare socket that sends one message after the other and waits for each answer."""
    query = {
        "sendID": sender_id,
        "token": login(stack, sender_id),
        "platformID": 5,
        "operationID": uuid.uuid4().hex,
        "isBackground": "false",
        "isMsgResp": "true",
        "sdkType": "json",
    }
    with connect(f"{stack.gateway_url.rstrip('/')}/?{urlencode(query)}") as socket:
        assert json.loads(socket.recv(timeout=20))["errCode"] == 0
        for text in texts:
            msg_incr = uuid.uuid4().hex
            data = {
                "sendID": sender_id,
                "recvID": recipient_id,
                "clientMsgID": uuid.uuid4().hex,
                "senderPlatformID": 5,
                "senderNickname": sender_id,
                "sessionType": 1,
                "msgFrom": 100,
                "contentType": 101,
                "content": base64.b64encode(json.dumps({"content": text}).encode()).decode(),
                "createTime": str(time.time_ns() // 1_000_000),
                "status": 1,
            }
            request = {"reqIdentifier": 1003, "sendID": sender_id, "operationID": msg_incr, "msgIncr": msg_incr}
            socket.send(json.dumps({**request, "data": data}))
            answer: dict[str, Any] = {}
            while answer.get("msgIncr") != msg_incr:
                answer = json.loads(socket.recv(timeout=20))
            assert answer["errCode"] == 0, answer


def test_two_tabs_chat_both_ways_with_marks_and_unread_count(open_tab: OpenTab) -> None:
    alice, bob = open_tab("Alice"), open_tab("Bob")

    alice.start_chat(bob)
    alice.say("hello Bob")
    alice.expect_mark("hello Bob", "delivered")
    alice.say("are you there")
    bob.expect_unread(alice, 2)
    alice.expect_mark("are you there", "delivered")
    bob.open_chat(alice)
    expect(bob.message("hello Bob")).to_be_visible()
    bob.expect_unread(alice, 0)
    alice.expect_mark("are you there", "read")
    bob.say("here I am")

    expect(alice.message("here I am")).to_be_visible()
    bob.expect_mark("here I am", "read")
    alice.expect_unread(bob, 0)
    assert alice.marks_of("hello Bob") == ["sending", "sent", "delivered", "read"]
    assert alice.texts() == bob.texts() == ["hello Bob", "are you there", "here I am"]


def test_reload_keeps_history_read_marks_and_unread_count(open_tab: OpenTab) -> None:
    alice, bob, carol = open_tab("Alice"), open_tab("Bob"), open_tab("Carol")
    alice.start_chat(bob)
    alice.say("first")
    bob.open_chat(alice)
    alice.expect_mark("first", "read")
    carol.start_chat(bob)
    carol.say("one")
    carol.say("two")
    bob.expect_unread(carol, 2)

    bob.page.reload()
    alice.page.reload()

    bob.expect_connection("online")
    bob.expect_unread(carol, 2)
    bob.expect_unread(alice, 0)
    alice.expect_connection("online")
    expect(alice.message("first")).to_be_visible()
    alice.expect_mark("first", "read")
    bob.open_chat(carol)
    # The list brings the last message; those before it are pulled now.
    for text in ("two", "one"):
        expect(bob.message(text)).to_be_visible()
    assert bob.texts() == ["one", "two"]
    carol.expect_mark("two", "read")


def test_scrolling_up_loads_older_history(open_tab: OpenTab, stack: Stack) -> None:
    alice = open_tab("Alice")
    sender_id = f"seeder_{uuid.uuid4().hex[:8]}"
    seeder = Tab(alice.page, sender_id, sender_id)
    texts = [f"message {number}" for number in range(1, 81)]

    send_texts(stack, sender_id, alice.user_id, texts)
    alice.page.reload()
    alice.expect_unread(seeder, 80)
    expect(alice.chat_item(seeder).locator(".preview-text")).to_have_text("message 80")
    alice.open_chat(seeder)

    expect(alice.message("message 80")).to_be_in_viewport()
    expect(alice.message("message 51")).to_be_attached()
    expect(alice.message("message 1")).to_have_count(0)
    while "message 1" not in (shown := alice.texts()):
        alice.messages.first.scroll_into_view_if_needed()
        alice.page.locator("#messages").hover()
        alice.page.mouse.wheel(0, -4000)
        expect(alice.messages.nth(len(shown))).to_be_attached()
        assert alice.texts()[-len(shown) :] == shown
    assert alice.texts() == texts


def test_gateway_restart_loses_and_doubles_nothing(open_tab: OpenTab, stack: Stack) -> None:
    alice, bob = open_tab("Alice"), open_tab("Bob")
    alice.start_chat(bob)
    alice.say("before")
    bob.open_chat(alice)
    alice.expect_mark("before", "read")

    stack.kill_gateway()
    alice.expect_connection(WITHOUT_GATEWAY)
    bob.expect_connection(WITHOUT_GATEWAY)
    alice.say("typed offline")
    alice.say("and another")
    alice.expect_mark("typed offline", "sending")
    bob.say("meanwhile")
    # Alice is to come back later than Bob, so that she has something to catch up on.
    expect(alice.page.locator("#connection-shown")).to_have_text(re.compile(r"in ([5-9]|1\d) s"), timeout=RECONNECT_MS)
    stack.start_gateway()
    stack.wait_gateway()
    bob.page.evaluate("dispatchEvent(new Event('online'))")  # the network is back: no waiting for the back-off
    bob.expect_connection("online", RECONNECT_MS)
    bob.expect_mark("meanwhile", DELIVERED_OR_READ)

    alice.expect_connection("online", RECONNECT_MS)
    expect(alice.message("meanwhile")).to_have_count(1)
    alice.expect_mark("typed offline", DELIVERED_OR_READ)
    alice.expect_mark("and another", "read")
    expect(bob.messages).to_have_count(4)
    assert alice.texts() == bob.texts()
    alice.page.reload()
    alice.expect_connection("online")
    expect(alice.messages).to_have_count(4)
    assert alice.texts() == bob.texts()
    assert sorted(alice.texts()) == ["and another", "before", "meanwhile", "typed offline"]
    assert alice.texts().index("typed offline") < alice.texts().index("and another")


def test_lost_answer_is_made_up_for_without_a_second_copy(open_tab: OpenTab) -> None:
    alice, bob = open_tab("Alice"), open_tab("Bob")
    alice.start_chat(bob)
    alice.say("hello")
    alice.expect_mark("hello", "delivered")

    # The request leaves, and with it the connection breaks: whether it arrived, nobody on this side can know.
    alice.page.evaluate(CLOSE_AFTER_NEXT_SEND)
    alice.say("did this arrive")

    alice.expect_connection("online", RECONNECT_MS)
    alice.expect_mark("did this arrive", "delivered")
    bob.expect_unread(alice, 2)
    bob.open_chat(alice)
    alice.expect_mark("did this arrive", "read")
    assert alice.texts() == bob.texts() == ["hello", "did this arrive"]


def test_message_without_an_answer_is_sent_again_under_the_same_id(open_tab: OpenTab) -> None:
    alice, bob = open_tab("Alice"), open_tab("Bob")
    alice.start_chat(bob)
    alice.page.evaluate(SWALLOW_NEXT_SEND)
    alice.say("into the void")
    alice.expect_mark("into the void", "failed")
    msg_id = alice.message("into the void").get_attribute("data-client-msg-id")

    alice.page.reload()
    alice.expect_connection("online")
    alice.open_chat(bob)
    alice.expect_mark("into the void", "failed")
    alice.page.get_by_role("button", name="Retry").click()

    alice.expect_mark("into the void", "delivered")
    bob.open_chat(alice)
    expect(bob.message("into the void")).to_have_attribute("data-client-msg-id", msg_id or "")
    assert alice.texts() == bob.texts() == ["into the void"]


def test_markup_in_a_message_stays_text(open_tab: OpenTab) -> None:
    alice, bob = open_tab("Alice"), open_tab("<b>Bob</b>")
    markup = "<img src=x onerror=\"document.title = 'taken over'\">"

    alice.start_chat(bob)
    alice.say(markup)
    bob.open_chat(alice)

    expect(bob.messages).to_have_count(1)
    assert bob.texts() == [markup]
    assert bob.page.locator("#message-list img").count() == 0


def test_address_may_name_the_user(open_tab: OpenTab, stack: Stack) -> None:
    user_id = f"dora_{uuid.uuid4().hex[:8]}"
    page = open_tab("Alice").page

    page.goto(f"{stack.web_url}/?user={user_id}")

    expect(page.locator("#me-id")).to_have_text(user_id)
    expect(page.locator("#connection")).to_have_attribute("data-state", "online")


def test_sign_in_elsewhere_leads_back_to_the_login_screen(open_tab: OpenTab, stack: Stack) -> None:
    alice = open_tab("Alice")

    send_texts(stack, alice.user_id, alice.user_id, [])

    expect(alice.page.get_by_role("alert").first).to_contain_text("signed in somewhere else")
    expect(alice.page.locator("#login-form")).to_be_visible()
    expect(alice.page.locator("#app")).to_be_hidden()
