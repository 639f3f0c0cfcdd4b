"""Routes of OpenIM's that are not built say so (docs/compatibility.md)."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from imserver.rest import unsupported
from tests.client import ANSWER_SECONDS, Api
from tests.stack import Stack

pytestmark = pytest.mark.acceptance


async def test_an_admin_is_told_what_to_do_instead(api: Api) -> None:
    for route, hint in {**unsupported.ROUTES, **unsupported.USER_ROUTES}.items():
        envelope = await api.post(f"/{route}", {})

        assert envelope == {"errCode": 90102, "errMsg": "NotSupportedError", "errDlt": hint}


async def test_others_are_refused_as_the_original_refuses_them(api: Api, names: Iterator[str]) -> None:
    user_id = next(names)
    await api.register(user_id)
    token = await api.token(user_id)

    codes = {**dict.fromkeys(unsupported.ROUTES, 1002), **dict.fromkeys(unsupported.USER_ROUTES, 90102)}
    for route, code in codes.items():
        assert (await api.post(f"/{route}", {}, token=token))["errCode"] == code
        assert (await api.post(f"/{route}", {}, token=""))["errCode"] == 1001
        assert (await api.post(f"/{route}", {}, token="abc"))["errCode"] == 1503


async def test_routes_that_are_read_say_so_to_everybody(stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.web_url, timeout=ANSWER_SECONDS) as http:
        for route, hint in unsupported.GET_ROUTES.items():
            answer = await http.get(f"/{route}")

            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
            assert answer.json() == {"errCode": 90102, "errMsg": "NotSupportedError", "errDlt": hint}
