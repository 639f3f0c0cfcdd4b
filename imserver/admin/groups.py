"""Groups and their members, to look at: changing them takes notices and versions, which the REST routes see to."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from imserver.admin.users import shown_time
from imserver.models import Group, GroupMember


class _ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    def has_add_permission(self, _request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: object = None) -> bool:
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: object = None) -> bool:
        return False


@admin.register(Group)
class GroupAdmin(_ReadOnlyAdmin):
    list_display = ("group_id", "group_name", "owner_user_id", "status", "members", "created")
    list_filter = ("status", "need_verification")
    search_fields = ("group_id", "group_name", "owner_user_id")
    list_per_page = 50

    @admin.display(description="members")
    def members(self, group: Group) -> str:
        """How many, with a link to them."""
        url = reverse("admin:imserver_groupmember_changelist")
        count = GroupMember.objects.filter(group_id=group.group_id).count()
        return format_html('<a href="{}?group_id={}">{}</a>', url, group.group_id, count)

    @admin.display(description="created")
    def created(self, group: Group) -> str:
        return shown_time(group.create_time)


@admin.register(GroupMember)
class GroupMemberAdmin(_ReadOnlyAdmin):
    list_display = ("group_id", "user_id", "role_level", "nickname", "joined", "muted_until")
    list_filter = ("role_level", "join_source")
    search_fields = ("group_id", "user_id", "nickname")
    list_per_page = 50

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """The list of groups links here."""
        return lookup == "group_id" or super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    @admin.display(description="joined")
    def joined(self, member: GroupMember) -> str:
        return shown_time(member.join_time)

    @admin.display(description="muted until")
    def muted_until(self, member: GroupMember) -> str:
        return shown_time(member.mute_end_time)
