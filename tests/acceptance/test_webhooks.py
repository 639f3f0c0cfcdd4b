"""Webhooks through the real processes: an app server that refuses, changes, listens, fails and comes back."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from imserver.constants import WebhookCommand
from imserver.devservices.servers import EmbeddedServers
from imserver.protocol.conversations import single_conversation_id
from imserver.storage import keys
from imserver.storage.webhooks import COLLECTION
from tests.app_server import AppServer, Call, Reply
from tests.client import Api, Client, Connect, RequestRefused, text_message, text_of
from tests.stack import Stack, wait_until

pytestmark = pytest.mark.acceptance

BEFORE_GROUP = WebhookCommand.BEFORE_SEND_GROUP
BEFORE_SINGLE = WebhookCommand.BEFORE_SEND_SINGLE
MODIFY = WebhookCommand.BEFORE_MODIFY
AFTER_GROUP = WebhookCommand.AFTER_SEND_GROUP
AFTER_SINGLE = WebhookCommand.AFTER_SEND_SINGLE
SAVE = WebhookCommand.AFTER_SAVE

SwitchOn = Callable[..., None]


@pytest.fixture(scope="module")
def stack(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Not the one that other tests share: a hook concerns every message, and for two seconds after it was switched off."""
    with Stack(servers, tmp_path_factory.mktemp("hooked")) as running:
        yield running


@pytest.fixture(scope="module")
def app_server() -> Iterator[AppServer]:
    with AppServer() as running:
        yield running


@pytest.fixture
def app(app_server: AppServer) -> Iterator[AppServer]:
    """One app server, at an address of the test's own: processes learn of new settings within two seconds."""
    app_server.path = f"/{secrets.token_hex(4)}"
    app_server.calls.clear()
    yield app_server
    app_server.reply = lambda _call: Reply()
    app_server.stop()
    app_server.start()


@pytest.fixture
def switch_on(stack: Stack, app: AppServer) -> Iterator[SwitchOn]:
    """Settings for one test."""
    yield lambda command, **settings: set_hook(stack, command, app.url, **settings)
    stack.database[COLLECTION].delete_many({})


def set_hook(stack: Stack, command: str, url: str, **settings: Any) -> None:
    document = {"command": command, "url": url, "enable": True, "timeout": 5, **settings}
    stack.database[COLLECTION].replace_one({"command": command}, document, upsert=True)


async def refused_code(client: Client, receiver: str, text: str) -> int:
    """Code of the refusal, 0 when the message was taken."""
    try:
        await client.send_text(receiver, text)
    except RequestRefused as refused:
        return refused.code
    return 0


async def until_in_force(app: AppServer, client: Client, receiver: str, *commands: str) -> int:
    """Send until all these hooks were called; returns how many messages that took."""
    for count in itertools.count():
        if {call.command for call in app.calls} >= set(commands):
            return count
        await client.send_text(receiver, "warm up")
        await asyncio.to_thread(app.until_change, 0.1)
    raise AssertionError


async def test_a_before_hook_refuses_with_its_own_code_and_the_receiver_gets_nothing(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str], app: AppServer, switch_on: SwitchOn
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    sender, receiver = await connect(alice), await connect(bob)
    app.reply = lambda call: Reply(
        200,
        {"actionCode": 0, "errCode": 5001, "errMsg": "Rude", "errDlt": "", "nextCode": int("rude" in call.text)},
    )
    switch_on(BEFORE_SINGLE)
    await until_in_force(app, sender, bob, BEFORE_SINGLE)

    code = await refused_code(sender, bob, "rude word")
    await sender.send_text(bob, "kind word")

    assert code == 5001
    await receiver.until(
        lambda: text_of(receiver.chat_with(alice)[-1]) == "kind word" if receiver.chat_with(alice) else 0
    )
    assert "rude word" not in [text_of(msg) for msg in receiver.chat_with(alice)]
    heard = next(call for call in app.calls if call.text == "rude word")
    assert (heard.body["sendID"], heard.body["recvID"], heard.body["seq"]) == (alice, bob, 0)
    assert heard.body["serverMsgID"]
    assert heard.body["sendTime"] > 0


