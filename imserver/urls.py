"""Every HTTP route of the web process."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, path

from imserver.conf import get_config
from imserver.rest import auth, demo, health, msg, user

API: list[URLPattern] = [
    path("auth/get_admin_token", auth.get_admin_token),
    path("auth/get_user_token", auth.get_user_token),
    path("auth/parse_token", auth.parse_token),
    path("auth/force_logout", auth.force_logout),
    path("user/user_register", user.user_register),
    path("user/get_users_info", user.get_users_info),
    path("msg/send_msg", msg.send_msg),
    path("msg/mark_conversation_as_read", msg.mark_conversation_as_read),
    path("msg/get_conversations_has_read_and_max_seq", msg.get_conversations_has_read_and_max_seq),
]

urlpatterns: list[URLPattern | URLResolver] = [
    *API,
    path("healthz", health.healthz),
    path("metrics", health.metrics),
    path("admin/", admin.site.urls),
    path("", demo.index),
]
if get_config().demo:
    urlpatterns += [
        path("demo/config", demo.config),
        path("demo/users", demo.list_users),
        path("demo/login", demo.login),
    ]
