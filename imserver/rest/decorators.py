"""What every REST route shares: headers, token, body, error envelope, CORS.

A route is an async function that takes a ``Call`` and returns a protobuf message, a dict, or None for no data.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

import orjson
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from google.protobuf.message import Message

from imserver.actions import auth
from imserver.actions.auth import Claims
from imserver.actions.failures import as_im_error
from imserver.actions.groups import Operator
from imserver.conf import get_config
from imserver.constants import Platform
from imserver.errors import (
    ArgsError,
    IMError,
    InternalError,
    NoPermission,
)
from imserver.protocol.json_mapping import JsonMismatch, from_json, to_json

logger = logging.getLogger(__name__)

#: The browser clients call from any origin and identify by token, never by cookie.
CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "*",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Allow-Credentials": "false",
    "Access-Control-Max-Age": "172800",
}

M = TypeVar("M", bound=Message)


class Who(Enum):
    """Whose token a route asks for."""

    NOBODY = "no token"
    ANY = "any valid token"
    ADMIN = "a token of an app admin"


@dataclass(slots=True)
class Call:
    """One request: body as plain JSON values, and who asks."""

    body: dict[str, Any]
    operation_id: str
    claims: Claims | None
    #: Address of this API as the caller reaches it, without a slash at the end.
    api_url: str = ""
    content_type: str = ""

    def parse(self, message_type: type[M]) -> M:
        """The body as a message. Raises ArgsError."""
        message = message_type()
        try:
            from_json(message, self.body)
        except JsonMismatch as error:
            raise ArgsError(str(error)) from error
        return message

    @property
    def user_id(self) -> str:
        """Of the token; empty where none is asked for."""
        return self.claims.user_id if self.claims else ""

    @property
    def is_admin(self) -> bool:
        claims = self.claims
        return claims is not None and claims.platform_id == Platform.ADMIN and claims.user_id in get_config().admins

    @property
    def operator(self) -> Operator:
        return Operator(self.user_id, self.is_admin, self.operation_id)

    def check_self(self, user_id: str) -> None:
        """The token's user is ``user_id``, or an admin. Raises ArgsError (no id), NoPermission."""
        if not user_id:
            raise ArgsError("the user's id is empty")
        if not self.is_admin and (self.claims is None or self.user_id != user_id):
            raise NoPermission("only the user itself or an admin may do this")


Answer = Message | dict[str, Any] | list[Any] | str | None
#: Reads a request's body as JSON values; raises ArgsError, RequestDataTooBig.
BodyReader = Callable[[HttpRequest], dict[str, Any]]
Handler = Callable[[Call], Awaitable[Answer]]
View = Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse]]


def read_json(request: HttpRequest) -> dict[str, Any]:
    """The body as a JSON object. Raises ArgsError."""
    try:
        body = orjson.loads(request.body or b"{}")
    except orjson.JSONDecodeError as error:
        raise ArgsError("the body is not JSON") from error
    if not isinstance(body, dict):
        raise ArgsError("the body is not a JSON object")
    return body


def route(who: Who, read_body: BodyReader = read_json) -> Callable[[Handler], View]:
    """Make a view of a handler."""

    def wrap(handler: Handler) -> View:
        async def view(request: HttpRequest) -> HttpResponse:
            if request.method == "OPTIONS":
                return HttpResponse(status=200, headers=CORS_HEADERS)
            operation_id = request.headers.get("operationID", "")
            try:
                data = await handler(await _read_call(request, operation_id, who, read_body))
            except Exception as error:  # noqa: BLE001  (every failure leaves in the envelope)
                return _envelope(_refusal(error, operation_id, request.path))
            return _envelope(None, data)

        view.__name__ = handler.__name__
        view.__doc__ = handler.__doc__
        return csrf_exempt(view)

    return wrap


async def _read_call(request: HttpRequest, operation_id: str, who: Who, read_body: BodyReader) -> Call:
    """The checks in the protocol's order: operationID, token, body."""
    if request.method != "POST":
        raise ArgsError("use POST")
    if not operation_id:
        raise ArgsError("header operationID is missing")
    claims = None
    if who is not Who.NOBODY:
        token = request.headers.get("token", "")
        if not token:
            raise ArgsError("header token is missing")
        claims = await auth.check_claims(token)
    try:
        body = read_body(request)
    except RequestDataTooBig as error:
        raise ArgsError("the body is larger than 8 MiB") from error
    call = Call(body, operation_id, claims, get_api_url(request), request.content_type or "")
    if who is Who.ADMIN and not call.is_admin:
        raise NoPermission("this needs an admin token")
    return call


def get_api_url(request: HttpRequest) -> str:
    """OBJECT_URL; else what a proxy says in OpenIM's header X-Request-Api; else the host that was asked."""
    url = get_config().object_url or request.headers.get("X-Request-Api", "")
    if not url.startswith(("http://", "https://")):
        url = f"{request.scheme}://{request.get_host()}"
    return url.rstrip("/")


def _refusal(error: Exception, operation_id: str, path: str) -> IMError:
    """What the client is told; logged here."""
    known = as_im_error(error)
    facts = {"action": "rest", "operation_id": operation_id, "path": path}
    if isinstance(known, InternalError):
        logger.error("request failed", extra=facts, exc_info=error)
    else:
        logger.info("request refused", extra={**facts, "code": known.code, "detail": known.detail})
    return known


def _envelope(error: IMError | None, data: Answer = None) -> HttpResponse:
    if error is not None:
        envelope: dict[str, Any] = {"errCode": error.code, "errMsg": error.name, "errDlt": error.detail}
    else:
        envelope = {"errCode": 0, "errMsg": "", "errDlt": ""}
        if data is not None:
            envelope["data"] = to_json(data) if isinstance(data, Message) else data
    return HttpResponse(orjson.dumps(envelope), content_type="application/json", headers=CORS_HEADERS)


def refuse(error: IMError) -> HttpResponse:
    """An error in the envelope, for views that are no routes."""
    return _envelope(error)


def unknown_route(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Plain text; with CORS, also for the question before the request, or a browser shows a network error instead."""
    if request.method == "OPTIONS":
        return HttpResponse(status=200, headers=CORS_HEADERS)
    return HttpResponse("404 page not found", status=404, content_type="text/plain", headers=CORS_HEADERS)
