"""The PyPI package openim-sdk-core, unchanged, against the real processes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from imserver.conf import BASE_DIR
from imserver.protocol.conversations import single_conversation_id
from tests.client import Api
from tests.stack import Stack, wait_until

pytestmark = pytest.mark.acceptance

SCRIPT = Path(__file__).with_name("sdk_user.py")
MSGS_EACH = 150
SECONDS = 60
END_SECONDS = 60

Event = dict[str, Any]


class SdkUser:
    """The SDK in a child process: its events in order, commands to it, and the database it keeps."""

    def __init__(self, user_id: str, data_dir: Path) -> None:
        self.user_id = user_id
        self.events: list[Event] = []
        self.output: list[str] = []
        self._data_dir = data_dir
        self._changed = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self, gateway_url: str, token: str) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", str(SCRIPT), gateway_url, self.user_id, token, str(self._data_dir)),
            cwd=BASE_DIR,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        self._reader = asyncio.create_task(self._read(self._process.stdout))

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        async for line in stdout:
            try:
                self.events.append(json.loads(line))
            except json.JSONDecodeError:
                self.output.append(line.decode(errors="replace"))
            self._changed.set()

    async def send(self, receiver: str, texts: list[str]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"receiver": receiver, "texts": texts}).encode() + b"\n")
        await self._process.stdin.drain()

    async def until(self, condition: Callable[[], object], what: str) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            last = self.events[-3:] + self.output[-20:]
            raise AssertionError(f"{self.user_id} waited {SECONDS} s for {what}; last: {last}") from None

    async def until_told(self, *events: str, times: int = 1) -> None:
        await self.until(lambda: len(self.told(*events)) >= times, f"{' or '.join(events)} {times} times")

    def told(self, *events: str) -> list[Event]:
        return [item for item in self.events if item["event"] in events]

    def stored_seqs(self, conversation_id: str) -> list[int]:
        """What the SDK's own database holds of a conversation."""
        with closing(sqlite3.connect(self._data_dir / f"OpenIM_pyws_{self.user_id}.db")) as database:
            rows = database.execute(
                "SELECT seq FROM messages WHERE conversation_id = ? ORDER BY seq", (conversation_id,)
            )
            return [seq for (seq,) in rows]

    async def end(self) -> int:
        """Close its stdin and wait for its end; returns the exit code."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            return await asyncio.wait_for(self._process.wait(), END_SECONDS)
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()
        finally:
            assert self._reader is not None
            await self._reader


class Link:
    """A TCP connection to the gateway that can be cut, so that only one user loses it."""

    def __init__(self, gateway_url: str) -> None:
        target = urlsplit(gateway_url)
        self._target = (target.hostname, target.port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    async def open(self) -> None:
        """Let connections through, on the same port each time."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Drop what is connected and refuse what tries."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection(*self._target)
        await asyncio.gather(self._pipe(reader, other_writer), self._pipe(other_reader, writer))

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


Login = Callable[..., Awaitable[SdkUser]]


@pytest.fixture
async def login(stack: Stack, api: Api, tmp_path: Path) -> AsyncIterator[Login]:
    """Logs a registered user in through the SDK: ``await login(user_id)``; ended at the end."""
    users: list[SdkUser] = []

    async def login(user_id: str, gateway_url: str = "", token: str = "") -> SdkUser:
        user = SdkUser(user_id, tmp_path / user_id)
        await user.start(gateway_url or stack.gateway_url, token or await api.token(user_id))
        users.append(user)
        return user

    yield login
    for user in users:
        await user.end()


def stored_blocks(stack: Stack, conversation_id: str) -> dict[str, list[int]]:
    """Seqs of the messages in each document of a conversation."""
    return {
        document["doc_id"]: [slot["msg"]["seq"] for slot in document["msgs"] if slot["msg"]]
        for document in stack.database["msg"].find({"conversation_id": conversation_id}).sort("block", 1)
    }


