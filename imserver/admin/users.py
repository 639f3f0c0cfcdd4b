from __future__ import annotations

from datetime import UTC, datetime

from django.contrib import admin
from django.http import HttpRequest

from imserver.models import User


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

    def has_add_permission(self, _request: HttpRequest) -> bool:
        """Users are registered through /user/user_register, which checks their ids."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: object = None) -> bool:
        """Messages and conversations refer to users."""
        return False
