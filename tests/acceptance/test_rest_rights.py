"""Every route of the URL table: whose token it takes, and that who is refused has changed nothing (protocol: rest.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from imserver.urls import API
from tests.acceptance.route_table import ROWS, World
from tests.client import Api

pytestmark = pytest.mark.acceptance


def test_every_route_has_a_row() -> None:
    assert sorted(ROWS) == sorted(str(route.pattern) for route in API)


async def test_every_route_refuses_who_has_no_right_to_it_and_takes_the_same_request_of_who_has(
    api: Api, names: Iterator[str]
) -> None:
    world = await World.make(api, names)
    before = await world.seen()

    asked = [(route, by) for route, row in ROWS.items() for by in row.refuses]
    codes = await asyncio.gather(*(world.code(route, ROWS[route].body, by) for route, by in asked))

    assert dict(zip(asked, codes, strict=True)) == dict.fromkeys(asked, 1002)
    await world.check_unchanged(before)
    taken = {}
    for route, row in ROWS.items():
        envelope = await world.post(route, row.body, row.by)
        taken[route] = (envelope["errCode"], envelope["errDlt"] if envelope["errCode"] != row.code else "")
    assert taken == {route: (row.code, "") for route, row in ROWS.items()}