async def test_a_changed_message_is_what_the_receiver_gets_and_the_sender_is_told(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str], app: AppServer, switch_on: SwitchOn
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    sender, receiver = await connect(alice), await connect(bob)
    app.reply = lambda call: Reply(
        200, {"nextCode": 0, **({"content": '{"content":"d***"}', "ex": "checked"} if call.text == "damn" else {})}
    )
    switch_on(MODIFY)
    await until_in_force(app, sender, bob, MODIFY)

    answer = await sender.send_text(bob, "damn")
    body = {"sendID": alice, "recvID": bob, "sessionType": 1, "contentType": 101, "content": {"content": "damn"}}
    by_rest = await api.call("/msg/send_msg", body)
    untouched = await sender.send_text(bob, "fine")

    assert by_rest["modify"]["ex"] == "checked"
    assert by_rest["modify"]["serverMsgID"] == by_rest["serverMsgID"]
    assert answer.HasField("modify")
    assert (text_of(answer.modify), answer.modify.ex) == ("d***", "checked")
    assert not untouched.HasField("modify")
    await receiver.until(lambda: [text_of(msg) for msg in receiver.chat_with(alice)][-3:] == ["d***", "d***", "fine"])
    assert receiver.chat_with(alice)[-3].serverMsgID == answer.serverMsgID


async def test_what_the_app_server_sends_in_a_users_name_is_asked_about_too(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str], app: AppServer, switch_on: SwitchOn
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    app.reply = lambda _call: Reply(200, {"nextCode": 1, "errCode": 77, "errMsg": "No", "errDlt": "because"})
    switch_on(BEFORE_SINGLE)
    body = {"sendID": alice, "recvID": bob, "senderPlatformID": 10, "sessionType": 1, "contentType": 101}
    body["content"] = {"content": "from the app"}

    answer = await api.post("/msg/send_msg", body)
    while not app.calls:
        answer = await api.post("/msg/send_msg", body)

    assert (answer["errCode"], answer["errMsg"], answer["errDlt"]) == (77, "No", "because")


@pytest.mark.parametrize(("is_open", "code"), [(False, 90004), (True, 0)])
async def test_a_before_hook_that_is_away_holds_messages_up_only_when_it_is_to(
    stack: Stack,
    api: Api,
    connect: Connect,
    names: Iterator[str],
    app: AppServer,
    switch_on: SwitchOn,
    is_open: bool,
    code: int,
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    sender = await connect(alice)
    switch_on(BEFORE_SINGLE, fail_open=is_open)
    await until_in_force(app, sender, bob, BEFORE_SINGLE)
    app.stop()

    assert await refused_code(sender, bob, "anybody there?") == code


async def test_after_hooks_are_called_in_order_with_seqs_and_after_the_store_has_it(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str], app: AppServer, switch_on: SwitchOn
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    sender = await connect(alice)
    stored: list[bool] = []

    def reply(call: Call) -> Reply:
        if call.command == SAVE:
            found = stack.database["msg"].find_one({"msgs.msg.server_msg_id": call.body["serverMsgID"]})
            stored.append(found is not None)
        return Reply()

    app.reply = reply
    switch_on(AFTER_SINGLE)
    switch_on(SAVE)
    texts = [str(number) for number in range(40)]
    first = await until_in_force(app, sender, bob, AFTER_SINGLE, SAVE)

    for text in texts:
        await sender.send_text(bob, text)
    app.until(lambda: all(app.texts(command)[-1:] == ["39"] for command in (AFTER_SINGLE, SAVE)), "both hooks")

    for command in (AFTER_SINGLE, SAVE):
        assert app.texts(command)[-40:] == texts
        seqs = [call.body["seq"] for call in app.calls if call.command == command]
        assert seqs[-40:] == list(range(first + 1, first + 41))
        assert seqs == sorted(seqs)
    assert all(stored)


async def test_after_hooks_survive_a_dead_app_server_and_a_killed_worker(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str], app: AppServer, switch_on: SwitchOn
) -> None:
    alice, bob, carol, dave = next(names), next(names), next(names), next(names)
    await api.register(alice, bob, carol, dave)
    sender = await connect(alice)
    app.stop()
    switch_on(AFTER_SINGLE)
    async with asyncio.timeout(30):
        # Until the worker has read the settings anew.
        while not stack.redis.keys(f"{stack.prefix}WEBHOOK_WAIT:*"):
            await sender.send_text(dave, "probe")
            await asyncio.sleep(0.05)
    for number in range(10):
        await sender.send_text(bob, f"b{number}")
        await sender.send_text(carol, f"c{number}")
    stack.kill_worker()
    for number in range(10, 15):
        await sender.send_text(bob, f"b{number}")
        await sender.send_text(carol, f"c{number}")
    app.start()
    stack.start_worker()
    app.until(lambda: len(set(app.texts()) - {"probe"}) == 30, "all of them", 60)

    for receiver, letter in ((bob, "b"), (carol, "c")):
        heard = [call.text for call in app.calls if call.body["recvID"] == receiver]
        assert list(dict.fromkeys(heard)) == [f"{letter}{number}" for number in range(15)]