async def test_two_sdk_users_send_150_messages_each_and_the_conversation_is_numbered_1_to_300(
    stack: Stack, api: Api, login: Login, names: Iterator[str]
) -> None:
    alice_id, bob_id = sorted([next(names), next(names)])
    await api.register(alice_id, bob_id)
    conversation_id = single_conversation_id(alice_id, bob_id)
    alice, bob = await login(alice_id), await login(bob_id)
    await asyncio.gather(alice.until_told("started"), bob.until_told("started"))
    said = {user_id: [f"{user_id} {number}" for number in range(MSGS_EACH)] for user_id in (alice_id, bob_id)}

    await asyncio.gather(alice.send(bob_id, said[alice_id]), bob.send(alice_id, said[bob_id]))
    everything = ("pushed", "pulled")
    await asyncio.gather(*(user.until_told(*everything, times=2 * MSGS_EACH) for user in (alice, bob)))

    for user in (alice, bob):
        # All of it on the first connection: sending as fast as one can is no reason to be cut off.
        assert user.told("error", "connect failed", "pulled") == []
        pushed = user.told("pushed")
        assert [item["seq"] for item in pushed] == list(range(1, 2 * MSGS_EACH + 1))
        assert {item["conversation_id"] for item in pushed} == {conversation_id}
        for sender, texts in said.items():
            assert [item["text"] for item in pushed if item["sender"] == sender] == texts
    assert alice.told("pushed") == bob.told("pushed")
    wait_until(
        lambda: (
            stored_blocks(stack, conversation_id)
            == {f"{conversation_id}:{block}": list(range(block * 100 + 1, block * 100 + 101)) for block in range(3)}
        ),
        "three full blocks",
    )
    for user in (alice, bob):
        assert await user.end() == 0
        assert user.stored_seqs(conversation_id) == list(range(1, 2 * MSGS_EACH + 1))


async def test_the_sdk_pulls_what_it_missed_while_its_connection_was_lost(
    stack: Stack, api: Api, login: Login, names: Iterator[str]
) -> None:
    alice_id, bob_id = next(names), next(names)
    await api.register(alice_id, bob_id)
    conversation_id = single_conversation_id(alice_id, bob_id)
    link = Link(stack.gateway_url)
    await link.open()
    alice, bob = await login(alice_id), await login(bob_id, gateway_url=link.url)
    await asyncio.gather(alice.until_told("started"), bob.until_told("started"))
    await alice.send(bob_id, ["seen"])
    await bob.until_told("pushed")

    await link.cut()
    await bob.until_told("connect failed")
    await alice.send(bob_id, [f"missed {number}" for number in range(120)])
    await alice.until_told("pushed", times=121)
    await link.open()
    await bob.until_told("pulled", times=120)
    await alice.send(bob_id, ["seen again"])
    await bob.until_told("pushed", times=2)

    assert [(item["seq"], item["text"]) for item in bob.told("pulled")] == [
        (number + 2, f"missed {number}") for number in range(120)
    ]
    assert [(item["seq"], item["text"]) for item in bob.told("pushed")] == [(1, "seen"), (122, "seen again")]
    assert await bob.end() == 0
    assert bob.stored_seqs(conversation_id) == list(range(1, 123))
    await link.cut()


async def test_the_sdk_is_told_that_it_was_kicked(stack: Stack, api: Api, login: Login, names: Iterator[str]) -> None:
    user_id = next(names)
    await api.register(user_id)
    user = await login(user_id)
    await user.until_told("started")

    await api.call("/auth/force_logout", {"userID": user_id, "platformID": 1})

    await user.until_told("kicked")
    assert await user.end() == 0
    assert len(user.told("connected")) == 1


async def test_the_sdk_refuses_to_start_with_a_bad_token(
    stack: Stack, api: Api, login: Login, names: Iterator[str]
) -> None:
    user_id, other_id = next(names), next(names)
    await api.register(user_id, other_id)
    for token in ("not.a.token", await api.token(other_id)):
        user = await login(user_id, token=token)

        await user.until_told("start raised")

        assert await user.end() == 0
        assert user.told("connected", "started") == []
