"""Who is online where, across two gateway nodes: login policies, subscriptions, background, webhooks, a node that dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from gateway import close
from imserver.constants import PresenceCommand, ReqIdentifier, TokenState
from imserver.devservices.servers import EmbeddedServers
from imserver.protocol.gen import push_pb2, sdkws_pb2
from imserver.storage.webhooks import COLLECTION
from tests.acceptance.devices import ANDROID, IOS, IPAD, OSX, WEB, WINDOWS, Devices, heard, subscribe, until
from tests.app_server import AppServer, Call
from tests.client import ANSWER_SECONDS, Api, Client, RequestRefused
from tests.stack import Stack

pytestmark = pytest.mark.acceptance

#: A node that does not say that it lives is dead after that time, and forgotten by the next look, every 4 s.
NODE_TTL_SECONDS, FORGET_SECONDS = 8, 4
#: Of a busy machine.
SLACK_SECONDS = 15


@pytest.fixture(scope="module")
def stack(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two nodes. The web process issues tokens without kicking others, so that a test can connect with several."""
    settings = {
        "NODE_HEARTBEAT_MS": "500",
        "NODE_TTL_MS": f"{NODE_TTL_SECONDS * 1000}",
        "MULTI_LOGIN_POLICY": "0",
        "MAX_TOKENS_PER_END": "3",
    }
    with Stack(servers, tmp_path_factory.mktemp("presence"), gateways=2, **settings) as running:
        running.wait_gateway(1)
        yield running


def use_policy(stack: Stack, policy: int) -> None:
    """Both gateways, from now on."""
    if stack._settings["MULTI_LOGIN_POLICY"] != str(policy):
        stack._settings["MULTI_LOGIN_POLICY"] = str(policy)
        for number in (0, 1):
            stack.kill_gateway(number)
            stack.start_gateway(number)
        for number in (0, 1):
            stack.wait_gateway(number)


@pytest.fixture
async def devices(stack: Stack, api: Api) -> Any:
    made = Devices(stack, api)
    yield made
    for client in made.open:
        await client.close()


# -- subscriptions


async def test_changes_of_a_users_platforms_reach_subscribers_on_all_nodes(
    stack: Stack, api: Api, devices: Devices, names: Iterator[str]
) -> None:
    use_policy(stack, 0)
    alice, bob, carol, dave = (next(names) for _ in range(4))
    await api.register(alice, bob, carol, dave)
    here = await devices.connect(bob, IOS, 0)
    there = await devices.connect(carol, WEB, 1, sdk_type="js")
    deaf = await devices.connect(dave, IOS, 0)

    assert await subscribe(here, alice, dave, alice) == {alice: [], dave: [IOS]}
    assert await subscribe(there, alice) == {alice: []}
    phone = await devices.connect(alice, IOS, 0)
    second = await devices.connect(alice, IOS, 1)
    web = await devices.connect(alice, WEB, 1)
    for client in (here, there):
        await client.until(lambda client=client: heard(client, alice)[-1:] == [[IOS, WEB]])
    await second.close()
    await web.close()
    await here.until(lambda: heard(here, alice)[-1:] == [[IOS]])
    await subscribe(here, unsubscribe=(alice,))
    await phone.close()
    await there.until(lambda: heard(there, alice)[-1:] == [[]])

    assert heard(here, alice)[-1] == [IOS], "not subscribed any more"
    assert heard(deaf, alice) == []
    push = next(frame for frame in there.frames if not frame.msg_incr)
    assert (push.req_identifier, push.operation_id, push.err_code) == (2005, "", 0)
    # Subscriptions die with the connection.
    await there.close()
    there = await devices.connect(carol, WEB, 0)
    await devices.connect(alice, IOS, 0)
    assert await subscribe(there, bob) == {bob: [IOS]}
    assert heard(there, alice) == []


