"""Dead letters: listed without content, put back whole, dropped; in the store and in the admin."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from pymongo.database import Database

from imserver.admin import dead_letters as admin_module
from imserver.conf import Config
from imserver.constants import WebhookCommand
from imserver.models import Webhook
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.storage import dead_letters, keys, webhooks
from imserver.storage.clients import Document
from imserver.storage.dead_letters import Place
from imserver.storage.logs import DeadLetter, Lease
from tests.factories import make_msg, read_log, snapshot, unique

LIST = "/admin/imserver/deadletter/"
SECRET = "what nobody may read"

Fields = dict[bytes, bytes]


def batch_fields() -> Fields:
    batch = LogBatch(msgs=[make_msg("a", "b", SECRET).SerializeToString()], operation_ids=["op"])
    return {b"c": b"si_a_b", b"s": b"3", b"b": batch.SerializeToString()}


def bury(client: redis.Redis, origin: str, shard: int, fields: Fields, reason: str = "bad") -> Place:
    """A dead letter as the scripts write it."""
    entry: Any = {b"reason": reason.encode(), b"origin": origin.encode(), **fields}
    entry_id: Any = client.xadd(keys.log(keys.DEAD, shard), entry)
    return Place.parse(f"{entry_id.decode()}@{shard:02d}")


def find(client: redis.Redis, place: Place) -> dead_letters.Listed:
    letter = dead_letters.find(client, place)
    assert letter is not None
    return letter


def test_a_letter_of_a_stage_is_listed_with_everything_but_its_content(redis_client: redis.Redis) -> None:
    lease = Lease.acquire(redis_client, "persist", 5)
    assert lease is not None
    fields = batch_fields()
    entry_id: Any = redis_client.xadd(lease.log, fields)  # type: ignore[arg-type]
    lease.trim(redis_client, entry_id, [DeadLetter("not a batch: x", fields)])

    (letter,) = dead_letters.newest(redis_client, 10)

    assert (letter.reason, letter.origin, letter.conversation, letter.place.shard) == (
        "not a batch: x",
        "toMongo",
        "si_a_b",
        5,
    )
    assert letter.bytes_count == sum(map(len, fields.values()))
    assert letter.can_put_back
    assert SECRET not in repr(letter)
    assert dead_letters.count(redis_client) == 1


def test_pages_follow_each_other_over_all_shards_without_loss(redis_client: redis.Redis) -> None:
    for shard, milliseconds in itertools.product((0, 3, 15), (100, 200, 300)):
        for number in range(3):
            entry: Any = {"reason": "r", "origin": "toMongo"}
            redis_client.xadd(keys.log(keys.DEAD, shard), entry, id=f"{milliseconds}-{number}")
    seen: list[Place] = []

    while page := dead_letters.newest(redis_client, 4, seen[-1] if seen else None):
        seen += [letter.place for letter in page]

    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == len(seen) == 27


@pytest.mark.parametrize(
    ("origin", "fields", "stage"),
    [
        ("toRedis", {b"k": b"a_b", b"m": b"\x00msg", b"o": b"op"}, "transfer"),
        ("toMongo", batch_fields(), "persist"),
        ("toPush", batch_fields(), "push"),
        ("toWebhook", {**batch_fields(), b"h": b"after_save"}, "webhook"),
    ],
)
def test_a_letter_is_put_back_with_the_fields_it_had(
    redis_client: redis.Redis, origin: str, fields: Fields, stage: str
) -> None:
    letter = find(redis_client, bury(redis_client, origin, 7, fields))

    result = dead_letters.put_back(redis_client, letter)

    assert (result.done, result.stage_to_wake) == (True, stage)
    assert [entry for _, entry in read_log(redis_client, origin, 7)] == [fields]
    assert read_log(redis_client, keys.DEAD, 7) == []
    assert redis_client.exists(keys.wake(stage, 7))


def test_nobody_is_woken_who_is_at_work(redis_client: redis.Redis) -> None:
    assert Lease.acquire(redis_client, "persist", 7) is not None
    letter = find(redis_client, bury(redis_client, "toMongo", 7, batch_fields()))

    assert dead_letters.put_back(redis_client, letter) == dead_letters.PutBack(done=True)


def test_of_two_who_put_the_same_letter_back_one_succeeds(redis_client: redis.Redis) -> None:
    letter = find(redis_client, bury(redis_client, "toMongo", 7, batch_fields()))

    done = [dead_letters.put_back(redis_client, letter).done for _ in range(2)]

    assert done == [True, False]
    assert len(read_log(redis_client, "toMongo", 7)) == 1
    assert not dead_letters.drop(redis_client, letter)


def test_a_letter_of_an_unknown_log_stays(redis_client: redis.Redis) -> None:
    letter = find(redis_client, bury(redis_client, "dead", 7, batch_fields()))
    before = snapshot(redis_client)

    assert not letter.can_put_back
    assert not dead_letters.put_back(redis_client, letter).done
    assert snapshot(redis_client) == before


def test_a_dropped_letter_is_gone(redis_client: redis.Redis) -> None:
    place = bury(redis_client, "toMongo", 7, batch_fields())

    assert dead_letters.drop(redis_client, find(redis_client, place))

    assert dead_letters.find(redis_client, place) is None
    assert dead_letters.newest(redis_client, 10) == []


@pytest.mark.parametrize(
    "text", ["", "1-1", "1@00", "1-1@16", "1-1@-1", "1-1@0", "x-1@00", "-1-1@00", "1-1@00x", "+@00"]
)
def test_what_is_no_place_is_refused(config: Config, text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Place.parse(text)


# -- the admin


@pytest.fixture(scope="module")
def django_tables() -> None:
    call_command("migrate", verbosity=0, interactive=False)


LogIn = Callable[..., Client]


@pytest.fixture
def log_in(django_tables: None, config: Config) -> LogIn:
    """A browser of a staff user who has these permissions, or of a superuser."""

    def log_in(*permissions: str, is_superuser: bool = False) -> Client:
        user = User.objects.create(username=unique("staff"), is_staff=True, is_superuser=is_superuser)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = Client()
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    published: list[tuple[str, int]] = []
    monkeypatch.setattr(admin_module, "wake", lambda stage, shard: published.append((stage, shard)))
    return published  # type: ignore[return-value]


def test_the_admin_lists_letters_without_what_is_in_them(redis_client: redis.Redis, log_in: LogIn) -> None:
    browser = log_in(is_superuser=True)
    place = bury(redis_client, "toMongo", 5, batch_fields(), reason="<b>broken</b>")

    page = browser.get(LIST).content.decode()
    index = browser.get("/admin/").content.decode()

    assert f'value="{place}"' in page
    assert "&lt;b&gt;broken&lt;/b&gt;" in page
    assert "si_a_b" in page
    assert SECRET not in page
    assert f'href="{LIST}"' in index


def test_an_empty_list_says_so(redis_client: redis.Redis, log_in: LogIn) -> None:
    assert b"There are no dead letters" in log_in(is_superuser=True).get(LIST).content


def test_pages_of_the_admin_lead_to_older_letters(
    redis_client: redis.Redis, log_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_module, "PER_PAGE", 2)
    browser = log_in(is_superuser=True)
    places = [str(bury(redis_client, "toMongo", 5, batch_fields())) for _ in range(3)]

    first = browser.get(LIST).content.decode()
    (older,) = re.findall(r'href="(\?before=[^"]+)"', first)
    second = browser.get(LIST + older).content.decode()

    assert [place for place in places if place in first] == places[1:]
    assert f'value="{places[0]}"' in second
    assert f'value="{places[1]}"' not in second
    assert browser.get(LIST + "?before=nonsense").status_code == 200


def test_putting_back_asks_first_and_then_wakes_the_stage_and_is_logged(
    redis_client: redis.Redis, log_in: LogIn, woken: list[tuple[str, int]]
) -> None:
    browser = log_in("view_deadletter", "change_deadletter")
    letters = [{**batch_fields(), b"s": seq} for seq in (b"1", b"2")]
    places = [str(bury(redis_client, "toMongo", 5, fields)) for fields in letters]
    choice = {"action": "put_back", "selected": places[::-1]}

    question = browser.post(LIST, choice).content.decode()

    assert "Put these back" in question
    assert len(read_log(redis_client, keys.DEAD, 5)) == 2
    answer = browser.post(LIST, {**choice, "answer": "yes"}, follow=True).content.decode()
    assert "Put back: 2." in answer
    assert [fields[b"s"] for _, fields in read_log(redis_client, "toMongo", 5)] == [b"1", b"2"]
    assert woken == [("persist", 5)]
    logged = LogEntry.objects.filter(object_id__in=places)
    assert {entry.change_message for entry in logged} == {"Put back: toMongo si_a_b, bad"}
    assert len(logged) == 2


def test_dropping_asks_first_too(redis_client: redis.Redis, log_in: LogIn, woken: list[tuple[str, int]]) -> None:
    browser = log_in("view_deadletter", "delete_deadletter")
    choice = {"action": "drop", "selected": [str(bury(redis_client, "toMongo", 5, batch_fields()))]}

    assert "cannot be brought back" in browser.post(LIST, choice).content.decode()
    assert dead_letters.count(redis_client) == 1
    answer = browser.post(LIST, {**choice, "answer": "yes"}, follow=True).content.decode()

    assert "Dropped: 1." in answer
    assert dead_letters.count(redis_client) == 0
    assert woken == []
    gone = browser.post(LIST, {**choice, "answer": "yes"}, follow=True).content.decode()
    assert "may be gone" in gone


@pytest.mark.parametrize(
    ("permissions", "action", "status"),
    [
        ((), "", 403),
        (("view_user",), "", 403),
        (("view_deadletter",), "", 200),
        (("view_deadletter",), "put_back", 403),
        (("view_deadletter", "delete_deadletter"), "put_back", 403),
        (("view_deadletter", "change_deadletter"), "drop", 403),
    ],
)
def test_everybody_may_do_what_their_permissions_say(
    redis_client: redis.Redis, log_in: LogIn, permissions: tuple[str, ...], action: str, status: int
) -> None:
    browser = log_in(*permissions)
    place = str(bury(redis_client, "toMongo", 5, batch_fields()))

    choice = {"action": action, "selected": [place], "answer": "yes"}
    answer = browser.post(LIST, choice) if action else browser.get(LIST)

    assert answer.status_code == status
    assert dead_letters.count(redis_client) == 1


def test_who_may_only_look_is_offered_nothing_else(redis_client: redis.Redis, log_in: LogIn) -> None:
    bury(redis_client, "toMongo", 5, batch_fields())

    page = log_in("view_deadletter").get(LIST).content.decode()

    assert "checkbox" not in page
    assert "<select" not in page


def test_strangers_are_sent_to_the_login(redis_client: redis.Redis, django_tables: None) -> None:
    answer = Client().get(LIST)

    assert answer.status_code == 302
    assert "/admin/login/" in answer.headers["Location"]


def test_recent_actions_lead_back_to_the_list(log_in: LogIn) -> None:
    answer = log_in(is_superuser=True).get(f"{LIST}1-1@05/change/")

    assert (answer.status_code, answer.headers["Location"]) == (302, LIST)


# -- settings of webhooks in the admin

GOOD = {
    "command": WebhookCommand.BEFORE_SEND_SINGLE.value,
    "url": " http://app:8080/callback/ ",
    "enable": "on",
    "timeout": "3",
    "fail_open": "on",
    "denied_types": "102, 103",
    "attention_ids": "",
    "retry_minutes": "10",
}


@pytest.fixture
def no_webhooks(django_tables: None) -> Iterator[None]:
    yield
    Webhook.objects.all().delete()


def test_settings_saved_in_the_admin_are_what_the_product_reads(log_in: LogIn, no_webhooks: None) -> None:
    answer = log_in(is_superuser=True).post("/admin/imserver/webhook/add/", GOOD)

    assert answer.status_code == 302, answer.content.decode()
    hook = webhooks.load(django_database()).by_command[GOOD["command"]]
    assert (hook.url, hook.timeout_seconds, hook.fail_open) == ("http://app:8080/callback", 3, True)
    assert (sorted(hook.denied_types), sorted(hook.attention_ids), hook.retry_minutes) == ([102, 103], [], 10)


def django_database() -> Database[Document]:
    """Django's settings were read before the test's own configuration."""
    database: Database[Document] = connection.database  # type: ignore[attr-defined]
    return database


def fields_with_errors(answer: Any) -> set[str]:
    return set(re.findall(r'class="form-row errors field-(\w+)"', answer.content.decode()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "ftp://app/"),
        ("url", "app:8080"),
        ("url", "http://"),
        ("url", "http://app:99999"),
        ("url", "http://app/a b"),
        ("url", "http://app/?a=1"),
        ("timeout", "0"),
        ("timeout", "61"),
        ("retry_minutes", "-1"),
        ("retry_minutes", "1441"),
        ("denied_types", "text"),
        ("attention_ids", "alice"),
        ("command", "callbackNobodyKnows"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_their_field(
    log_in: LogIn, no_webhooks: None, field: str, value: str
) -> None:
    answer = log_in(is_superuser=True).post("/admin/imserver/webhook/add/", {**GOOD, field: value})

    assert answer.status_code == 200
    assert field in fields_with_errors(answer)
    assert Webhook.objects.count() == 0


def test_an_after_hook_cannot_fail_open(log_in: LogIn, no_webhooks: None) -> None:
    form = {**GOOD, "command": WebhookCommand.AFTER_SAVE.value, "attention_ids": "alice"}

    answer = log_in(is_superuser=True).post("/admin/imserver/webhook/add/", form)

    assert fields_with_errors(answer) == {"fail_open"}


def test_a_command_has_one_setting(log_in: LogIn, no_webhooks: None) -> None:
    browser = log_in(is_superuser=True)
    browser.post("/admin/imserver/webhook/add/", GOOD)

    answer = browser.post("/admin/imserver/webhook/add/", GOOD)

    assert fields_with_errors(answer) == {"command"}
