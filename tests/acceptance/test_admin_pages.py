"""The operators' pages: users and conversations with their figures, stored messages to read, nothing to make or remove."""

from __future__ import annotations

import html
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from imserver.conf import BASE_DIR
from imserver.protocol.conversations import single_conversation_id
from tests.client import Api
from tests.stack import Stack, wait_until

pytestmark = pytest.mark.acceptance

USERS = "/admin/imserver/user/"
CONVERSATIONS = "/admin/imserver/conversation/"
PASSWORD = "not-a-common-one-7"
MARKUP = "<script>document.title = 'taken over'</script><b>bold</b>"
MSGS_PER_PAGE = 100
#: Between sending and what the page says, which has whole seconds.
SLACK_SECONDS = 60


class Site:
    """A browser that is logged in, or is not."""

    def __init__(self, web_url: str) -> None:
        self.http = httpx.Client(base_url=web_url, timeout=20, verify=False)  # noqa: S501  (no TLS here)

    def get(self, path: str, **query: object) -> httpx.Response:
        return self.http.get(f"{path}?{urlencode(query)}" if query else path)

    def page(self, path: str, **query: object) -> str:
        answer = self.get(path, **query)
        assert answer.status_code == 200, f"{path} answered {answer.status_code}"
        return answer.text

    def post(self, path: str, form: dict[str, Any]) -> httpx.Response:
        token = self.http.cookies.get("csrftoken") or ""
        return self.http.post(
            path, data={"csrfmiddlewaretoken": token, **form}, headers={"Referer": str(self.http.base_url)}
        )

    def login(self, username: str, password: str) -> bool:
        self.page("/admin/login/")
        answer = self.post("/admin/login/?next=/admin/", {"username": username, "password": password})
        return answer.status_code == 302 and answer.headers["location"] == "/admin/"


def manage(stack: Stack, *arguments: str, **environ: str) -> None:
    command = [sys.executable, "manage.py", *arguments]
    subprocess.run(command, env={**stack.environ, **environ}, cwd=BASE_DIR, check=True, capture_output=True)


@pytest.fixture(scope="module")
def superuser(stack: Stack) -> str:
    name = f"root{secrets.token_hex(3)}"
    details = {"USERNAME": name, "PASSWORD": PASSWORD, "EMAIL": "root@example.com"}
    manage(
        stack, "createsuperuser", "--noinput", **{f"DJANGO_SUPERUSER_{key}": value for key, value in details.items()}
    )
    return name


@pytest.fixture
def open_site(stack: Stack) -> Iterator[Callable[[], Site]]:
    sites: list[Site] = []

    def open_one() -> Site:
        sites.append(Site(stack.web_url))
        return sites[-1]

    yield open_one
    for site in sites:
        site.http.close()


@pytest.fixture(scope="module")
def site(stack: Stack, superuser: str) -> Iterator[Site]:
    """Logged in as superuser. Shared, because checking a password is made to take long."""
    site = Site(stack.web_url)
    assert site.login(superuser, PASSWORD)
    yield site
    site.http.close()


def rows(page: str) -> list[dict[str, str]]:
    """Rows of an admin list: column -> text; ``href`` is the last link."""
    found = []
    for row in re.findall(r"<tr>(.*?)</tr>", page.partition('id="result_list"')[2], re.DOTALL):
        cells = re.findall(r'<t[hd] class="field-(\w+)[^"]*">(.*?)</t[hd]>', row, re.DOTALL)
        if cells:
            texts = {name: html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for name, cell in cells}
            found.append({**texts, "href": re.findall(r'href="([^"]*)"', row)[-1]})
    return found