async def test_a_connection_may_subscribe_to_a_number_of_users(
    stack: Stack, api: Api, devices: Devices, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    client = await devices.connect(bob)

    # More than are read at once, and one too many.
    asked = [f"x{number}" for number in range(2999)] + [bob, alice]
    assert await subscribe(client, *asked) == {user_id: [IOS] if user_id == bob else [] for user_id in asked}
    # How somebody is who is not followed is told nevertheless.
    phone = await devices.connect(alice, ANDROID, 1)
    assert await subscribe(client, alice) == {alice: [ANDROID]}
    await phone.close()
    await until(lambda: not devices.routes(alice), "the route to be removed")
    assert await subscribe(client, alice, unsubscribe=("x0",)) == {alice: []}
    assert await subscribe(client) == {}
    await devices.connect(alice, WEB, 1)

    await client.until(lambda: heard(client, alice))
    assert heard(client, alice) == [[WEB]]


async def test_too_many_ids_are_refused(api: Api, devices: Devices, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)
    client = await devices.connect(alice, is_compressed=True)

    with pytest.raises(RequestRefused, match="1001"):
        await subscribe(client, *(f"y{number}" for number in range(10_001)))
    with pytest.raises(RequestRefused, match="1001"):
        await subscribe(client, "y" * 65)
    assert await subscribe(client, alice) == {alice: [IOS]}


async def test_what_is_missed_while_redis_drops_the_feed_is_made_up_for(
    stack: Stack, api: Api, devices: Devices, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    watcher = await devices.connect(bob)
    await subscribe(watcher, alice)
    prefix = stack.prefix.encode()

    # As if a connection had come while nothing was heard: its record is there, and it was not published.
    node = devices.routes(bob)[0]["node"]
    record = {"node": node, "platform_id": WEB, "token_digest": "", "since_ms": 1, "is_background": False}
    stack.redis.hset(f"{stack.prefix}ROUTE:{alice}", "c1", orjson.dumps(record))
    for found in stack.redis.client_list(_type="pubsub"):
        # Nobody else is subscribed to more than one channel.
        if int(found["sub"]) > 1:
            stack.redis.client_kill_filter(_id=found["id"])

    await watcher.until(lambda: heard(watcher, alice) == [[WEB]])
    channel = prefix + b"STATUS:" + alice.encode()
    await until(lambda: dict(stack.redis.pubsub_numsub(channel))[channel] == 1, "one node follows alice")
    await watcher.close()
    await until(lambda: dict(stack.redis.pubsub_numsub(channel))[channel] == 0, "nobody follows alice")


# -- background and logout


async def test_force_logout_reaches_every_node(stack: Stack, api: Api, devices: Devices, names: Iterator[str]) -> None:
    use_policy(stack, 0)
    alice = next(names)
    await api.register(alice)
    phones = [await devices.connect(alice, IOS, node) for node in (0, 1)]
    web = await devices.connect(alice, WEB, 1)

    await api.call("/auth/force_logout", {"userID": alice, "platformID": IOS})

    assert [await client.wait_closed() for client in phones] == [close.KICKED.code] * 2
    assert set(devices.states(alice, IOS).values()) == {TokenState.KICKED}
    await web.max_seqs()
    assert [route["platform_id"] for route in devices.routes(alice)] == [WEB]


async def test_the_background_flag_is_in_the_routing_table(api: Api, devices: Devices, names: Iterator[str]) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    phone = await devices.connect(alice)

    for flag in (True, False):
        request = sdkws_pb2.SetAppBackgroundStatusReq(userID=alice, isBackground=flag)
        assert await phone.request(ReqIdentifier.SET_BACKGROUND, request) == b""
        assert [route["is_background"] for route in devices.routes(alice)] == [flag]
    with pytest.raises(RequestRefused, match="1002"):
        await phone.request(
            ReqIdentifier.SET_BACKGROUND, sdkws_pb2.SetAppBackgroundStatusReq(userID=bob, isBackground=True)
        )
    assert [route["is_background"] for route in devices.routes(alice)] == [False]


async def test_logout_is_answered_closes_and_takes_the_route_away(
    api: Api, devices: Devices, names: Iterator[str]
) -> None:
    alice = next(names)
    await api.register(alice)
    phone = await devices.connect(alice)

    request = push_pb2.DelUserPushTokenReq(userID=alice, platformID=IOS)
    assert await phone.request(ReqIdentifier.LOGOUT, request) == b""

    assert await phone.wait_closed() == close.LOGGED_OUT.code
    assert not phone.kicked
    await until(lambda: not devices.routes(alice), "the route to be removed")
    # The app may log in again with the token it has.
    assert list(devices.states(alice, IOS).values()) == [TokenState.NORMAL]


# -- webhooks, and a node that dies


@pytest.fixture
def app(stack: Stack) -> Iterator[AppServer]:
    with AppServer() as running:
        for command in PresenceCommand:
            document = {"command": command, "url": running.url, "enable": True, "timeout": 5}
            stack.database[COLLECTION].insert_one(document)
        yield running
        stack.database[COLLECTION].delete_many({})


def calls_of(app: AppServer, user_id: str) -> list[Call]:
    return [call for call in list(app.calls) if call.body["userID"] == user_id]


async def until_in_force(app: AppServer, devices: Devices, user_id: str) -> None:
    """Both nodes and the web process know the settings."""
    for node in (0, 1):
        before = len(calls_of(app, user_id))

        async def is_told(node: int = node, before: int = before) -> bool:
            async with Client(
                devices.stack.gateway_urls[node],
                user_id,
                await devices.api.token(user_id, WINDOWS),
                platform_id=WINDOWS,
            ) as client:
                await client.max_seqs()
                await devices.api.call("/auth/force_logout", {"userID": user_id, "platformID": WINDOWS})
            await asyncio.sleep(0.1)
            commands = {call.command for call in calls_of(app, user_id)[before:]}
            return {PresenceCommand.ONLINE, PresenceCommand.KICK_OFF} <= commands

        await until(is_told, "the hooks to be in force")


async def test_webhooks_tell_of_every_connection_in_order_and_of_a_dead_nodes_users(
    stack: Stack, api: Api, devices: Devices, names: Iterator[str], app: AppServer
) -> None:
    use_policy(stack, 0)
    alice, bob, warm = next(names), next(names), next(names)
    await api.register(alice, bob, warm)
    await until_in_force(app, devices, warm)
    watcher = await devices.connect(bob, WEB, 0)
    await subscribe(watcher, alice)
    old = await devices.connect(alice, IOS, 0)
    await old.request(
        ReqIdentifier.SET_BACKGROUND, sdkws_pb2.SetAppBackgroundStatusReq(userID=alice, isBackground=True)
    )
    await api.call("/auth/force_logout", {"userID": alice, "platformID": IOS})
    await old.wait_closed()
    await devices.connect(alice, IOS, 1)
    await devices.connect(alice, ANDROID, 0)
    await watcher.until(lambda: heard(watcher, alice)[-1:] == [[IOS, ANDROID]])

    def online() -> dict[str, float]:
        lines = httpx.get(f"{stack.web_url}/metrics", timeout=ANSWER_SECONDS).text.splitlines()
        return {line.split('"')[1]: float(line.split()[-1]) for line in lines if line.startswith("im_online_users{")}

    await until(lambda: sorted(online().values()) == [1.0, 2.0], "the counters of both nodes")
    stack.kill_gateway(1)
    killed_at = time.monotonic()

    await until(lambda: devices_online(api, alice, [ANDROID]), "alice to be offline on the dead node")
    assert time.monotonic() - killed_at < NODE_TTL_SECONDS + FORGET_SECONDS + SLACK_SECONDS
    await watcher.until(lambda: heard(watcher, alice)[-1:] == [[ANDROID]])
    await until(lambda: list(online().values()) == [2.0], "the dead node's counters to go")
    await until(lambda: len(calls_of(app, alice)) == 6, "the hooks")
    stack.start_gateway(1)
    stack.wait_gateway(1)

    calls = calls_of(app, alice)
    assert [(call.command, call.body["platformID"]) for call in calls] == [
        (PresenceCommand.ONLINE, IOS),
        (PresenceCommand.KICK_OFF, IOS),
        (PresenceCommand.OFFLINE, IOS),
        (PresenceCommand.ONLINE, IOS),
        (PresenceCommand.ONLINE, ANDROID),
        (PresenceCommand.OFFLINE, IOS),
    ]
    assert calls[0].body["connID"] == calls[2].body["connID"]
    assert calls[3].body["connID"] == calls[5].body["connID"]
    common = {"callbackCommand", "operationID", "platformID", "platform", "userID", "seq"}
    assert set(calls[0].body) == common | {"connID", "isAppBackground"}
    assert set(calls[1].body) == common
    assert set(calls[2].body) == common | {"connID"}
    assert calls[0].body["platform"] == "IOS"
    assert calls[1].operation_id == calls[2].operation_id == calls[2].body["operationID"] != ""
    assert abs(calls[0].body["seq"] / 1000 - time.time()) < 60


async def devices_online(api: Api, user_id: str, platforms: list[int]) -> bool:
    (found,) = await api.call("/user/get_users_online_status", {"userIDs": [user_id]})
    return [item["platformID"] for item in found["detailPlatformStatus"]] == platforms


# -- login policies


@pytest.mark.parametrize(
    ("policy", "kicked_by_phone", "kicked_by_pc"),
    [(0, set(), set()), (1, {IOS}, set()), (4, {IOS, ANDROID}, {WINDOWS}), (5, {IOS, ANDROID, WEB, IPAD}, set())],
)
async def test_a_login_kicks_across_nodes_whom_the_policy_names_and_nobody_else(
    stack: Stack,
    api: Api,
    devices: Devices,
    names: Iterator[str],
    policy: int,
    kicked_by_phone: set[int],
    kicked_by_pc: set[int],
) -> None:
    use_policy(stack, policy)
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    tokens = {platform: await api.token(alice, platform) for platform in (IOS, ANDROID, WINDOWS, WEB, IPAD)}
    old = {platform: await devices.connect(alice, platform, token=token) for platform, token in tokens.items()}
    if policy == 5:
        # They push each other out: only the last one and the PC are still there.
        for platform in (IOS, ANDROID, WEB):
            assert await old[platform].wait_closed() == close.KICKED.code
            assert devices.states(alice, platform) == {tokens[platform]: TokenState.KICKED}
        kicked_by_phone = {IPAD}
    elif policy == 4:
        assert await old[IOS].wait_closed() == close.KICKED.code
        kicked_by_phone = {ANDROID}
    bobs = await devices.connect(bob, IOS)
    there = {platform for platform, client in old.items() if not client.kicked}

    new_token = await api.token(alice, IOS)
    phone = await devices.connect(alice, IOS, node=1, token=new_token)
    for platform in kicked_by_phone:
        assert await old[platform].wait_closed() == close.KICKED.code
        assert old[platform].kicked
    pc_token = await api.token(alice, OSX)
    pc = await devices.connect(alice, OSX, node=1, token=pc_token)
    for platform in kicked_by_pc:
        assert await old[platform].wait_closed() == close.KICKED.code

    stay = there - kicked_by_phone - kicked_by_pc
    for client in (phone, pc, bobs, *(old[platform] for platform in stay)):
        await client.max_seqs()
        assert not client.kicked
    for platform, token in tokens.items():
        expected = TokenState.NORMAL if platform in stay else TokenState.KICKED
        assert devices.states(alice, platform)[token] == expected, platform
    assert devices.states(alice, IOS)[new_token] == TokenState.NORMAL
    assert devices.states(alice, OSX) == {pc_token: TokenState.NORMAL}
    # The same token again, on the other node: nobody goes.
    again = await devices.connect(alice, IOS, node=0, token=new_token)
    await again.max_seqs()
    await phone.max_seqs()
    assert not phone.kicked
    assert sorted(route["platform_id"] for route in devices.routes(alice)) == sorted([IOS, IOS, OSX, *stay])


async def test_an_end_has_no_more_valid_tokens_than_it_may(api: Api, devices: Devices, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)

    tokens = [await api.token(alice, IOS) for _ in range(5)]

    states = devices.states(alice, IOS)
    assert [states[token] for token in tokens] == [TokenState.KICKED] * 2 + [TokenState.NORMAL] * 3
