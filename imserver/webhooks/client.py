"""One HTTP call of a webhook. Connections are kept and used again, by event loop."""

from __future__ import annotations

import asyncio
import time
from weakref import WeakKeyDictionary

import httpx

from imserver import metrics
from imserver.storage.webhooks import Hook

#: Connections of a process to all app servers; a call that finds none free waits within its timeout.
MOST_CONNECTIONS = 100
#: An app server behind a balancer may drop an idle connection; we let go first.
KEEP_ALIVE_SECONDS = 30
#: "Come back later" in the range of the client's own faults.
_RETRYABLE_STATUS = frozenset({408, 425, 429})


#: What a call gets when the app server drops the kept connection at the moment it is used again.
_DROPPED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


class HookError(Exception):
    """A call did not succeed; the text says why, without the address and the message."""


class HookFailed(HookError):
    """It may succeed later. ``is_down`` when there was no answer at all."""

    def __init__(self, reason: str, *, is_down: bool) -> None:
        super().__init__(reason)
        self.is_down = is_down


class HookRejected(HookError):
    """The app server does not want this call; it will not want it later."""


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()


def _get_client() -> httpx.AsyncClient:
    loop = asyncio.get_running_loop()
    client = _clients.get(loop)
    if client is None:
        client = _clients[loop] = httpx.AsyncClient(
            limits=httpx.Limits(
                max_connections=MOST_CONNECTIONS,
                max_keepalive_connections=MOST_CONNECTIONS,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
            ),
            timeout=None,  # noqa: S113  (post() limits the whole call)
            # An app server is called directly; a proxy of the environment is for something else.
            trust_env=False,
        )
    return client


async def close_client() -> None:
    """Close the running loop's connections; the next call opens new ones."""
    client = _clients.pop(asyncio.get_running_loop(), None)
    if client is not None:
        await client.aclose()


async def post(hook: Hook, body: bytes, operation_id: str, query: dict[str, str] | None = None) -> bytes:
    """Call a hook; returns the body of its answer.

    Raises:
        HookFailed: not reachable, no answer in time, or status 5xx, 408, 425, 429.
        HookRejected: any other status that is not 2xx.
    """
    started = time.perf_counter()
    outcome = "failed"
    try:
        async with asyncio.timeout(hook.timeout_seconds):
            response = await _send(hook, body, operation_id, query)
        if not response.is_success:
            reason = f"answered HTTP {response.status_code}"
            if response.is_server_error or response.status_code in _RETRYABLE_STATUS:
                raise HookFailed(reason, is_down=False)
            outcome = "rejected"
            raise HookRejected(reason)
        outcome = "ok"
        return response.content
    except TimeoutError as error:
        raise HookFailed(f"no answer within {hook.timeout_seconds:g} s", is_down=True) from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise HookFailed(f"not reachable: {error.__class__.__name__}", is_down=True) from error
    finally:
        metrics.WEBHOOK_CALLS.labels(hook.command, outcome).inc()
        metrics.WEBHOOK_SECONDS.labels(hook.command).observe(time.perf_counter() - started)


async def _send(hook: Hook, body: bytes, operation_id: str, query: dict[str, str] | None) -> httpx.Response:
    request = _get_client().build_request(
        "POST",
        f"{hook.url}/{hook.command}",
        params=query or None,
        content=body,
        headers={b"Content-Type": b"application/json", b"operationID": _header_value(operation_id)},
    )
    try:
        return await _get_client().send(request)
    except _DROPPED:
        return await _get_client().send(request)


def _header_value(text: str) -> bytes:
    """A client chose the operation id: what a header cannot carry becomes a question mark."""
    return "".join(char if char.isprintable() else "?" for char in text).strip().encode()
