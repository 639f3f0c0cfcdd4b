"""Marking a mention happens behind the answer: it costs other messages nothing, and its failure is nobody's."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from imserver.actions import mentions
from imserver.constants import SessionType
from imserver.errors import ServerBusy
from imserver.protocol.gen.sdkws_pb2 import MsgData


def group_message(*named: str, session_type: int = SessionType.GROUP) -> MsgData:
    return MsgData(sendID="a", groupID="g", sessionType=session_type, atUserIDList=named)


def appended(outcome: bytes | Exception) -> asyncio.Future[bytes]:
    future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
        future.exception()
    else:
        future.set_result(outcome)
    return future


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Looks for the members of a group; each fails as while MongoDB is away."""
    seen: list[str] = []

    class Away:
        async def find_members(self, group_id: str, _named: Any) -> None:
            seen.append(group_id)
            raise AutoReconnect("away")

    monkeypatch.setattr(mentions, "group_store", Away)
    return seen


async def finished() -> None:
    async with asyncio.timeout(5):
        await asyncio.sleep(0)
        await asyncio.gather(*mentions._running)


async def test_a_failure_is_logged_and_the_send_succeeds(looks: list[str], caplog: pytest.LogCaptureFixture) -> None:
    future = appended(b"answer")
    with caplog.at_level(logging.WARNING, logger=mentions.__name__):
        mentions.follow(group_message("b"), "op", future)
        await finished()

    assert (looks, await future) == (["g"], b"answer")
    (record,) = caplog.records
    assert (record.operation_id, record.error) == ("op", "AutoReconnect")  # type: ignore[attr-defined]


@pytest.mark.parametrize("msg", [group_message(), group_message("b", session_type=SessionType.SINGLE)])
async def test_a_message_that_names_nobody_in_a_group_starts_nothing(looks: list[str], msg: MsgData) -> None:
    mentions.follow(msg, "op", appended(b"answer"))
    await finished()

    assert looks == []


async def test_a_message_that_is_not_in_its_log_marks_nobody(looks: list[str]) -> None:
    mentions.follow(group_message("b"), "op", appended(ServerBusy("full")))
    await finished()

    assert looks == []
