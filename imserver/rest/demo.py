"""The demo page and what only it needs. Lets anyone be anyone, so it exists only with DEMO=1."""

from __future__ import annotations

import orjson
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt

from imserver.actions import auth, users
from imserver.conf import get_config
from imserver.constants import Platform
from imserver.errors import ArgsError, IMError, RegisteredAlready
from imserver.protocol.gen.sdkws_pb2 import UserInfo
from imserver.storage.clients import get_async_mongo
from imserver.storage.users import Users

NEWEST_USERS = 50
CONTENT_SECURITY_POLICY = "default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; frame-ancestors 'none'"


async def index(request: HttpRequest) -> HttpResponse:
    if not get_config().demo:
        return HttpResponse(
            "imserver is running. The demo page is off; start with DEMO=1 to see it.", content_type="text/plain"
        )
    response = render(request, "demo/index.html")
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return response


async def config(_request: HttpRequest) -> HttpResponse:
    return JsonResponse({"gateway_port": get_config().gateway_port, "gateway_url": ""})


async def list_users(_request: HttpRequest) -> HttpResponse:
    found = await Users(get_async_mongo()).newest(NEWEST_USERS)
    admins = get_config().admins
    return JsonResponse(
        {
            "users": [
                {"userID": user["user_id"], "nickname": user["nickname"], "faceURL": user.get("face_url", "")}
                for user in found
                if user["user_id"] not in admins
            ]
        }
    )


async def _login(request: HttpRequest) -> dict[str, object]:
    try:
        body = orjson.loads(request.body or b"{}")
        user_id, nickname = str(body["userID"]), str(body.get("nickname") or body["userID"])
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ArgsError("expected a JSON object with userID") from error
    wanted = [UserInfo(userID=user_id, nickname=nickname)]
    try:
        await users.check_register(wanted)
        await users.do_register(wanted)
    except RegisteredAlready:
        nickname = (await users.get_users_info([user_id]))[0].nickname
    issued = await auth.get_user_token(user_id, Platform.WEB)
    return {"userID": user_id, "nickname": nickname, "token": issued.token, "platformID": int(Platform.WEB)}


@csrf_exempt
async def login(request: HttpRequest) -> HttpResponse:
    """Become a user, who is made when there is none."""
    if request.method != "POST":
        return JsonResponse({"errCode": ArgsError.code, "errMsg": ArgsError.name, "errDlt": "use POST"}, status=405)
    try:
        return JsonResponse(await _login(request))
    except IMError as error:
        return JsonResponse({"errCode": error.code, "errMsg": error.name, "errDlt": error.detail})
