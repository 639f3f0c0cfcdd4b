"""Device tokens of push vendors: who has one, and removing one. A token addresses a device, so it is not shown."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from imserver.admin.users import shown_time
from imserver.models import DeviceToken


@admin.register(DeviceToken)
class DeviceTokenAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("user_id", "platform_id", "registered", "expires_at")
    list_filter = ("platform_id",)
    search_fields = ("=user_id",)
    fields = ("user_id", "platform_id", "registered", "expires_at")
    readonly_fields = fields

    @admin.display(description="registered", ordering="update_time")
    def registered(self, token: DeviceToken) -> str:
        return shown_time(token.update_time)

    def has_add_permission(self, _request: HttpRequest) -> bool:
        """Apps register their devices: /third/fcm_update_token."""
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: object = None) -> bool:
        return False
