"""Who writes to whom: users that are registered for one run, so that every conversation begins at seq 1.

A cast is a function named by a workload. It needs the processes running and leaves them idle.
"""

from __future__ import annotations

import asyncio
import random
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import orjson

from imserver.conf import BASE_DIR
from imserver.devservices.launch import launcher
from imserver.protocol.conversations import group_conversation_id
from imserver.storage.msg_blocks import MsgBlockWriter
from tests.benchmarks.plan import ChatPlan, LoadError, UserPlan
from tests.benchmarks.processes import Product
from tests.client import Api, RequestRefused
from tests.stack import wait_until

if TYPE_CHECKING:
    from tests.benchmarks.cases import Case, Options

USERS_AT_ONCE = 20
#: Files of a process that are no client's connection.
SPARE_FILES = 500
#: Ports of the client side that others may need.
SPARE_PORTS = 2000
PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(slots=True)
class Cast:
    users: list[UserPlan]
    chats: list[ChatPlan]
    notes: list[str] = field(default_factory=list)


class Registry:
    """Registers users of one run; ``report`` gets the share that is done."""

    def __init__(self, product: Product, prefix: str, report: Callable[[float], None]) -> None:
        self.product = product
        self._prefix = prefix
        self._report = report

    async def make_users(self, api: Api, count: int, *, spread: int = 0) -> list[UserPlan]:
        """New users, all with ids of one length, spread at random over the nodes, or over the first ``spread``."""
        nodes = min(spread or self.product.gateways, self.product.gateways)
        chance = random.Random(6)
        names = [f"{self._prefix}{number:06d}" for number in range(count)]
        users: list[UserPlan] = []
        for start in range(0, count, USERS_AT_ONCE):
            some = names[start : start + USERS_AT_ONCE]
            await api.register(*some)
            tokens = await asyncio.gather(*(api.token(name) for name in some))
            users += [UserPlan(name, token, chance.randrange(nodes)) for name, token in zip(some, tokens, strict=True)]
            self._report(len(users) / count)
        return users

    async def make_group(self, api: Api, users: list[UserPlan]) -> tuple[str, int]:
        """A group of all users, the first its owner: its id, and the messages that its chat holds from the start."""
        body = {
            "ownerUserID": users[0].user_id,
            "memberUserIDs": [user.user_id for user in users[1:]],
            "adminUserIDs": [],
            "groupInfo": {"groupName": "benchmark", "groupType": 2},
        }
        group_id: str = (await api.call("/group/create_group", body))["groupInfo"]["groupID"]
        blocks = MsgBlockWriter(self.product.database)
        conversation_id = group_conversation_id(group_id)
        wait_until(lambda: blocks.last_seq(conversation_id), "the first notice of the group to be stored")
        return group_id, blocks.last_seq(conversation_id)


Casting = Callable[[Registry, Api, "Case", "Options"], Awaitable[Cast]]
CASTS: dict[str, Casting] = {}


def _cast(casting: Casting) -> Casting:
    CASTS[casting.__name__] = casting
    return casting


async def make_cast(registry: Registry, case: Case, options: Options) -> Cast:
    """Raises LoadError."""
    try:
        async with Api(registry.product.web_url, registry.product.secret) as api:
            return await CASTS[case.workload.cast](registry, api, case, options)
    except (RequestRefused, httpx.HTTPError) as error:
        raise LoadError(f"the users could not be registered: {error!r}") from error


def _pairs_of(count: int) -> list[ChatPlan]:
    return [ChatPlan(2 * number, [2 * number + 1]) for number in range(count)]


@_cast
async def pairs(registry: Registry, api: Api, _case: Case, options: Options) -> Cast:
    return Cast(await registry.make_users(api, 2 * options.pairs), _pairs_of(options.pairs))


@_cast
async def spread_pairs(registry: Registry, api: Api, _case: Case, options: Options) -> Cast:
    return Cast(await registry.make_users(api, 2 * options.pairs, spread=options.spread), _pairs_of(options.pairs))


@_cast
async def one_pair(registry: Registry, api: Api, _case: Case, _options: Options) -> Cast:
    return Cast(await registry.make_users(api, 2), _pairs_of(1))


@_cast
async def crowd(registry: Registry, api: Api, _case: Case, options: Options) -> Cast:
    """The pairs last: they connect when all others are idle."""
    count, why = most_connections(options.connections)
    chatting = min(options.pairs, count // 2)
    users = await registry.make_users(api, count)
    chats = [ChatPlan(count - 2 * number, [count - 2 * number + 1]) for number in range(1, chatting + 1)]
    note = f"{count:,} connections, {2 * chatting} of them of users who chat"
    return Cast(users, chats, [note + (f"; more are not possible: {why}" if why else "")])


@_cast
async def group(registry: Registry, api: Api, _case: Case, options: Options) -> Cast:
    users = await registry.make_users(api, options.members)
    group_id, before = await registry.make_group(api, users)
    receivers = list(range(1, len(users)))
    return Cast(users, [ChatPlan(0, receivers, group_id, before)])


@_cast
async def strangers(registry: Registry, api: Api, _case: Case, options: Options) -> Cast:
    return Cast(await registry.make_users(api, options.strangers), [])


@_cast
async def histories(registry: Registry, api: Api, _case: Case, options: Options) -> Cast:
    """Chats with a past, written by ``prefill.py`` in a process with the product's settings."""
    users = await registry.make_users(api, 2 * len(options.history))
    chats = [ChatPlan(2 * n, [2 * n + 1], before=size) for n, size in enumerate(options.history)]
    jobs = [[users[chat.sender].user_id, users[chat.receivers[0]].user_id, chat.before] for chat in chats]
    filling = await asyncio.to_thread(
        subprocess.run,
        launcher([sys.executable, "-m", "tests.benchmarks.prefill", str(options.text_bytes)]),
        cwd=BASE_DIR,
        env=registry.product.environ,
        input=orjson.dumps(jobs),
        capture_output=True,
        check=False,
    )
    if filling.returncode:
        raise LoadError(f"the histories could not be written\n{filling.stderr.decode(errors='replace')[-2000:]}")
    return Cast(users, chats)


def most_connections(wanted: int) -> tuple[int, str]:
    """How many of them this machine allows a process, and which limit says so when it is fewer."""
    # Gateway and generator raise their soft limits themselves.
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = {}
    if files != resource.RLIM_INFINITY:
        limits[f"RLIMIT_NOFILE is at most {files:,} files a process"] = files - SPARE_FILES
    if PORT_RANGE.exists():
        first, last = map(int, PORT_RANGE.read_text("ascii").split())
        limits[f"net.ipv4.ip_local_port_range {first} to {last}"] = last - first + 1 - SPARE_PORTS
    why = min(limits, key=lambda name: limits[name], default="")
    if not why or limits[why] >= wanted:
        return wanted, ""
    return max(limits[why], 2), why
