"""Routes of OpenIM's that are not built: they say so in the usual envelope (90102), to who may call them at all.

docs/compatibility.md says why of each; tests/unit/test_compatibility.py compares.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.views.decorators.csrf import csrf_exempt

from imserver.errors import NotSupported
from imserver.rest.decorators import CORS_HEADERS, Answer, Call, View, Who, refuse, route

#: Route for app admins -> what to do instead.
ROUTES = {
    "config/get_config_list": "settings are environment variables; manage.py checkconfig lists them",
    "config/get_config": "settings are environment variables; manage.py checkconfig lists them",
    "config/set_config": "settings are environment variables, read at the start",
    "config/set_configs": "settings are environment variables, read at the start",
    "config/reset_config": "settings are environment variables, read at the start",
    "config/set_enable_config_manager": "settings are environment variables, read at the start",
    "config/get_enable_config_manager": "settings are environment variables, read at the start",
    "restart": "restart the processes with what started them",
}
#: The same for anybody with a token.
USER_ROUTES = {
    "msg/get_stream_msg": "there are no stream messages; send the whole text",
    "msg/append_stream_msg": "there are no stream messages; send the whole text",
    "conversation/get_conversation_offline_push_user_ids": "who gets offline pushes is decided by the push stage",
    "user/unsubscribe_users_status": "/user/subscribe_users_status with genre 2 does it",
}
#: The same for GET, which asks for no headers.
GET_ROUTES = {
    "third/prometheus": "there is no Grafana to lead to; /metrics has the figures",
    **{
        f"prometheus_discovery/{part}": "one scrape of /metrics covers all processes of a host"
        for part in (
            "api",
            "user",
            "group",
            "msg",
            "friend",
            "conversation",
            "third",
            "auth",
            "push",
            "msg_gateway",
            "msg_transfer",
        )
    },
}


def patterns() -> list[URLPattern]:
    posted = [path(name, _refusing(Who.ADMIN, hint)) for name, hint in ROUTES.items()]
    posted += [path(name, _refusing(Who.ANY, hint)) for name, hint in USER_ROUTES.items()]
    return [*posted, *(path(name, _refusing_get(hint)) for name, hint in GET_ROUTES.items())]


def _refusing(who: Who, hint: str) -> View:
    @route(who)
    async def unsupported(_call: Call) -> Answer:
        raise NotSupported(hint)

    return unsupported


def _refusing_get(hint: str) -> View:
    async def unsupported(request: HttpRequest) -> HttpResponse:
        if request.method == "OPTIONS":
            return HttpResponse(status=200, headers=CORS_HEADERS)
        return refuse(NotSupported(hint))

    return csrf_exempt(unsupported)
