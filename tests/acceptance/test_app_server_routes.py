"""What app servers and operators ask of messages, and what users keep and set (protocol: rest.md 2 and 6).

Headers and tokens of these routes are tried with all others in test_rest_envelope.py, whose token the app server's take in
test_rest_rights.py.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from imserver.clock import now_ms
from imserver.constants import ContentType
from imserver.protocol.conversations import notification_twin, single_conversation_id
from tests.acceptance.group_api import GroupApi
from tests.client import ANSWER_SECONDS, Api, Client, Connect, RequestRefused, text_of
from tests.stack import POLL_SECONDS

pytestmark = pytest.mark.acceptance

Json = dict[str, Any]
PAGE = {"pageNumber": 1, "showNumber": 100}
UNKNOWN = "nobody_at_all"


@pytest.fixture
async def pair(api: Api, names: Iterator[str]) -> tuple[str, str]:
    alice, bob = sorted((next(names), next(names)))
    await api.register(alice, bob)
    return alice, bob


def message(sender: str, **change: Any) -> Json:
    return {
        "sendID": sender,
        "senderPlatformID": 1,
        "sessionType": 1,
        "contentType": 101,
        "content": {"content": "hello"},
        **change,
    }


def notices(client: Client, content_type: int) -> list[Json]:
    """Tips of a kind that the client was pushed, in the order they came."""
    return [
        orjson.loads(orjson.loads(msg.content)["detail"])
        for conversation_id, msgs in client.msgs.items()
        for msg in msgs
        if conversation_id.startswith("n_") and msg.contentType == content_type
    ]


async def until(condition: Callable[[], Any]) -> Any:
    """The first true answer of an async condition."""
    async with asyncio.timeout(ANSWER_SECONDS):
        while True:
            found = await condition()
            if found:
                return found
            await asyncio.sleep(POLL_SECONDS)


# -- who may


#: Route -> the field that names the user, and what else the request needs to be whole.
SELF_ROUTES: dict[str, tuple[str, Json]] = {
    "conversation/get_sorted_conversation_list": ("userID", {"pagination": PAGE}),
    "conversation/delete_conversations": ("ownerUserID", {"needDeleteTime": 1}),
    "conversation/update_conversations_by_user": ("userID", {"ex": "x"}),
    "msg/newest_seq": ("userID", {}),
    "msg/pull_msg_by_seq": ("userID", {"seqRanges": []}),
    "user/set_global_msg_recv_opt": ("userID", {"globalRecvMsgOpt": 1}),
    "user/process_user_command_add": ("userID", {"type": 1, "uuid": "u", "value": "v"}),
    "user/process_user_command_update": ("userID", {"type": 1, "uuid": "u", "value": "w"}),
    "user/process_user_command_get": ("userID", {"type": 1}),
    "user/process_user_command_get_all": ("userID", {}),
    "user/process_user_command_delete": ("userID", {"type": 1, "uuid": "u"}),
    "user/get_user_client_config": ("userID", {}),
}


async def test_users_ask_in_their_own_name_only_and_an_admin_in_anybodys(api: Api, pair: tuple[str, str]) -> None:
    alice, bob = pair
    await api.call("/msg/send_msg", message(alice, recvID=bob))

    async def are_both() -> bool:
        rows = [await api.call("/conversation/get_all_conversations", {"ownerUserID": owner}) for owner in pair]
        return all(item["conversations"] for item in rows)

    await until(are_both)
    token = await api.token(bob, 5)
    refused, own, admins = {}, {}, {}
    for route, (field, more) in SELF_ROUTES.items():
        refused[route] = (await api.post(f"/{route}", {field: alice, **more}, token=token))["errCode"]
    for route, (field, more) in SELF_ROUTES.items():
        own[route] = (await api.post(f"/{route}", {field: bob, **more}, token=token))["errCode"]
        admins[route] = (await api.post(f"/{route}", {field: alice, **more}))["errCode"]
    for route in ("user/update_user_info", "user/update_user_info_ex"):
        body = {"userInfo": {"userID": alice, "nickname": "Mallory"}}
        refused[route] = (await api.post(f"/{route}", body, token=token))["errCode"]

    assert refused == dict.fromkeys(refused, 1002)
    assert own == dict.fromkeys(own, 0)
    assert admins == dict.fromkeys(admins, 0)


async def test_who_asks_in_nobodys_name_is_told_so(api: Api, pair: tuple[str, str]) -> None:
    token = await api.token(pair[0], 5)
    # Nobody's settings are those for all.
    routes = {route: row for route, row in SELF_ROUTES.items() if route != "user/get_user_client_config"}

    codes = {
        (route, by): (await api.post(f"/{route}", {field: "", **more}, token=by))["errCode"]
        for route, (field, more) in routes.items()
        for by in (token, None)
    }

    assert codes == dict.fromkeys(codes, 1001)


async def _conversations(api: Api, body: Json) -> list[Json]:
    found: list[Json] = (await api.call("/conversation/get_conversations", body))["conversations"]
    return found


# -- what is refused

LONG = "x" * 20_000
BAD_REQUESTS: list[tuple[str, Json, int]] = [
    ("msg/batch_send_msg", message("@a", recvIDs=[]), 1001),
    ("msg/batch_send_msg", message("@a", recvIDs="@b"), 1001),
    ("msg/batch_send_msg", message("@a", recvIDs=[1]), 1001),
    ("msg/batch_send_msg", message("@a", recvIDs=["x"] * 1001), 1001),
    ("msg/batch_send_msg", message("@a", isSendAll="yes"), 1001),
    ("msg/batch_send_msg", message("@a", recvIDs=["@b"], sessionType=3, groupID="g"), 1001),
    ("msg/batch_send_msg", message("@a", recvIDs=["@b"], content={}), 1001),
    ("msg/batch_send_msg", message("", recvIDs=["@b"]), 1001),
    ("msg/batch_send_msg", message(UNKNOWN, recvIDs=["@b"]), 1004),
    ("msg/send_msg", message("@a", recvID="@b", clientMsgID="x" * 257), 1001),
    ("msg/send_msg", message("@a", recvID="@b", contentType=106, content={"atUserList": "@b"}), 1001),
    ("msg/send_simple_msg", {"content": "x"}, 1001),
    ("msg/send_simple_msg?key=%25", {"content": "x"}, 1001),
    ("msg/send_simple_msg?key=W10=", {"content": "x"}, 1001),
    ("msg/send_simple_msg?key=e30=", {"content": ""}, 1001),
    ("msg/send_simple_msg?key=e30=", {"content": "x"}, 1001),
    ("msg/send_business_notification", {"recvUserID": "@b"}, 1001),
    ("msg/send_business_notification", {"sendUserID": "@a"}, 1001),
    ("msg/send_business_notification", {"sendUserID": "@a", "recvUserID": "@b", "recvGroupID": "g"}, 1001),
    ("msg/send_business_notification", {"sendUserID": "@a", "recvUserID": "@b", "key": 1}, 1001),
    ("msg/send_business_notification", {"sendUserID": "@a", "recvUserID": "@b", "reliabilityLevel": 3}, 1001),
    ("msg/send_business_notification", {"sendUserID": "@a", "recvUserID": "@b", "data": "x" * 130_000}, 1001),
    ("msg/send_business_notification", {"sendUserID": UNKNOWN, "recvUserID": "@b"}, 1004),
    ("msg/send_business_notification", {"sendUserID": "@a", "recvUserID": UNKNOWN}, 1004),
    ("msg/send_business_notification", {"sendUserID": "@a", "recvGroupID": UNKNOWN}, 1004),
    ("msg/newest_seq", {"userID": 1}, 1001),
    ("msg/pull_msg_by_seq", {"userID": "@a", "seqRanges": {}}, 1001),
    ("msg/search_msg", {}, 1001),
    ("msg/search_msg", {"pagination": {"pageNumber": 1, "showNumber": 101}}, 1001),
    ("msg/search_msg", {"pagination": PAGE, "sendTime": "yesterday"}, 1001),
    ("msg/delete_msg_phsical_by_seq", {"seqs": [1]}, 1001),
    ("msg/delete_msg_phsical_by_seq", {"conversationID": "si_a_b", "seqs": []}, 1001),
    ("msg/delete_msg_phsical_by_seq", {"conversationID": "si_a_b", "seqs": [0]}, 1001),
    ("msg/delete_msg_physical", {"conversationIDs": [], "timestamp": 1}, 1001),
    ("msg/delete_msg_physical", {"conversationIDs": ["si_a_b"]}, 1001),
    ("user/account_check", {"checkUserIDs": ["@a", "@a"]}, 1001),
    ("user/account_check", {"checkUserIDs": [f"u{number}" for number in range(1001)]}, 1001),
    ("user/get_all_users_uid", {}, 1001),
    ("user/get_users", {"pagination": {"pageNumber": 0, "showNumber": 1}}, 1001),
    ("user/update_user_info", {}, 1001),
    ("user/update_user_info", {"userInfo": {"userID": UNKNOWN, "nickname": "x"}}, 1004),
    ("user/update_user_info_ex", {"userInfo": {"userID": "@a", "nickname": ""}}, 1001),
    ("user/update_user_info_ex", {"userInfo": {"userID": "@a", "nickname": "x" * 256}}, 1001),
    ("user/update_user_info_ex", {"userInfo": {"userID": "@a", "ex": "x" * 4001}}, 1001),
    ("user/update_user_info_ex", {"userInfo": {"userID": "@a", "globalRecvMsgOpt": 3}}, 1001),
    ("user/update_user_info_ex", {"userInfo": {"userID": UNKNOWN, "ex": "x"}}, 1004),
    ("user/set_global_msg_recv_opt", {"userID": "@a", "globalRecvMsgOpt": -1}, 1001),
    ("user/set_global_msg_recv_opt", {"userID": UNKNOWN, "globalRecvMsgOpt": 1}, 1004),
    ("user/process_user_command_add", {"userID": "@a", "uuid": ""}, 1001),
    ("user/process_user_command_add", {"userID": "@a", "uuid": "x" * 257}, 1001),
    ("user/process_user_command_add", {"userID": "@a", "uuid": "x", "value": LONG}, 1001),
    ("user/process_user_command_update", {"userID": "@a", "uuid": "x", "ex": "y"}, 1004),
    ("user/process_user_command_delete", {"userID": "@a", "uuid": "x"}, 1004),
    ("user/get_user_client_config", {"userID": UNKNOWN}, 1004),
    ("user/set_user_client_config", {"userID": "@a", "configs": {}}, 1001),
    ("user/set_user_client_config", {"userID": "@a", "configs": {"": "x"}}, 1001),
    ("user/set_user_client_config", {"userID": "@a", "configs": {"a": LONG}}, 1001),
    ("user/set_user_client_config", {"userID": "@a", "configs": {"a": 1}}, 1001),
    ("user/set_user_client_config", {"userID": UNKNOWN, "configs": {"a": "b"}}, 1004),
    ("user/del_user_client_config", {"userID": "@a", "keys": []}, 1001),
    ("user/page_user_client_config", {"userID": "@a"}, 1001),
    ("user/add_notification_account", {"nickName": "x"}, 1001),
    ("user/add_notification_account", {"nickName": "x", "appMangerLevel": 2}, 1001),
    ("user/add_notification_account", {"nickName": "", "appMangerLevel": 3}, 1001),
    ("user/add_notification_account", {"userID": "no.dots", "nickName": "x", "appMangerLevel": 3}, 1001),
    ("user/add_notification_account", {"userID": "no spaces", "nickName": "x", "appMangerLevel": 3}, 1001),
    ("user/add_notification_account", {"userID": "@a", "nickName": "x", "appMangerLevel": 3}, 1001),
    ("user/update_notification_account", {"userID": "@a", "nickName": "x"}, 1004),
    ("user/update_notification_account", {"userID": "@a"}, 1001),
    ("user/search_notification_account", {}, 1001),
    ("conversation/delete_conversations", {"ownerUserID": "@a"}, 1001),
    ("conversation/delete_conversations", {"ownerUserID": "@a", "needDeleteTime": -1}, 1001),
    ("conversation/delete_conversations", {"ownerUserID": "@a", "conversationIDs": ["x"], "needDeleteTime": 1}, 1001),
    ("conversation/delete_conversations", {"ownerUserID": "@a", "conversationIDs": ["si_x_y"]}, 1002),
    ("conversation/update_conversations_by_user", {"userID": "@a", "ex": "x" * 4001}, 1001),
    ("conversation/get_sorted_conversation_list", {"userID": "@a"}, 1001),
    ("conversation/get_sorted_conversation_list", {"userID": "@a", "pagination": PAGE}, 1004),
]


async def test_what_cannot_be_is_refused_and_changes_nothing(api: Api, connect: Connect, pair: tuple[str, str]) -> None:
    alice, bob = pair
    before = await api.call("/user/get_users_info", {"userIDs": [alice, bob]})

    wrong = []
    for route, body, wanted in BAD_REQUESTS:
        named = orjson.loads(
            orjson.dumps(body).replace(b'"@a"', f'"{alice}"'.encode()).replace(b'"@b"', f'"{bob}"'.encode())
        )
        code = (await api.post(f"/{route}", named))["errCode"]
        if code != wanted:
            wrong.append((route, str(body)[:100], code, wanted))

    assert wrong == []
    assert await api.call("/user/get_users_info", {"userIDs": [alice, bob]}) == before
    assert await (await connect(bob)).max_seqs() == {}


# -- sending


async def test_one_message_to_many_reaches_each_once_also_when_the_request_is_repeated(
    api: Api, connect: Connect, pair: tuple[str, str], names: Iterator[str]
) -> None:
    alice, bob = pair
    carol = next(names)
    await api.register(carol)
    clients = [await connect(user_id) for user_id in (bob, carol)]
    body = message(alice, recvIDs=[bob, carol, UNKNOWN, bob], clientMsgID=secrets.token_hex(16))

    first, second = [await api.call("/msg/batch_send_msg", body) for _ in range(2)]

    assert [item["recvID"] for item in first["results"]] == [bob, carol]
    assert set(first["results"][0]) == {"serverMsgID", "clientMsgID", "sendTime", "recvID"}
    assert first["failedUserIDs"] == [UNKNOWN]
    assert second == first
    for client in clients:
        await client.until(lambda client=client: client.chat_with(alice))
        assert [text_of(msg) for msg in await client.pull(single_conversation_id(alice, client.user_id), 1, 9)] == [
            "hello"
        ]


async def test_an_app_servers_retry_with_its_own_id_is_the_same_message(
    api: Api, connect: Connect, pair: tuple[str, str]
) -> None:
    alice, bob = pair
    receiver = await connect(bob)
    body = message(alice, recvID=bob, clientMsgID="of-the-app-server")

    answers = await asyncio.gather(*(api.call("/msg/send_msg", body) for _ in range(5)))

    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["clientMsgID"] == "of-the-app-server"
    await receiver.until(lambda: receiver.chat_with(alice))
    assert len(await receiver.pull(single_conversation_id(alice, bob), 1, 9)) == 1


async def test_a_message_to_all_reaches_who_is_registered_but_not_its_sender(
    api: Api, connect: Connect, pair: tuple[str, str]
) -> None:
    alice, bob = pair
    receiver = await connect(bob)

    data = await api.call("/msg/batch_send_msg", message(alice, isSendAll=True))

    ids = [item["recvID"] for item in data["results"]]
    assert bob in ids
    assert alice not in ids
    assert len(ids) == len(set(ids))
    await receiver.until(lambda: receiver.chat_with(alice))


async def test_a_simple_message_answers_the_one_that_a_webhook_told_of(
    api: Api, connect: Connect, pair: tuple[str, str]
) -> None:
    alice, bob = pair
    receiver = await connect(bob)
    key = base64.b64encode(orjson.dumps({"sendID": bob, "recvID": alice})).decode()

    data = await api.call(f"/msg/send_simple_msg?key={key}", {"content": "**hi**"})

    await receiver.until(lambda: receiver.chat_with(alice))
    (msg,) = receiver.chat_with(alice)
    assert (msg.sendID, msg.contentType, msg.serverMsgID) == (alice, ContentType.MARKDOWN_TEXT, data["serverMsgID"])
    assert text_of(msg) == "**hi**"


@pytest.mark.parametrize("level", [None, 1, 2])
async def test_a_business_notification_brings_key_and_data_and_is_stored_when_that_is_wanted(
    api: Api, connect: Connect, pair: tuple[str, str], level: int | None
) -> None:
    alice, bob = pair
    receiver = await connect(bob)
    body = {"sendUserID": alice, "recvUserID": bob, "key": "k", "data": '{"n":1}', "reliabilityLevel": level}

    data = await api.call("/msg/send_business_notification", body)

    await receiver.until(lambda: notices(receiver, ContentType.BUSINESS_NOTIFICATION))
    assert notices(receiver, ContentType.BUSINESS_NOTIFICATION) == [{"key": "k", "data": '{"n":1}'}]
    (msg,) = receiver.msgs[notification_twin(single_conversation_id(alice, bob))]
    assert (msg.serverMsgID, msg.seq) == (data["serverMsgID"], 1 if level == 2 else 0)


async def test_a_business_notification_may_stand_in_the_chat_and_is_not_counted_as_unread(
    api: Api, connect: Connect, pair: tuple[str, str]
) -> None:
    alice, bob = pair
    receiver = await connect(bob)
    body = {"sendUserID": alice, "recvUserID": bob, "key": "k", "data": "{}", "sendMsg": True}

    await api.call("/msg/send_business_notification", body)

    await receiver.until(lambda: receiver.chat_with(alice))
    (msg,) = receiver.chat_with(alice)
    assert (msg.contentType, msg.options["unreadCount"]) == (ContentType.BUSINESS_NOTIFICATION, False)


async def test_the_operation_id_of_a_send_tells_what_became_of_it(api: Api, pair: tuple[str, str]) -> None:
    alice, bob = pair
    good, bad, none = (f"op-{secrets.token_hex(8)}" for _ in range(3))
    await api.post("/msg/send_msg", message(alice, recvID=bob), operationID=good)
    await api.post("/msg/send_msg", message(alice, recvID=UNKNOWN), operationID=bad)

    found = [
        (await api.post("/msg/check_msg_is_send_success", {}, operationID=item))["data"]["status"]
        for item in (good, bad, none)
    ]

    assert found == [2, 3, 0]


# -- pulling and looking through


async def test_seqs_and_messages_are_had_by_rest_too(api: Api, connect: Connect, pair: tuple[str, str]) -> None:
    alice, bob = pair
    receiver = await connect(bob)
    token = await api.token(bob, 5)
    await api.call("/msg/send_msg", message(alice, recvID=bob))
    await receiver.until(lambda: receiver.chat_with(alice))
    chat = single_conversation_id(alice, bob)

    seqs = await api.call("/msg/newest_seq", {"userID": bob}, token=token)
    ranges = [{"conversationID": chat, "begin": 1, "end": 9, "num": 9}]
    pulled = await api.call("/msg/pull_msg_by_seq", {"userID": bob, "seqRanges": ranges, "order": 0}, token=token)
    server_time = (await api.call("/msg/get_server_time", {}, token=token))["serverTime"]

    assert seqs["maxSeqs"][chat] == 1
    (msg,) = pulled["msgs"][chat]["Msgs"]
    assert orjson.loads(base64.b64decode(msg["content"])) == {"content": "hello"}
    assert abs(server_time - now_ms()) < 60_000


async def test_stored_messages_are_found_by_who_what_and_when(api: Api, pair: tuple[str, str]) -> None:
    alice, bob = pair
    for text in ("one", "two", "three"):
        await api.call("/msg/send_msg", message(alice, recvID=bob, content={"content": text}))
    today = datetime.now(UTC).strftime("%Y-%m-%d")

    async def search(**what: Any) -> Json:
        return dict(await api.call("/msg/search_msg", {"pagination": PAGE, "sendID": alice, **what}))

    async def all_three() -> Json | None:
        found = await search(recvID=bob, contentType=101, sessionType=1, sendTime=today)
        return found if found["chatLogsNum"] == 3 else None

    found = await until(all_three)
    assert [orjson.loads(item["chatLog"]["content"])["content"] for item in found["chatLogs"]] == [
        "three",
        "two",
        "one",
    ]
    assert (found["chatLogs"][0]["chatLog"]["recvNickname"], found["chatLogs"][0]["isRevoked"]) == (bob, False)
    page = await search(pagination={"pageNumber": 2, "showNumber": 2})
    assert (page["chatLogsNum"], len(page["chatLogs"])) == (3, 1)
    await api.call("/msg/send_business_notification", {"sendUserID": alice, "recvUserID": bob, "reliabilityLevel": 2})
    assert found["chatLogs"][0]["chatLog"]["senderNickname"] == alice
    # Notifications are nobody's words.
    for other in (
        {"recvID": alice},
        {"contentType": 2001},
        {"contentType": 102},
        {"sessionType": 3},
        {"sendTime": "2001-01-01"},
    ):
        assert (await search(**other))["chatLogsNum"] == 0


async def test_what_an_operator_deletes_is_gone_for_everybody(
    api: Api, connect: Connect, pair: tuple[str, str]
) -> None:
    alice, bob = pair
    receiver = await connect(bob)
    chat = single_conversation_id(alice, bob)
    times = []
    for text in ("one", "two", "three", "four"):
        body = message(alice, recvID=bob, content={"content": text})
        times.append((await api.call("/msg/send_msg", body))["sendTime"])
    await receiver.until(lambda: len(receiver.chat_with(alice)) == 4)

    await api.call("/msg/delete_msg_phsical_by_seq", {"conversationID": chat, "seqs": [3, 99]})

    assert [msg.status for msg in await receiver.pull(chat, 1, 4)] == [2, 2, 4, 2]
    await api.call("/msg/delete_msg_physical", {"conversationIDs": [chat, "si_x_y"], "timestamp": times[0] + 1})
    shown = await receiver.pull(chat, 1, 4)
    assert [text_of(msg) for msg in shown if msg.status < 4][-1] == "four"
    assert all(msg.seq > 1 for msg in shown)
    found = await api.call("/msg/search_msg", {"pagination": PAGE, "sendID": alice})
    assert "three" not in str(found)


# -- users


async def test_users_are_counted_listed_and_found(api: Api, pair: tuple[str, str]) -> None:
    alice, bob = pair

    checked = await api.call("/user/account_check", {"checkUserIDs": [alice, UNKNOWN, bob]})
    ids = await api.call("/user/get_all_users_uid", {"pagination": {"pageNumber": 1, "showNumber": 1000}})
    found = await api.call("/user/get_users", {"pagination": PAGE, "userID": alice.upper()})

    assert [item["accountStatus"] for item in checked["results"]] == [1, 0, 1]
    assert [item["userID"] for item in checked["results"]] == [alice, UNKNOWN, bob]
    assert (await api.call("/user/account_check", {"checkUserIDs": []}))["results"] == []
    assert ids["total"] >= len(ids["userIDs"]) >= 2
    assert {item["userID"] for item in found["users"]} == {alice}
    assert (await api.call("/user/get_users", {"pagination": PAGE, "nickName": ".*"}))["users"] == []


async def test_a_changed_name_is_told_to_the_user_and_to_those_who_have_it_as_a_friend(
    api: Api, connect: Connect, pair: tuple[str, str], names: Iterator[str]
) -> None:
    alice, bob = pair
    stranger = next(names)
    await api.register(stranger)
    await api.call("/friend/import_friend", {"ownerUserID": bob, "friendUserIDs": [alice]})
    clients = {user_id: await connect(user_id) for user_id in (alice, bob, stranger)}
    version = await api.call("/friend/get_full_friend_user_ids", {"userID": bob, "idHash": 0})
    token = await api.token(alice, 5)

    body = {"userInfo": {"userID": alice, "nickname": "Ålice", "ex": "", "appMangerLevel": 2}}
    await api.call("/user/update_user_info_ex", body, token=token)

    (info,) = (await api.call("/user/get_users_info", {"userIDs": [alice]}))["usersInfo"]
    assert (info["nickname"], info["appMangerLevel"]) == ("Ålice", 0)
    await clients[alice].until(lambda: notices(clients[alice], 1303))
    await clients[bob].until(lambda: notices(clients[bob], 1209))
    assert notices(clients[bob], 1209) == [{"userID": alice}]
    known = {"version": version["version"], "versionID": version["versionID"]}
    changed = await api.call("/friend/get_incremental_friends", {"userID": bob, **known})
    assert [item["friendUser"]["nickname"] for item in changed["update"]] == ["Ålice"]
    body = {"userInfo": {"userID": alice, "faceURL": "http://f"}}
    await api.call("/user/update_user_info", body, token=token)
    (info,) = (await api.call("/user/get_users_info", {"userIDs": [alice]}))["usersInfo"]
    assert (info["nickname"], info["faceURL"]) == ("Ålice", "http://f")
    assert notices(clients[stranger], 1209) == []


async def test_a_changed_name_is_told_to_groups_where_the_member_has_none_of_its_own(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    people = GroupApi(api, names)
    alice, bob = await people.users(2)
    plain, named = [await people.create(bob, alice) for _ in range(2)]
    own = {"groupID": named, "userID": alice, "nickname": "A", "faceURL": "http://a"}
    listener = await connect(bob)
    await people.call(bob, "set_group_member_info", members=[own])

    def told(group_id: str) -> list[Json]:
        return [tips for tips in notices(listener, 1516) if tips["group"]["groupID"] == group_id]

    await listener.until(lambda: told(named))
    before = {group_id: await people.changed(bob, group_id, {}) for group_id in (plain, named)}
    body = {"userInfo": {"userID": alice, "nickname": "Ålice"}}

    await api.call("/user/update_user_info_ex", body, token=await people.token(alice))
    await api.call("/user/update_user_info", {"userInfo": {"userID": alice, "faceURL": "http://f"}})

    await listener.until(lambda: len(told(plain)) == 2)
    first, second = told(plain)
    assert first["changedUser"]["nickname"] == "Ålice"
    assert (first["opUser"]["userID"], second["opUser"]["userID"]) == (alice, "imAdmin")
    assert second["changedUser"]["faceURL"] == "http://f"
    assert len(told(named)) == 1
    version = before[plain]["version"]
    assert [item["groupMemberVersion"] for item in (first, second)] == [version + 1, version + 2]
    changed = await people.changed(bob, plain, before[plain])
    assert [item["nickname"] for item in changed["update"]] == ["Ålice"]
    assert (await people.changed(bob, named, before[named]))["update"] is None


async def test_what_others_do_not_see_of_a_user_is_told_to_the_user_only(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    people = GroupApi(api, names)
    alice, bob = await people.users(2)
    await api.call("/friend/import_friend", {"ownerUserID": bob, "friendUserIDs": [alice]})
    group_id = await people.create(bob, alice)
    clients = [await connect(user_id) for user_id in (alice, bob)]
    token = await people.token(alice)

    async def versions() -> tuple[int, int]:
        friends = await api.call("/friend/get_full_friend_user_ids", {"userID": bob, "idHash": 0})
        return friends["version"], (await people.changed(bob, group_id, {}))["version"]

    before = await versions()
    for change in ({"ex": "e"}, {"nickname": alice, "faceURL": ""}, {"globalRecvMsgOpt": 2}):
        await api.call("/user/update_user_info_ex", {"userInfo": {"userID": alice, **change}}, token=token)
    await clients[0].until(lambda: len(notices(clients[0], 1303)) == 3)

    assert await versions() == before
    await api.call("/user/update_user_info_ex", {"userInfo": {"userID": alice, "nickname": "Ålice"}}, token=token)
    await clients[1].until(lambda: notices(clients[1], 1209) and notices(clients[1], 1516))
    assert [len(notices(clients[1], content_type)) for content_type in (1209, 1516)] == [1, 1]
    assert await versions() == (before[0] + 1, before[1] + 1)


async def test_an_update_that_sets_nothing_succeeds_and_nobody_is_told(
    api: Api, connect: Connect, pair: tuple[str, str]
) -> None:
    alice, bob = pair
    client, token = await connect(alice), await api.token(alice, 5)

    for route in ("user/update_user_info", "user/update_user_info_ex"):
        await api.call(f"/{route}", {"userInfo": {"userID": alice}}, token=token)
        assert (await api.post(f"/{route}", {"userInfo": {"userID": bob}}, token=token))["errCode"] == 1002
        assert (await api.post(f"/{route}", {"userInfo": {"userID": UNKNOWN}}))["errCode"] == 1004
    await api.call("/user/update_user_info_ex", {"userInfo": {"userID": alice, "ex": "e"}}, token=token)

    await client.until(lambda: notices(client, 1303))
    assert len(notices(client, 1303)) == 1


async def test_who_receives_nothing_is_sent_nothing_from_then_on(
    api: Api, connect: Connect, pair: tuple[str, str]
) -> None:
    alice, bob = pair
    sender, receiver = await connect(alice), await connect(bob)
    await sender.send_text(bob, "one")

    await api.call(
        "/user/set_global_msg_recv_opt", {"userID": bob, "globalRecvMsgOpt": 1}, token=await api.token(bob, 5)
    )

    await receiver.until(lambda: notices(receiver, 1303))

    async def is_refused() -> bool:
        try:
            await sender.send_text(bob, "two")
        except RequestRefused as error:
            return error.code == 1001
        return False

    await until(is_refused)
    (info,) = (await api.call("/user/get_users_info", {"userIDs": [bob]}))["usersInfo"]
    assert info["globalRecvMsgOpt"] == 1


async def test_users_keep_small_things_by_type_and_id(api: Api, pair: tuple[str, str]) -> None:
    alice, bob = pair

    async def call(what: str, user_id: str = alice, **more: Any) -> Any:
        return await api.call(f"/user/process_user_command_{what}", {"userID": user_id, **more})

    await call("add", type=1, uuid="a", value="A", ex="e")
    await call("add", type=2, uuid="a", value="B")
    await call("add", bob, type=1, uuid="a")
    with pytest.raises(RequestRefused, match="1003"):
        await call("add", type=1, uuid="a", value="again")
    await call("update", type=2, uuid="a", ex="changed")
    await call("update", type=2, uuid="a")

    (first,) = (await call("get", type=1))["CommandResp"]
    assert (first["uuid"], first["value"], first["ex"], first["type"]) == ("a", "A", "e", 1)
    assert 0 <= now_ms() // 1000 - first["createTime"] <= 60
    found = (await call("get_all"))["CommandResp"]
    assert [(item["type"], item["value"], item["ex"]) for item in found] == [(1, "A", "e"), (2, "B", "changed")]
    await call("delete", type=1, uuid="a")
    assert (await call("get", type=1))["CommandResp"] == []
    assert len((await call("get_all", bob))["CommandResp"]) == 1


async def test_clients_are_set_for_all_and_for_one(api: Api, pair: tuple[str, str]) -> None:
    alice, bob = pair
    token = await api.token(alice, 5)
    first, second, third = (f"{name}-{alice}" for name in "abc")

    async def get(user_id: str, by: str | None = token) -> Json:
        """Of the keys of this test; what is for all, others set too."""
        data = await api.call("/user/get_user_client_config", {"userID": user_id}, token=by)
        return {key: value for key, value in data["configs"].items() if key.endswith(alice)}

    await api.call("/user/set_user_client_config", {"userID": alice, "configs": {first: "1", second: "2"}})
    await api.call("/user/set_user_client_config", {"userID": alice, "configs": {second: "3"}})
    await api.call("/user/set_user_client_config", {"userID": "", "configs": {second: "all", third: "all"}})

    assert await get(alice) == {first: "1", second: "3", third: "all"}
    assert await get("") == await get(bob, by=None) == {second: "all", third: "all"}
    page = await api.call("/user/page_user_client_config", {"userID": alice, "pagination": PAGE})
    assert (page["total"], [item["key"] for item in page["configs"]]) == (2, [first, second])
    found = await api.call("/user/page_user_client_config", {"key": third, "pagination": PAGE})
    assert found["configs"] == [{"userID": "", "key": third, "value": "all"}]
    await api.call("/user/del_user_client_config", {"userID": alice, "keys": [first, second, "none"]})
    assert await get(alice) == {second: "all", third: "all"}


async def test_service_accounts_are_made_renamed_and_found(api: Api, names: Iterator[str]) -> None:
    given = next(names)

    made = await api.call("/user/add_notification_account", {"userID": given, "nickName": "News", "appMangerLevel": 3})
    unnamed = await api.call("/user/add_notification_account", {"nickName": f"bot {given}", "appMangerLevel": 4})
    await api.call("/user/update_notification_account", {"userID": given, "faceURL": "http://f"})

    assert made == {"userID": given, "nickName": "News", "faceURL": "", "appMangerLevel": 3}
    found = await api.call("/user/search_notification_account", {"keyword": given, "pagination": PAGE})
    assert found["total"] == 2
    assert {item["userID"] for item in found["notificationAccounts"]} == {given, unnamed["userID"]}
    (named,) = (item for item in found["notificationAccounts"] if item["userID"] == given)
    assert (named["nickName"], named["faceURL"]) == ("News", "http://f")
    assert (await api.post("/auth/get_user_token", {"userID": given, "platformID": 1}))["errCode"] == 1001


# -- conversations


async def test_a_deleted_conversation_comes_back_with_the_next_message(
    api: Api, connect: Connect, pair: tuple[str, str]
) -> None:
    alice, bob = pair
    sender, receiver = await connect(alice), await connect(bob)
    chat = single_conversation_id(alice, bob)
    await sender.send_text(bob, "one")
    row = {"ownerUserID": bob, "conversationIDs": [chat]}
    await until(lambda: _conversations(api, row))
    await api.call(
        "/conversation/set_conversations",
        {"userIDs": [bob], "conversation": {"conversationID": chat, "isPinned": True}},
    )
    version = await api.call("/conversation/get_full_conversation_ids", {"userID": bob, "idHash": 0})
    known = {"userID": bob, "version": version["version"], "versionID": version["versionID"]}

    await api.call("/conversation/delete_conversations", row)

    assert await _conversations(api, row) == []
    changes = await api.call("/conversation/get_incremental_conversations", known)
    assert (changes["delete"], changes["update"], changes["full"]) == ([chat], [], False)
    assert (await api.call("/conversation/get_all_conversations", {"ownerUserID": bob}))["conversations"] == []
    assert len(await _conversations(api, {**row, "ownerUserID": alice})) == 1
    await api.call("/conversation/delete_conversations", row)

    await sender.send_text(bob, "two")
    await receiver.until(lambda: len(receiver.chat_with(alice)) == 2)

    changes = await api.call("/conversation/get_incremental_conversations", known)
    (shown,) = changes["update"]
    assert (shown["conversationID"], shown["isPinned"], changes["delete"]) == (chat, False, [])
    assert [text_of(msg) for msg in await receiver.pull(chat, 1, 9)] == ["one", "two"]


async def test_conversations_that_were_quiet_for_days_are_deleted_and_no_others(
    api: Api, connect: Connect, pair: tuple[str, str], names: Iterator[str]
) -> None:
    alice, bob = pair
    carol = next(names)
    await api.register(carol)
    await api.call("/msg/send_msg", message(alice, recvID=bob))
    await api.call("/msg/send_msg", message(carol, recvID=bob, sendTime=now_ms() - 3 * 86_400_000))
    chats = [single_conversation_id(alice, bob), single_conversation_id(carol, bob)]
    row = {"ownerUserID": bob, "conversationIDs": chats}

    async def are_both() -> bool:
        stored = await api.call("/conversation/get_all_conversations", {"ownerUserID": bob})
        return len(stored["conversations"]) == 2

    await until(are_both)
    await api.call("/conversation/delete_conversations", {"ownerUserID": bob, "needDeleteTime": 2})

    assert [item["conversationID"] for item in await _conversations(api, row)] == chats[:1]


async def test_the_list_has_pinned_conversations_first_and_then_the_latest(
    api: Api, connect: Connect, pair: tuple[str, str], names: Iterator[str]
) -> None:
    bob, *others = pair[1], pair[0], next(names), next(names)
    await api.register(*others[1:])
    for number, other in enumerate(others):
        await api.call("/msg/send_msg", message(other, recvID=bob, sendTime=now_ms() - 1000 + number))
    chats = [single_conversation_id(other, bob) for other in others]

    async def are_all() -> bool:
        stored = await api.call("/conversation/get_all_conversations", {"ownerUserID": bob})
        return len(stored["conversations"]) == 3

    await until(are_all)
    await api.call("/conversation/update_conversations_by_user", {"userID": bob, "ex": "mine"})
    await api.call(
        "/conversation/set_conversations",
        {"userIDs": [bob], "conversation": {"conversationID": chats[0], "isPinned": True}},
    )

    token = await api.token(bob, 5)
    data = await api.call(
        "/conversation/get_sorted_conversation_list", {"userID": bob, "pagination": PAGE}, token=token
    )

    assert [item["conversationID"] for item in data["conversationElems"]] == [chats[0], chats[2], chats[1]]
    assert (data["conversationTotal"], data["unreadTotal"]) == (3, 3)
    first = data["conversationElems"][0]
    assert (first["IsPinned"], first["unreadCount"], first["msgInfo"]["senderName"]) == (True, 1, others[0])
    rows = await _conversations(api, {"ownerUserID": bob, "conversationIDs": chats})
    assert [item["ex"] for item in rows] == ["mine"] * 3
    page = {"pageNumber": 2, "showNumber": 2}
    body = {"userID": bob, "conversationIDs": chats, "pagination": page}
    second = await api.call("/conversation/get_sorted_conversation_list", body, token=token)
    assert [item["conversationID"] for item in second["conversationElems"]] == [chats[1]]
