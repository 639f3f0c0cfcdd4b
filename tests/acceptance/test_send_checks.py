"""Who may send to whom in a single chat: the table of the protocol's flows.md, section 3."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from imserver.protocol.conversations import single_conversation_id
from imserver.storage.friends import new_black, new_friend
from tests.acceptance.test_admin_pages import PASSWORD, Site, manage, rows
from tests.client import Api, Client, Connect, RequestRefused, text_message
from tests.stack import Stack

pytestmark = pytest.mark.acceptance


@pytest.fixture
async def pair(api: Api, names: Iterator[str]) -> tuple[str, str]:
    """(sender, receiver)"""
    sender, receiver = next(names), next(names)
    await api.register(sender, receiver)
    return sender, receiver


def change_facts(stack: Stack, collection: str, where: dict[str, Any], update: dict[str, Any], *users: str) -> None:
    """A change of rows for which there is no route yet, made known as the product does."""
    stack.database[collection].update_one(where, update, upsert=True)
    stack.redis.publish(f"{stack.prefix}USER_FACTS", "\n".join(users))


def block(stack: Stack, owner: str, blocked: str) -> None:
    row = new_black(owner, blocked)
    change_facts(stack, "black", {"owner_user_id": owner, "block_user_id": blocked}, {"$setOnInsert": row}, owner)


def unblock(stack: Stack, owner: str, blocked: str) -> None:
    stack.database["black"].delete_one({"owner_user_id": owner, "block_user_id": blocked})
    stack.redis.publish(f"{stack.prefix}USER_FACTS", owner)


async def code_of(client: Client, receiver: str, **fields: Any) -> int:
    """Error code of a send, 0 for a success."""
    msg = text_message(client.user_id, receiver, "hello")
    for name, value in fields.items():
        setattr(msg, name, value)
    try:
        await client.send_msg(msg)
    except RequestRefused as refused:
        return refused.code
    return 0


async def rest_code(api: Api, sender: str, receiver: str, **change: Any) -> int:
    body = {
        "sendID": sender,
        "recvID": receiver,
        "senderPlatformID": 1,
        "sessionType": 1,
        "contentType": 101,
        "content": {"content": "x"},
    }
    code: int = (await api.post("/msg/send_msg", {**body, **change}))["errCode"]
    return code


async def set_receive_option(api: Api, owner: str, other: str, option: int) -> None:
    conversation = {"conversationID": single_conversation_id(owner, other), "recvMsgOpt": option}
    await api.call("/conversation/set_conversations", {"userIDs": [owner], "conversation": conversation})


async def eventually(client: Client, receiver: str, code: int, **fields: Any) -> None:
    """What changed is known to a gateway about a millisecond later."""
    for _ in range(200):
        if await code_of(client, receiver, **fields) == code:
            return
    raise AssertionError(f"sending to {receiver} does not come to {code}")


async def test_a_blocked_sender_is_told_so_until_it_is_unblocked(
    stack: Stack, connect: Connect, pair: tuple[str, str]
) -> None:
    sender, receiver = pair
    client, other = await connect(sender), await connect(receiver)
    assert await code_of(client, receiver) == 0

    block(stack, receiver, sender)

    await eventually(client, receiver, 1302)
    assert await code_of(other, sender) == 0
    unblock(stack, receiver, sender)
    await eventually(client, receiver, 0)


async def test_admins_notifications_and_users_of_a_higher_level_pass_a_block(
    stack: Stack, api: Api, pair: tuple[str, str], names: Iterator[str]
) -> None:
    sender, receiver = pair
    robot = next(names)
    await api.register(robot)
    stack.database["user"].update_one({"user_id": robot}, {"$set": {"app_manger_level": 4}})
    for blocked in (sender, robot, "imAdmin"):
        block(stack, receiver, blocked)

    assert await rest_code(api, sender, receiver) == 1302
    assert await rest_code(api, robot, receiver) == 0
    assert await rest_code(api, "imAdmin", receiver) == 0
    assert await rest_code(api, sender, receiver, contentType=1400) == 0


async def test_an_unknown_sender_or_receiver_is_told_so(api: Api, connect: Connect, pair: tuple[str, str]) -> None:
    sender, receiver = pair

    assert await rest_code(api, "nobody_at_all", receiver) == 1004
    assert await rest_code(api, sender, "nobody_at_all") == 1004
    assert await code_of(await connect(sender), "nobody_at_all") == 1004


async def test_who_does_not_exist_yet_may_be_written_to_once_registered(
    api: Api, connect: Connect, pair: tuple[str, str], names: Iterator[str]
) -> None:
    client, late = await connect(pair[0]), next(names)
    assert await code_of(client, late) == 1004

    await api.register(late)

    assert await code_of(client, late) == 0


async def test_who_does_not_receive_gets_nothing_and_the_sender_is_told(
    stack: Stack, api: Api, connect: Connect, pair: tuple[str, str]
) -> None:
    sender, receiver = pair
    client = await connect(sender)
    assert await code_of(client, receiver) == 0

    await set_receive_option(api, receiver, sender, 1)

    await eventually(client, receiver, 1001)
    detail = b'{"detail":"{\\"markAsReadUserID\\":\\"%s\\",\\"conversationID\\":\\"x\\",\\"hasReadSeq\\":1}"}'
    assert await code_of(client, receiver, contentType=2200, content=detail % sender.encode()) == 0
    await set_receive_option(api, receiver, sender, 0)
    await eventually(client, receiver, 0)
    change_facts(stack, "user", {"user_id": receiver}, {"$set": {"global_recv_msg_opt": 1}}, receiver)
    await eventually(client, receiver, 1001)
    assert await rest_code(api, sender, receiver, contentType=1400) == 0


@pytest.mark.parametrize("is_global", [True, False])
async def test_who_wants_no_offline_push_gets_the_message_without(
    stack: Stack, api: Api, connect: Connect, pair: tuple[str, str], is_global: bool
) -> None:
    sender, receiver = pair
    if is_global:
        change_facts(stack, "user", {"user_id": receiver}, {"$set": {"global_recv_msg_opt": 2}}, receiver)
    else:
        await set_receive_option(api, receiver, sender, 2)
    client, other = await connect(sender), await connect(receiver)

    assert await code_of(client, receiver) == 0
    assert await code_of(other, sender) == 0

    await other.until(lambda: len(other.chat_with(sender)) >= 2)
    first, second = other.chat_with(sender)
    assert (first.sendID, dict(first.options)) == (sender, {"offlinePush": False})
    assert (second.sendID, dict(second.options)) == (receiver, {})


@pytest.fixture
def strict_stack(stack: Stack) -> Iterator[Stack]:
    """A gateway that asks for friendship."""
    with stack.with_gateway("strict", FRIEND_CHECK="1") as strict:
        yield strict


async def test_where_only_friends_write_the_receivers_list_decides(
    strict_stack: Stack, api: Api, names: Iterator[str]
) -> None:
    stack = strict_stack
    sender, receiver = next(names), next(names)
    await api.register(sender, receiver)
    async with Client(stack.gateway_url, sender, await api.token(sender)) as client:
        where = {"owner_user_id": sender, "friend_user_id": receiver}
        change_facts(stack, "friend", where, {"$setOnInsert": new_friend(sender, receiver)}, sender)
        assert await code_of(client, receiver) == 1303

        where = {"owner_user_id": receiver, "friend_user_id": sender}
        change_facts(stack, "friend", where, {"$setOnInsert": new_friend(receiver, sender)}, receiver)

        await eventually(client, receiver, 0)
        assert await code_of(client, sender) == 0
        assert await rest_code(api, "imAdmin", sender) == 0
        await api.call("/friend/delete_friend", {"ownerUserID": receiver, "friendUserID": sender})
        await eventually(client, receiver, 1303)
        await api.call("/friend/import_friend", {"ownerUserID": receiver, "friendUserIDs": [sender]})
        await eventually(client, receiver, 0)


# -- operators


@pytest.fixture
def site(stack: Stack) -> Iterator[Site]:
    name = f"root{secrets.token_hex(3)}"
    details = {"USERNAME": name, "PASSWORD": PASSWORD, "EMAIL": "root@example.com"}
    environ = {f"DJANGO_SUPERUSER_{key}": value for key, value in details.items()}
    manage(stack, "createsuperuser", "--noinput", **environ)
    site = Site(stack.web_url)
    assert site.login(name, PASSWORD)
    yield site
    site.http.close()


async def test_an_operator_blocks_and_unblocks(
    stack: Stack, api: Api, connect: Connect, pair: tuple[str, str], site: Site
) -> None:
    sender, receiver = pair
    client = await connect(sender)
    assert await code_of(client, receiver) == 0
    pages, blocked = "/admin/imserver/black/", {"owner_user_id": receiver, "block_user_id": sender}
    site.page(f"{pages}add/")

    assert site.post(f"{pages}add/", blocked).status_code == 302

    await eventually(client, receiver, 1302)
    (row,) = rows(site.page(pages, q=receiver))
    assert (row["owner_user_id"], row["block_user_id"]) == (receiver, sender)
    # Once more, oneself, and nobody: the form says so and changes nothing.
    for wrong in (blocked, {**blocked, "block_user_id": receiver}, {**blocked, "block_user_id": "nobody_at_all"}):
        assert site.post(f"{pages}add/", wrong).status_code == 200
    assert stack.database["black"].count_documents({"owner_user_id": receiver}) == 1
    start = await api.call("/friend/get_incremental_blacks", {"userID": receiver})
    stored = stack.database["black"].find_one({"owner_user_id": receiver}) or {}
    assert site.post(f"{pages}{stored['_id']}/delete/", {"post": "yes"}).status_code == 302
    await eventually(client, receiver, 0)
    version = {"version": start["version"], "versionID": start["versionID"]}
    told = await api.call("/friend/get_incremental_blacks", {"userID": receiver, **version})
    assert (start["version"], told["full"], told["delete"]) == (1, False, [sender])


async def test_friends_and_applications_are_shown_and_not_changed(
    stack: Stack, api: Api, pair: tuple[str, str], site: Site
) -> None:
    stack.database["friend"].insert_one(new_friend(*pair))

    (row,) = rows(site.page("/admin/imserver/friend/", q=pair[0]))

    assert (row["owner_user_id"], row["friend_user_id"]) == pair
    assert site.get("/admin/imserver/friend/add/").status_code == 403
    await api.call("/friend/add_friend", {"fromUserID": pair[1], "toUserID": pair[0], "reqMsg": "hi"})
    (row,) = rows(site.page("/admin/imserver/friendrequest/", q=pair[0]))
    assert (row["from_user_id"], row["to_user_id"], row["handle_result"]) == (pair[1], pair[0], "none yet")
    assert site.get("/admin/imserver/friendrequest/add/").status_code == 403
