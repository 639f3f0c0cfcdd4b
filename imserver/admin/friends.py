"""Friends and applications, to look at: changing them takes notices and versions. Blocked users, to block and to unblock."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from imserver.admin.users import shown_time
from imserver.clock import now_ms
from imserver.models import Black, Friend, FriendRequest, User
from imserver.storage import user_facts, versions
from imserver.storage.blacks import blacks_of
from imserver.storage.clients import get_mongo, get_redis
from imserver.storage.versions import State


class _LookOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    list_per_page = 50

    def has_add_permission(self, _request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: object = None) -> bool:
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: object = None) -> bool:
        return False


@admin.register(Friend)
class FriendAdmin(_LookOnly):
    list_display = ("owner_user_id", "friend_user_id", "remark", "add_source", "since")
    list_filter = ("add_source", "is_pinned")
    search_fields = ("owner_user_id", "friend_user_id", "remark")

    @admin.display(description="since")
    def since(self, friend: Friend) -> str:
        return shown_time(friend.create_time)


@admin.register(FriendRequest)
class FriendRequestAdmin(_LookOnly):
    list_display = ("from_user_id", "to_user_id", "handle_result", "applied", "handler_user_id")
    list_filter = ("handle_result",)
    search_fields = ("from_user_id", "to_user_id")

    @admin.display(description="applied")
    def applied(self, request: FriendRequest) -> str:
        return shown_time(request.create_time)


class BlackForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Black
        fields = ("owner_user_id", "block_user_id", "ex")

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        owner, blocked = self.cleaned_data.get("owner_user_id"), self.cleaned_data.get("block_user_id")
        if owner and owner == blocked:
            raise forms.ValidationError("Nobody blocks oneself.")
        for name, user_id in (("owner_user_id", owner), ("block_user_id", blocked)):
            if user_id and not User.objects.filter(user_id=user_id).exists():
                self.add_error(name, "There is no such user.")
        return cleaned


@admin.register(Black)
class BlackAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """A change is in force everywhere at once; the owner's devices see it by their next sync of the list."""

    form = BlackForm
    list_display = ("owner_user_id", "block_user_id", "since", "operator_user_id")
    search_fields = ("owner_user_id", "block_user_id")
    list_per_page = 50

    @admin.display(description="since")
    def since(self, black: Black) -> str:
        return shown_time(black.create_time)

    def has_change_permission(self, _request: HttpRequest, _obj: object = None) -> bool:
        return False

    def save_model(self, _request: HttpRequest, black: Black, _form: object, _change: bool) -> None:
        black.create_time = now_ms()
        black.operator_user_id = black.owner_user_id
        black.save()
        user_facts.forget_now(get_redis(), [black.owner_user_id])
        _note(black, State.INSERT)

    def delete_model(self, _request: HttpRequest, black: Black) -> None:
        black.delete()
        user_facts.forget_now(get_redis(), [black.owner_user_id])
        _note(black, State.DELETE)

    def delete_queryset(self, _request: HttpRequest, queryset: QuerySet[Black]) -> None:
        blacks = list(queryset)
        queryset.delete()
        user_facts.forget_now(get_redis(), {black.owner_user_id for black in blacks})
        for black in blacks:
            _note(black, State.DELETE)


def _note(black: Black, state: State) -> None:
    """For the owner's next sync."""
    versions.record(get_mongo(), blacks_of(black.owner_user_id), {black.block_user_id: state})