async def test_a_hook_that_fails_for_one_chat_is_in_time_for_another(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str], app: AppServer, switch_on: SwitchOn
) -> None:
    alice, bob, carol = next(names), next(names), next(names)
    await api.register(alice, bob, carol)
    sender = await connect(alice)
    broken = True
    app.reply = lambda call: Reply(500 if broken and call.body["recvID"] == bob else 200)
    switch_on(AFTER_SINGLE)
    await until_in_force(app, sender, carol, AFTER_SINGLE)

    for number in range(5):
        await sender.send_text(bob, f"b{number}")
        await sender.send_text(carol, f"c{number}")

    app.until(lambda: {"c4", "b0"} <= set(app.texts()), "the healthy chat")
    assert {text for text in app.texts() if text.startswith("b")} == {"b0"}
    broken = False
    app.until(lambda: "b4" in app.texts(), "the chat that failed")
    assert [text for text in dict.fromkeys(app.texts()) if text.startswith("b")] == [
        f"b{number}" for number in range(5)
    ]


async def test_a_rejected_call_is_a_dead_letter_and_holds_up_nothing(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str], app: AppServer, switch_on: SwitchOn
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    sender = await connect(alice)
    app.reply = lambda call: Reply(410 if call.text == "unwanted" else 200)
    switch_on(AFTER_SINGLE)
    await until_in_force(app, sender, bob, AFTER_SINGLE)

    await sender.send_text(bob, "unwanted")
    await sender.send_text(bob, "wanted")

    app.until(lambda: "wanted" in app.texts(), "the next message")
    conversation_id = single_conversation_id(alice, bob).encode()

    def letters() -> list[dict[bytes, bytes]]:
        client: Any = stack.redis
        found = client.scan_iter(match=f"{stack.prefix}log:{keys.DEAD}:*")
        entries = (entry for key in found for entry in client.xrange(key))
        return [fields for _, fields in entries if fields.get(b"c") == conversation_id]

    wait_until(letters, "the dead letter")
    assert letters()[0][b"reason"] == f"{AFTER_SINGLE} answered HTTP 410".encode()


async def test_typing_goes_to_no_hook(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str], app: AppServer, switch_on: SwitchOn
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    sender = await connect(alice)
    for command in WebhookCommand:
        switch_on(command)
    not_of_single_chats = {BEFORE_GROUP, AFTER_GROUP, WebhookCommand.BEFORE_GROUP_ONLINE_PUSH}
    # No vendor is set.
    never = {*not_of_single_chats, WebhookCommand.BEFORE_OFFLINE_PUSH}
    await until_in_force(app, sender, bob, *set(WebhookCommand) - never)
    typing = text_message(alice, bob, "")
    typing.contentType = 113

    await sender.send_msg(typing)
    await sender.send_text(bob, "said")

    app.until(lambda: "said" in app.texts(SAVE) and "said" in app.texts(AFTER_SINGLE), "the message behind it")
    assert {call.body["contentType"] for call in app.calls} == {101}
