"""Before-online-push hooks: the app server decides who gets a push; the message is stored all the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from pymongo.database import Database

from imserver.conf import Config
from imserver.constants import ContentType, Option, SessionType, WebhookCommand
from imserver.storage import keys, webhooks
from imserver.storage.clients import Document
from imserver.webhooks import breaker, policy
from tasks.push import hooks
from tasks.push.online import OnlinePush
from tasks.transfer import Transfer
from tests.app_server import AppServer, Reply
from tests.factories import add_entries, make_msg, read_log, reconfigure, run_stage
from tests.node_probe import MakeNode, NodeProbe

SHARD = 0


@pytest.fixture(autouse=True)
def one_shard(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    reconfigure(monkeypatch, shards=1, lease_ms=60_000)


@pytest.fixture
def app() -> Iterator[AppServer]:
    with AppServer() as running:
        yield running


@pytest.fixture
def node(make_node: MakeNode) -> NodeProbe:
    """Where a, b and c are connected."""
    probe = make_node()
    for user in ("a", "b", "c"):
        probe.connect(user)
    return probe


def switch_on(database: Database[Document], command: str, url: str, **settings: Any) -> None:
    document = {"command": command, "url": url, "enable": True, "timeout": 5, **settings}
    database[webhooks.COLLECTION].replace_one({"command": command}, document, upsert=True)
    webhooks.forget()


def says(**answer: Any) -> Reply:
    return Reply(200, {"actionCode": 0, "errCode": 0, "errMsg": "", "errDlt": "", "nextCode": 0, **answer})


def push(client: redis.Redis, recv_id: str = "b", **fields: Any) -> None:
    """One message of a, through a transfer that would push by itself, and the push stage."""
    add_entries(client, [make_msg("a", recv_id, **fields)])
    stage = Transfer(pushes=True)
    run_stage(client, stage, SHARD)
    run_stage(client, OnlinePush(), SHARD)
    assert read_log(client, keys.TO_PUSH, SHARD) == []


def users_pushed(node: NodeProbe) -> list[list[str]]:
    return [users for _, _, users in node.pushed()]


def test_a_hook_is_asked_with_the_receivers_and_may_leave_them(
    redis_client: redis.Redis, database: Database[Document], app: AppServer, node: NodeProbe
) -> None:
    switch_on(database, WebhookCommand.BEFORE_ONLINE_PUSH, app.url)

    push(redis_client, senderPlatformID=1)

    (call,) = app.calls
    assert call.body["userIDList"] == ["b", "a"]
    assert (call.body["sendID"], call.body["platform"]) == ("a", "IOS")
    assert call.body["callbackCommand"] == WebhookCommand.BEFORE_ONLINE_PUSH
    assert users_pushed(node) == [["a", "b"]]


def test_the_answers_list_replaces_the_receivers(
    redis_client: redis.Redis, database: Database[Document], app: AppServer, node: NodeProbe
) -> None:
    switch_on(database, WebhookCommand.BEFORE_ONLINE_PUSH, app.url)
    app.reply = lambda _call: says(userIDList=["c"])

    push(redis_client)

    assert users_pushed(node) == [["c"]]


@pytest.mark.parametrize(
    ("reply", "fail_open", "expected"),
    [
        (says(nextCode=1), False, []),
        (Reply(500, {}), False, []),
        (Reply(500, {}), True, [["a", "b"]]),
        (says(userIDList="b"), False, []),
    ],
)
def test_a_refusal_or_a_failure_stops_the_push_and_failing_open_does_not(
    reply: Reply,
    fail_open: bool,
    expected: list[list[str]],
    redis_client: redis.Redis,
    database: Database[Document],
    app: AppServer,
    node: NodeProbe,
) -> None:
    switch_on(database, WebhookCommand.BEFORE_ONLINE_PUSH, app.url, fail_open=fail_open)
    app.reply = lambda _call: reply

    push(redis_client)

    assert users_pushed(node) == expected
    assert len(read_log(redis_client, keys.TO_MONGO, SHARD)) == 1


@pytest.mark.parametrize("is_open", [False, True])
def test_a_hook_that_hangs_costs_its_timeout_once_and_then_holds_up_no_push(
    redis_client: redis.Redis,
    database: Database[Document],
    app: AppServer,
    node: NodeProbe,
    monkeypatch: pytest.MonkeyPatch,
    is_open: bool,
) -> None:
    monkeypatch.setattr(breaker, "BACKOFF_FIRST_SECONDS", 60)
    monkeypatch.setattr(policy, "LONGEST_PAUSE_SECONDS", 60)
    switch_on(database, WebhookCommand.BEFORE_ONLINE_PUSH, app.url, timeout=1, fail_open=is_open)
    app.reply = lambda _call: (app.stopping.wait(20), Reply())[1]
    add_entries(redis_client, [make_msg("a", f"u{number}") for number in range(100)])
    run_stage(redis_client, Transfer(pushes=True), SHARD)
    stage = OnlinePush()

    while read_log(redis_client, keys.TO_PUSH, SHARD):
        run_stage(redis_client, stage, SHARD)

    # Those that were under way, and those let in by a failure before the one that is one too many.
    assert len(app.calls) < hooks.MOST_CALLS + policy.PATIENCE_CALLS
    assert len(node.pushed()) == (100 if is_open else 0)


def test_typing_and_refused_content_types_are_not_asked_about(
    redis_client: redis.Redis, database: Database[Document], app: AppServer, node: NodeProbe
) -> None:
    switch_on(database, WebhookCommand.BEFORE_ONLINE_PUSH, app.url, denied_types=[int(ContentType.PICTURE)])

    push(redis_client, contentType=ContentType.TYPING, options={Option.HISTORY: False})
    push(redis_client, contentType=ContentType.PICTURE)

    assert app.calls == []
    assert len(users_pushed(node)) == 2


def test_a_group_has_a_hook_of_its_own_that_may_name_the_receivers(
    redis_client: redis.Redis, database: Database[Document], app: AppServer, node: NodeProbe
) -> None:
    switch_on(database, WebhookCommand.BEFORE_GROUP_ONLINE_PUSH, app.url)
    app.reply = lambda _call: says(userIDList=["b"])

    push(redis_client, "", groupID="g1", sessionType=SessionType.GROUP)

    (call,) = app.calls
    assert (call.body["groupID"], call.body["seq"]) == ("g1", 1)
    assert users_pushed(node) == [["b"]]