def msg_rows(page: str) -> list[list[str]]:
    """Rows of the messages page, cell by cell, as a browser would show them."""
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    return [
        [html.unescape(cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    ]


async def send(api: Api, sender: str, receiver: str, *texts: str) -> None:
    for text in texts:
        body = {
            "sendID": sender,
            "recvID": receiver,
            "sessionType": 1,
            "contentType": 101,
            "content": {"content": text},
        }
        await api.call("/msg/send_msg", body)


async def chat(stack: Stack, api: Api, sender: str, receiver: str, *texts: str) -> str:
    """Sends and waits until all is stored; returns the conversation."""
    await api.register(sender, receiver)
    await send(api, sender, receiver, *texts)
    conversation_id = single_conversation_id(sender, receiver)
    last = {"conversation_id": conversation_id, "msgs.msg.seq": len(texts)}
    wait_until(lambda: stack.database["msg"].count_documents(last) == 1, "the stored messages")
    owners = {"conversation_id": conversation_id}
    wait_until(lambda: stack.database["conversation"].count_documents(owners) == 2, "both owners' conversations")
    return conversation_id


def messages_path(stack: Stack, owner: str, conversation_id: str) -> str:
    row = stack.database["conversation"].find_one({"owner_user_id": owner, "conversation_id": conversation_id}) or {}
    return f"{CONVERSATIONS}{row['_id']}/messages/"


def change_path(stack: Stack, collection: str, **key: str) -> str:
    row = stack.database[collection].find_one(key) or {}
    return f"/admin/imserver/{collection}/{row['_id']}/change/"


# -- who gets in


async def test_every_page_asks_who_is_not_logged_in_to_log_in(
    stack: Stack, api: Api, open_site: Callable[[], Site], names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    conversation_id = await chat(stack, api, alice, bob, "secret words")
    site = open_site()

    for path in ("/admin/", USERS, CONVERSATIONS, messages_path(stack, alice, conversation_id)):
        answer = site.get(path)

        assert (answer.status_code, answer.headers["location"]) == (302, f"/admin/login/?next={path}")
        assert "secret words" not in answer.text


def test_a_wrong_password_is_refused(open_site: Callable[[], Site], superuser: str) -> None:
    site = open_site()

    assert not site.login(superuser, "wrong")
    assert not site.login("nobody", PASSWORD)

    assert site.get("/admin/").status_code == 302


async def test_messages_stay_closed_to_staff_without_the_right_to_see_conversations(
    stack: Stack, api: Api, open_site: Callable[[], Site], names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    conversation_id = await chat(stack, api, alice, bob, "secret words")
    clerk = next(names)
    make = f"get_user_model().objects.create_user({clerk!r}, password={PASSWORD!r}, is_staff=True)"
    manage(stack, "shell", "--no-imports", "-c", f"from django.contrib.auth import get_user_model; {make}")
    site = open_site()
    assert site.login(clerk, PASSWORD)

    answers = [site.get(path) for path in (CONVERSATIONS, messages_path(stack, alice, conversation_id))]

    assert {answer.status_code for answer in answers} <= {403, 404}
    assert all("secret words" not in answer.text for answer in answers)


# -- what there is to see


def test_the_first_page_offers_users_and_conversations_and_adds_neither(site: Site) -> None:
    page = site.page("/admin/")

    for path in (USERS, CONVERSATIONS):
        assert f'href="{path}"' in page
        assert f'href="{path}add/"' not in page


async def test_users_are_listed_with_what_an_operator_asks_for(site: Site, api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    await api.call("/user/user_register", {"users": [{"userID": alice, "nickname": MARKUP}]})

    page = site.page(USERS, q=alice)

    (row,) = rows(page)
    assert (row["user_id"], row["nickname"], row["app_manger_level"]) == (alice, MARKUP, "0")
    assert abs(shown_seconds(row["created"]) - time.time()) < SLACK_SECONDS
    assert MARKUP not in page


def shown_seconds(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()


async def test_conversations_are_listed_with_peer_seqs_and_time_of_the_last_message(
    site: Site, stack: Stack, api: Api, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    conversation_id = await chat(stack, api, alice, bob, "one", "two", "three")
    read = {"userID": bob, "conversationID": conversation_id, "hasReadSeq": 2}
    await api.call("/msg/mark_conversation_as_read", read)

    found = rows(site.page(CONVERSATIONS, q=conversation_id))

    by_owner = {row["owner_user_id"]: row for row in found}
    assert len(found) == 2
    assert {owner: (row["peer"], row["newest"], row["read"]) for owner, row in by_owner.items()} == {
        alice: (bob, "3", "3"),
        bob: (alice, "3", "2"),
    }
    for row in found:
        assert row["conversation_type"] == "single"
        assert abs(shown_seconds(row["last_message"]) - time.time()) < SLACK_SECONDS
        assert row["href"] == messages_path(stack, row["owner_user_id"], conversation_id)


async def test_figures_that_redis_lost_are_read_from_the_store(
    site: Site, stack: Stack, api: Api, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    conversation_id = await chat(stack, api, alice, bob, "one", "two", "three")
    await api.call(
        "/msg/mark_conversation_as_read", {"userID": bob, "conversationID": conversation_id, "hasReadSeq": 2}
    )
    stored = {"user_id": bob, "conversation_id": conversation_id, "read_seq": 2}
    wait_until(lambda: stack.database["seq_user"].count_documents(stored) == 1, "the stored read seq")

    for key in stack.redis.scan_iter(match=f"{stack.prefix}*{conversation_id}*", count=1000):
        stack.redis.delete(key)

    by_owner = {row["owner_user_id"]: row for row in rows(site.page(CONVERSATIONS, q=conversation_id))}
    assert (by_owner[bob]["newest"], by_owner[bob]["read"]) == ("3", "2")


def test_conversations_may_be_filtered_ordered_and_paged(site: Site) -> None:
    queries: list[dict[str, object]] = [{"conversation_type__exact": 1}, {"is_pinned__exact": 1}, {"o": "-1"}, {"p": 1}]

    for query in queries:
        assert site.get(CONVERSATIONS, **query).status_code == 200, query


async def test_stored_messages_are_shown_newest_first_and_their_markup_stays_text(
    site: Site, stack: Stack, api: Api, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    conversation_id = await chat(stack, api, alice, bob, "one", MARKUP, "three")

    page = site.page(messages_path(stack, alice, conversation_id))

    shown = msg_rows(page)
    assert [(seq, sender, kind) for seq, _, sender, kind, _, _ in shown] == [
        (seq, alice, "101") for seq in ("3", "2", "1")
    ]
    assert [content for *_, content, _ in shown] == [
        '{"content":"three"}',
        f'{{"content":"{MARKUP}"}}',
        '{"content":"one"}',
    ]
    assert all(abs(shown_seconds(sent) - time.time()) < SLACK_SECONDS for _, sent, *_ in shown)
    assert MARKUP not in page
    assert f"Messages of {conversation_id}" in page


async def test_long_histories_are_shown_a_hundred_messages_at_a_time(
    site: Site, stack: Stack, api: Api, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    conversation_id = await chat(stack, api, alice, bob, *(str(number) for number in range(MSGS_PER_PAGE + 5)))
    path = messages_path(stack, bob, conversation_id)

    newest, oldest = site.page(path), site.page(path, block=0)

    assert [row[0] for row in msg_rows(newest)] == ["105", "104", "103", "102", "101"]
    assert [row[0] for row in msg_rows(oldest)] == [str(seq) for seq in range(MSGS_PER_PAGE, 0, -1)]
    assert ('href="?block=0"' in newest, 'href="?block=1"' in newest) == (True, False)
    assert ('href="?block=0"' in oldest, 'href="?block=1"' in oldest) == (False, True)


@pytest.mark.parametrize("blocks", [["7", "-1", "x", "", "9" * 40], ["²"]], ids=["ascii", "digits that are no number"])
async def test_a_page_of_messages_that_does_not_exist_is_the_newest_one(
    site: Site, stack: Stack, api: Api, names: Iterator[str], blocks: list[str]
) -> None:
    alice, bob = next(names), next(names)
    conversation_id = await chat(stack, api, alice, bob, "one")

    for block in blocks:
        answer = site.get(messages_path(stack, alice, conversation_id), block=block)

        assert answer.status_code == 200
        assert [row[0] for row in msg_rows(answer.text)] == ["1"]


@pytest.mark.parametrize("pk", ["0" * 24, "nonsense"])
def test_messages_of_a_conversation_that_does_not_exist_are_not_found(site: Site, pk: str) -> None:
    assert site.get(f"{CONVERSATIONS}{pk}/messages/").status_code == 404


def test_the_pages_styles_are_served(site: Site) -> None:
    styles = re.findall(r'<link rel="stylesheet" href="([^"]+)"', site.page("/admin/"))

    assert styles
    assert {site.get(path).status_code for path in styles} == {200}


# -- what can be changed


async def test_nothing_can_be_added_or_deleted(site: Site, stack: Stack, api: Api, names: Iterator[str]) -> None:
    alice, bob = next(names), next(names)
    conversation_id = await chat(stack, api, alice, bob, "one")
    user = change_path(stack, "user", user_id=alice)
    conversation = change_path(stack, "conversation", owner_user_id=alice, conversation_id=conversation_id)
    site.page(USERS)

    for path in (
        f"{USERS}add/",
        f"{CONVERSATIONS}add/",
        user.replace("change", "delete"),
        conversation.replace("change", "delete"),
    ):
        assert (site.get(path).status_code, site.post(path, {"post": "yes"}).status_code) == (403, 403)
    for listing, path in ((USERS, user), (CONVERSATIONS, conversation)):
        chosen = {"action": "delete_selected", "_selected_action": path.split("/")[-3], "post": "yes"}

        assert site.post(listing, chosen).status_code in {200, 302, 403}
    assert stack.database["user"].count_documents({"user_id": alice}) == 1
    assert stack.database["conversation"].count_documents({"conversation_id": conversation_id}) == 2


async def test_the_messages_page_changes_nothing_when_it_is_posted_to(
    site: Site, stack: Stack, api: Api, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    conversation_id = await chat(stack, api, alice, bob, "one")
    path = messages_path(stack, alice, conversation_id)
    before = list(stack.database["msg"].find({"conversation_id": conversation_id}))

    site.page(path)
    site.post(path, {"action": "delete_selected", "post": "yes", "content": "changed"})

    assert list(stack.database["msg"].find({"conversation_id": conversation_id})) == before


async def test_a_nickname_that_an_operator_changes_is_what_everybody_sees(
    site: Site, stack: Stack, api: Api, names: Iterator[str]
) -> None:
    alice, other = next(names), next(names)
    await api.register(alice)
    path = change_path(stack, "user", user_id=alice)
    form = {"nickname": "New name", "face_url": "", "ex": "", "app_manger_level": 1, "global_recv_msg_opt": 0}
    site.page(path)

    answer = site.post(path, {**form, "user_id": other, "create_time": 5})

    assert answer.status_code == 302
    (user,) = (await api.call("/user/get_users_info", {"userIDs": [alice, other]}))["usersInfo"]
    assert (user["userID"], user["nickname"]) == (alice, "New name")
    assert user["createTime"] > 5


async def test_a_conversation_may_be_pinned_but_keeps_its_owner_and_peer(
    site: Site, stack: Stack, api: Api, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    conversation_id = await chat(stack, api, alice, bob, "one")
    key = {"owner_user_id": alice, "conversation_id": conversation_id}
    path = change_path(stack, "conversation", **key)
    before = stack.database["conversation"].find_one(key) or {}
    site.page(path)

    answer = site.post(
        path, {"recv_msg_opt": 0, "is_pinned": "on", "ex": "", "owner_user_id": "eve", "user_id": "eve", "max_seq": 9}
    )

    assert answer.status_code == 302
    assert stack.database["conversation"].find_one(key) == {**before, "is_pinned": True}
