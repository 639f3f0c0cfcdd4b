"""Fixtures. Real stores always: started once on free ports; each test owns its keys and database."""

from __future__ import annotations

import dataclasses
import os
import secrets
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from pymongo.database import Database

from imserver.devservices.servers import EmbeddedServers

# Before anything reads the configuration: nothing of a test may ever reach a server that is not the tests' own.
SERVERS = EmbeddedServers()
os.environ["REDIS_URL"] = SERVERS.redis_url
os.environ["MONGO_URL"] = SERVERS.mongo_url
os.environ["DJANGO_SETTINGS_MODULE"] = "imserver.settings"
os.environ["KEY_PREFIX"] = f"t{secrets.token_hex(4)}:"
os.environ["MONGO_DATABASE"] = f"test_{secrets.token_hex(6)}"

import django

from imserver import conf
from imserver.storage import clients, keys, read_seq, seq, seq_limits, webhooks
from imserver.storage.clients import Document
from imserver.storage.indexes import ensure_indexes
from imserver.storage.lean_redis import LeanRedis
from tasks import receivers
from tasks.push import layer
from tests.client import Api, Client, Connect
from tests.node_probe import MakeNode, NodeProbe
from tests.stack import Stack

django.setup()

# How long an example takes says only how busy the machine is.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

#: A machine that stands still for a moment is no outage, and no owner of a shard is dead.
STALL_SECONDS = 20
LEASE_MS = 60_000
clients._MONGO_OPTIONS.update(serverSelectionTimeoutMS=STALL_SECONDS * 1000, connectTimeoutMS=STALL_SECONDS * 1000)


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedServers]:
    """The embedded Valkey and MongoDB. A test that stops one must start it again."""
    with SERVERS:
        yield SERVERS
        layer.stop()
        clients.get_mongo_client().close()


@pytest.fixture(scope="session")
def shared_stack(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(servers, tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="module")
def gateway_server(request: pytest.FixtureRequest) -> str:
    """The server of the gateway that tests connect to; set by ``on_both_servers``."""
    return getattr(request, "param", conf.get_config().gateway_server)


@pytest.fixture(scope="module")
def stack(shared_stack: Stack, gateway_server: str) -> Iterator[Stack]:
    """The product, running. Shared: tests use users of their own and may restart the gateway, but kill nothing else."""
    if gateway_server == conf.get_config().gateway_server:
        yield shared_stack
    else:
        with shared_stack.with_gateway(gateway_server, GATEWAY_SERVER=gateway_server) as running:
            yield running


@pytest.fixture
def own_stack(servers: EmbeddedServers, tmp_path: Path) -> Iterator[Stack]:
    """The product, running for one test that breaks parts of it."""
    with Stack(servers, tmp_path / "stack") as running:
        yield running


@pytest.fixture
async def api(stack: Stack) -> AsyncIterator[Api]:
    """An app server of the shared stack."""
    async with Api(stack.web_url) as running:
        yield running


@pytest.fixture
async def connect(stack: Stack, api: Api) -> AsyncIterator[Connect]:
    """Connects a registered user with a fresh token: ``await connect(user_id, sdk_type="js")``; closed at the end."""
    clients: list[Client] = []

    async def connect(user_id: str, *, platform_id: int = 1, **options: Any) -> Client:
        token = await api.token(user_id, platform_id)
        client = Client(stack.gateway_url, user_id, token, platform_id=platform_id, **options)
        clients.append(client)
        await client.connect()
        await client.until_registered()
        return client

    yield connect
    for client in clients:
        await client.close()


@pytest.fixture
def lean_connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes the connections that a test's stages and runners opened.

    An exception that they were part of keeps them until the collector finds them, and their sockets would be blamed on
    whatever test runs by then.
    """
    made: weakref.WeakSet[LeanRedis] = weakref.WeakSet()
    init = LeanRedis.__init__

    def noted(self: LeanRedis, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        made.add(self)

    monkeypatch.setattr(LeanRedis, "__init__", noted)
    yield
    for connection in list(made):
        connection.close()


@pytest.fixture
def config(servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch, lean_connections: None) -> Iterator[conf.Config]:
    """A configuration with keys and a database of the test's own, for code that runs in this process."""
    own = dataclasses.replace(
        conf.get_config(),
        key_prefix=f"t{secrets.token_hex(4)}:",
        mongo_database=f"test_{secrets.token_hex(6)}",
        lease_ms=LEASE_MS,
    )
    monkeypatch.setattr(conf, "_config", own)
    monkeypatch.setattr(keys, "WAKE_TTL_MS", LEASE_MS)
    # A fresh database's first collections take MongoDB a while, too.
    for module, name in (
        (webhooks, "PATIENCE_SECONDS"),
        (webhooks, "FIRST_PATIENCE_SECONDS"),
        (seq, "RESERVE_SECONDS"),
        (read_seq, "SEED_SECONDS"),
        (seq_limits, "FILL_SECONDS"),
        (receivers, "LOOK_UP_SECONDS"),
    ):
        monkeypatch.setattr(module, name, STALL_SECONDS)
    yield own
    clients.get_mongo_client().drop_database(own.mongo_database)
    client = clients.get_redis()
    for key in client.scan_iter(match=f"{own.key_prefix}*", count=1000):
        client.delete(key)


@pytest.fixture
def redis_client(config: conf.Config) -> redis.Redis:
    client: redis.Redis = clients.get_redis()
    return client


@pytest.fixture
def database(config: conf.Config) -> Database[Document]:
    """The test's database, with indexes."""
    database = clients.get_mongo()
    ensure_indexes(database)
    return database


@pytest.fixture
def names() -> Iterator[str]:
    """Makes user ids that no other test has: ``next(names)``."""
    return (f"u{secrets.token_hex(5)}" for _ in iter(int, 1))


@pytest.fixture
def make_node(redis_client: redis.Redis) -> Iterator[MakeNode]:
    nodes: list[NodeProbe] = []

    def make() -> NodeProbe:
        nodes.append(NodeProbe(redis_client))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


#: The modules that take longest, longest first: started last, one of them would run alone at the end.
LONG_MODULES = (
    "test_wasm_sdk_connection",
    "test_kills",
    "test_bench",
    "test_webhooks",
    "test_up",
    "test_many_nodes",
    "test_demo_page",
    "test_health_and_metrics",
    "test_wasm_sdk",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: number for number, name in enumerate(LONG_MODULES)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))
