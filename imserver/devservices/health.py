"""Asks processes over HTTP whether they are well. An empty answer means yes, else it says in words why not."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from tornado.httpclient import AsyncHTTPClient, HTTPClientError

REQUEST_SECONDS = 3.0
LONGEST_REASON = 300

Check = Callable[[], Awaitable[str]]


async def _get(url: str) -> tuple[int, bytes]:
    """Raises ``ConnectionError`` when there is no answer, whatever its code."""
    client = AsyncHTTPClient()
    try:
        response = await client.fetch(
            url, raise_error=False, connect_timeout=REQUEST_SECONDS, request_timeout=REQUEST_SECONDS
        )
    except (OSError, HTTPClientError) as error:
        raise ConnectionError(str(error)) from error
    return response.code, response.body or b""


def answers(url: str) -> Check:
    """Healthy when ``url`` answers 200."""

    async def check() -> str:
        try:
            code, _ = await _get(url)
        except ConnectionError as error:
            return f"{url} does not answer ({error})"
        return "" if code == 200 else f"{url} answers {code}"

    return check


def reports_ok(url: str) -> Check:
    """Healthy when ``url`` answers JSON whose ``status`` is ``ok``; else the checks that fail are the reason."""

    async def check() -> str:
        try:
            code, body = await _get(url)
        except ConnectionError as error:
            return f"{url} does not answer ({error})"
        try:
            report = json.loads(body)
            if report["status"] == "ok":
                return ""
            failing = [
                f"{name}: {check['detail'] or check['status']}"
                for name, check in report["checks"].items()
                if check["status"] != "ok"
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{url} answers {code} and no health report"
        return ("; ".join(failing) or f"{url} says {report['status']}")[:LONGEST_REASON]

    return check
