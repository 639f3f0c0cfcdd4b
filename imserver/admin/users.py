from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from imserver.models import User
from imserver.storage import user_facts
from imserver.storage.clients import get_redis


def shown_time(milliseconds: int) -> str:
    """A time of the store for people; empty when there is none."""
    if not milliseconds:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


@admin.register(User)
class UserAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("user_id", "nickname", "app_manger_level", "created")
    search_fields = ("user_id", "nickname")
    readonly_fields = ("user_id", "create_time")

    @admin.display(description="created")
    def created(self, user: User) -> str:
        return shown_time(user.create_time)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """The gateways keep what sending asks of a user; they are told."""
        super().save_model(request, obj, form, change)
        user_facts.forget_now(get_redis(), [obj.user_id])

    def has_add_permission(self, _request: HttpRequest) -> bool:
        """Users are registered through /user/user_register, which checks their ids."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: object = None) -> bool:
        """Messages and conversations refer to users."""
        return False
