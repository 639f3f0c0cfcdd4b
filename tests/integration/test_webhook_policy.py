"""Before hooks against a real app server: refuse, change, fail open or closed, and the cost of none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import wait as wait_for
from typing import Any

import pytest
from pymongo.database import Database
from pymongo.errors import ServerSelectionTimeoutError

from imserver.conf import Config
from imserver.constants import SessionType, WebhookCommand
from imserver.errors import DatabaseUnavailable, IMError, WebhookAnswerInvalid, WebhookRefused, WebhookUnreachable
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import webhooks
from imserver.storage.clients import Document
from imserver.storage.webhooks import AFTER_KINDS, Hooks
from imserver.webhooks import breaker, policy
from imserver.webhooks.client import close_client
from imserver.webhooks.policy import PATIENCE_CALLS, before_send
from tests.app_server import AppServer, Reply
from tests.factories import make_msg

SINGLE = WebhookCommand.BEFORE_SEND_SINGLE
GROUP = WebhookCommand.BEFORE_SEND_GROUP
MODIFY = WebhookCommand.BEFORE_MODIFY


@pytest.fixture
def app() -> Iterator[AppServer]:
    with AppServer() as running:
        yield running


@pytest.fixture(autouse=True)
async def own_connections(config: Config) -> AsyncIterator[None]:
    yield
    await close_client()


def switch_on(database: Database[Document], command: str, url: str, **settings: Any) -> None:
    document = {"command": command, "url": url, "enable": True, "timeout": 5, **settings}
    database[webhooks.COLLECTION].replace_one({"command": command}, document, upsert=True)
    webhooks.forget()


def says(**answer: Any) -> Reply:
    return Reply(200, {"actionCode": 0, "errCode": 0, "errMsg": "", "errDlt": "", "nextCode": 0, **answer})


async def test_a_hook_that_goes_on_leaves_the_message_as_it_is(database: Database[Document], app: AppServer) -> None:
    switch_on(database, SINGLE, app.url)
    switch_on(database, MODIFY, app.url)
    msg = make_msg("a", "b")
    before = MsgData.FromString(msg.SerializeToString())

    assert await before_send(msg, "op-7") is False

    assert msg == before
    assert [call.command for call in app.calls] == [SINGLE, MODIFY]
    assert [call.operation_id for call in app.calls] == ["op-7", "op-7"]
    assert app.calls[0].body["recvID"] == "b"


async def test_single_chats_and_groups_have_a_hook_each(database: Database[Document], app: AppServer) -> None:
    switch_on(database, SINGLE, app.url)
    switch_on(database, GROUP, app.url)

    await before_send(make_msg("a", "", sessionType=SessionType.GROUP, groupID="g"), "op")

    (call,) = app.calls
    assert (call.command, call.body["groupID"]) == (GROUP, "g")


@pytest.mark.parametrize(
    ("answer", "code", "name", "detail"),
    [
        ({"errCode": 5001, "errMsg": "rude", "errDlt": "mind your tongue"}, 5001, "rude", "mind your tongue"),
        ({}, 80000, "CallbackError", ""),
        ({"errCode": None, "errMsg": None}, 80000, "CallbackError", ""),
    ],
)
async def test_a_refusal_carries_the_hooks_code_and_words(
    database: Database[Document], app: AppServer, answer: dict[str, Any], code: int, name: str, detail: str
) -> None:
    switch_on(database, SINGLE, app.url, fail_open=True)
    switch_on(database, MODIFY, app.url)
    app.reply = lambda _call: says(nextCode=1, **answer)

    with pytest.raises(WebhookRefused) as refused:
        await before_send(make_msg("a", "b"), "op")

    assert (refused.value.code, refused.value.name, refused.value.detail) == (code, name, detail)
    assert [call.command for call in app.calls] == [SINGLE]
    assert (WebhookRefused.code, WebhookRefused.name) == (80000, "CallbackError")


@pytest.mark.parametrize("answer", [{"nextCode": 0, "errCode": 5}, {"nextCode": 1, "actionCode": 1}, {"nextCode": 2}])
async def test_only_action_0_with_next_1_refuses(
    database: Database[Document], app: AppServer, answer: dict[str, Any]
) -> None:
    switch_on(database, SINGLE, app.url)
    app.reply = lambda _call: says(**answer)

    assert await before_send(make_msg("a", "b"), "op") is False


async def test_names_in_an_answer_match_in_any_case_as_in_go(database: Database[Document], app: AppServer) -> None:
    switch_on(database, SINGLE, app.url)
    app.reply = lambda _call: Reply(200, {"NextCode": 1, "ERRCODE": 7})

    with pytest.raises(WebhookRefused) as refused:
        await before_send(make_msg("a", "b"), "op")

    assert refused.value.code == 7


async def test_before_modify_changes_the_message_in_place(database: Database[Document], app: AppServer) -> None:
    switch_on(database, MODIFY, app.url)
    app.reply = lambda _call: says(content='{"content":"***"}', ex="checked", recvID=None)
    msg = make_msg("a", "b", "damn")

    assert await before_send(msg, "op") is True

    assert (msg.content, msg.ex, msg.recvID) == (b'{"content":"***"}', "checked", "b")


async def test_an_answer_that_says_what_is_there_already_is_no_change(
    database: Database[Document], app: AppServer
) -> None:
    switch_on(database, MODIFY, app.url)
    msg = make_msg("a", "b")
    app.reply = lambda _call: says(content=msg.content.decode(), recvID="b")

    assert await before_send(msg, "op") is False


async def test_before_modify_may_refuse_too(database: Database[Document], app: AppServer) -> None:
    switch_on(database, MODIFY, app.url)
    app.reply = lambda _call: says(nextCode=1, errCode=12, content='{"content":"***"}')
    msg = make_msg("a", "b", "damn")

    with pytest.raises(WebhookRefused):
        await before_send(msg, "op")

    assert b"damn" in msg.content


FAILURES = [
    (Reply(500), WebhookUnreachable),
    (Reply(404), WebhookUnreachable),
    (Reply(302), WebhookUnreachable),
    (Reply(200, b"<html>"), WebhookAnswerInvalid),
    (Reply(200, b"[]"), WebhookAnswerInvalid),
    (Reply(200, b""), WebhookAnswerInvalid),
    (Reply(200, {"nextCode": "1"}), WebhookAnswerInvalid),
    (Reply(200, {"errMsg": 5}), WebhookAnswerInvalid),
    (Reply(200, {"errCode": 1 << 40}), WebhookAnswerInvalid),
]


@pytest.mark.parametrize(("reply", "error"), FAILURES)
async def test_an_answer_that_cannot_be_used_refuses_unless_the_hook_fails_open(
    database: Database[Document], app: AppServer, reply: Reply, error: type[IMError]
) -> None:
    app.reply = lambda _call: reply
    switch_on(database, SINGLE, app.url)
    with pytest.raises(error) as refused:
        await before_send(make_msg("a", "b"), "op")
    assert refused.value.code == {WebhookUnreachable: 90004, WebhookAnswerInvalid: 90007}[error]

    switch_on(database, SINGLE, app.url, fail_open=True)

    assert await before_send(make_msg("a", "b"), "op") is False


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_change_that_does_not_fit_counts_as_a_bad_answer(
    database: Database[Document], app: AppServer, is_open: bool
) -> None:
    switch_on(database, MODIFY, app.url, fail_open=is_open)
    app.reply = lambda _call: says(content="not json", ex="changed")
    msg = make_msg("a", "b")

    if is_open:
        assert await before_send(msg, "op") is False
    else:
        with pytest.raises(WebhookAnswerInvalid):
            await before_send(msg, "op")

    assert msg.ex == ""


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_hook_that_is_away_or_silent_is_given_up_after_its_timeout(
    database: Database[Document], app: AppServer, is_open: bool
) -> None:
    switch_on(database, SINGLE, AppServer().url, fail_open=True)
    switch_on(database, MODIFY, app.url, timeout=2, fail_open=is_open)
    app.reply = lambda _call: (app.stopping.wait(20), Reply())[1]

    if is_open:
        assert await before_send(make_msg("a", "b"), "op") is False
    else:
        with pytest.raises(WebhookUnreachable, match="no answer within 2 s"):
            await before_send(make_msg("a", "b"), "op")

    assert len(app.calls) <= 1


async def passes(text: str = "hi") -> bool:
    """Whether a message may be sent although, or because, the hook did not say a word."""
    try:
        await before_send(make_msg("a", "b", text), "op")
    except WebhookUnreachable:
        return False
    return True


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_hook_that_stays_silent_soon_costs_nobody_its_timeout(
    database: Database[Document], app: AppServer, monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    monkeypatch.setattr(breaker, "BACKOFF_FIRST_SECONDS", 60)
    monkeypatch.setattr(policy, "LONGEST_PAUSE_SECONDS", 60)
    switch_on(database, SINGLE, app.url, timeout=0.5, fail_open=is_open)
    app.reply = lambda _call: (app.stopping.wait(20), Reply())[1]

    outcomes = [await passes() for _ in range(30)]

    assert outcomes == [is_open] * 30
    # A call may be given up before it left.
    assert 0 < len(app.calls) <= PATIENCE_CALLS


async def test_after_a_pause_one_call_asks_whether_a_silent_hook_is_back_and_nobody_waits_for_it(
    database: Database[Document], app: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "BACKOFF_FIRST_SECONDS", 0.05)
    released = threading.Event()
    switch_on(database, SINGLE, app.url, timeout=20)
    app.reply = lambda _call: None
    for _ in range(PATIENCE_CALLS):
        assert not await passes()
    heard = len(app.calls)
    app.reply = lambda _call: (released.wait(20), Reply())[1]

    tries: list[asyncio.Future[bool]] = []
    async with asyncio.timeout(20):
        while len(app.calls) == heard:
            tries.append(asyncio.ensure_future(passes()))
            await asyncio.wait(tries[-1:], timeout=0.2)
        assert [await passes() for _ in range(10)] == [False] * 10
        released.set()
        # The one that asked.
        assert sum(await asyncio.gather(*tries)) == 1

        assert [await passes() for _ in range(10)] == [True] * 10

    assert len(app.calls) == heard + 1 + 10


async def test_a_message_that_silences_the_hook_does_not_speak_for_the_others(
    database: Database[Document], app: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "BACKOFF_FIRST_SECONDS", 60)
    switch_on(database, SINGLE, app.url)
    app.reply = lambda call: None if call.text == "indigestible" else Reply()

    outcomes = [await passes(text) for text in ("indigestible", "indigestible", "hi") * 2]

    assert outcomes == [False, False, True] * 2


async def test_a_new_address_is_asked_at_once(
    database: Database[Document], app: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "BACKOFF_FIRST_SECONDS", 60)
    switch_on(database, SINGLE, AppServer().url)
    assert [await passes() for _ in range(PATIENCE_CALLS + 1)] == [False] * (PATIENCE_CALLS + 1)

    switch_on(database, SINGLE, app.url)

    assert await passes()


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({"contentType": 113}, {}),
        ({"contentType": 2200}, {}),
        ({"contentType": 1400, "sessionType": 4}, {}),
        ({"contentType": 101}, {"denied_types": [101, 102]}),
        ({"contentType": 101}, {"enable": False}),
    ],
)
async def test_what_a_hook_is_not_for_is_not_sent_to_it(
    database: Database[Document], app: AppServer, fields: dict[str, Any], settings: dict[str, Any]
) -> None:
    switch_on(database, SINGLE, app.url, **settings)
    switch_on(database, MODIFY, app.url, **settings)

    assert await before_send(make_msg("a", "b", **fields), "op") is False

    assert app.calls == []


@pytest.mark.parametrize("operation_id", ["", "op 1", "äö漢", "a\r\nX-Evil: 1", "\x00"])
async def test_any_operation_id_of_a_client_can_be_passed_on(
    database: Database[Document], app: AppServer, operation_id: str
) -> None:
    switch_on(database, SINGLE, app.url)

    await before_send(make_msg("a", "b"), operation_id)

    (call,) = app.calls
    assert call.body["operationID"] == operation_id


async def test_a_kept_connection_that_the_app_server_drops_is_not_noticed(
    database: Database[Document], app: AppServer
) -> None:
    switch_on(database, SINGLE, app.url)
    await before_send(make_msg("a", "b"), "op")
    app.reply = lambda _call: None if len(app.calls) == 2 else Reply()

    await before_send(make_msg("a", "b"), "op")

    assert len(app.calls) == 3
    assert app.calls[0].connection == app.calls[1].connection != app.calls[2].connection


async def test_an_app_server_that_only_hangs_up_is_asked_twice(database: Database[Document], app: AppServer) -> None:
    switch_on(database, SINGLE, app.url)
    app.reply = lambda _call: None

    with pytest.raises(WebhookUnreachable, match="not reachable: RemoteProtocolError"):
        await before_send(make_msg("a", "b"), "op")

    assert len(app.calls) == 2


async def test_an_address_that_is_none_refuses(database: Database[Document]) -> None:
    switch_on(database, SINGLE, "")

    with pytest.raises(WebhookUnreachable):
        await before_send(make_msg("a", "b"), "op")


# -- settings


async def test_without_hooks_nothing_is_waited_for(
    database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RELOAD_AFTER_SECONDS", "STALE_AFTER_SECONDS"):
        monkeypatch.setattr(webhooks, name, 60)
    await before_send(make_msg("a", "b"), "op")

    with pytest.raises(StopIteration) as ended:
        before_send(make_msg("a", "b"), "op").send(None)

    assert ended.value.value is False


async def test_settings_that_were_never_read_refuse_and_let_after_hooks_through(
    database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    webhooks.forget()
    monkeypatch.setattr(webhooks, "load", fail)

    with pytest.raises(DatabaseUnavailable):
        await before_send(make_msg("a", "b"), "op")

    assert webhooks.enabled_after_kinds(database) == AFTER_KINDS


async def test_while_mongodb_is_away_the_last_settings_stay_in_force(
    database: Database[Document], app: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_on(database, SINGLE, app.url)
    await before_send(make_msg("a", "b"), "op")
    monkeypatch.setattr(webhooks, "RELOAD_AFTER_SECONDS", 0)
    monkeypatch.setattr(webhooks, "STALE_AFTER_SECONDS", 0)
    monkeypatch.setattr(webhooks, "load", fail)

    for _ in range(3):
        await before_send(make_msg("a", "b"), "op")

    assert len(app.calls) == 4


async def test_a_mongodb_that_hangs_is_waited_for_once_and_shortly(
    database: Database[Document], app: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_on(database, SINGLE, app.url)
    await before_send(make_msg("a", "b"), "op")
    released = threading.Event()
    waits = []

    def hang(_database: Database[Document]) -> Hooks:
        waits.append(released.wait(20))
        return Hooks()

    monkeypatch.setattr(webhooks, "RELOAD_AFTER_SECONDS", 0)
    monkeypatch.setattr(webhooks, "STALE_AFTER_SECONDS", 0)
    monkeypatch.setattr(webhooks, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(webhooks, "load", hang)

    for _ in range(5):
        await before_send(make_msg("a", "b"), "op")

    assert len(app.calls) == 6
    assert waits == []
    released.set()


def test_a_load_that_began_long_ago_is_not_waited_for(
    database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_on(database, SINGLE, "http://app")
    cache = webhooks.get_cache(database)
    cache.get()
    released, waits = threading.Event(), []

    def hang(_database: Database[Document]) -> Hooks:
        released.wait(20)
        return Hooks()

    def wait(futures: list[Any], timeout: float) -> Any:
        waits.append(timeout)
        return wait_for(futures, timeout)

    monkeypatch.setattr(webhooks, "load", hang)
    monkeypatch.setattr(webhooks, "RELOAD_AFTER_SECONDS", 0)
    monkeypatch.setattr(webhooks, "PATIENCE_SECONDS", 0)
    cache.recent()  # begins to load, as a busy process does a second before it must

    monkeypatch.setattr(webhooks, "STALE_AFTER_SECONDS", 0)
    monkeypatch.setattr(webhooks, "wait_for", wait)

    assert set(cache.get().by_command) == {SINGLE}
    assert waits == [0]
    released.set()


def fail(_database: Database[Document]) -> Hooks:
    raise ServerSelectionTimeoutError("away")
