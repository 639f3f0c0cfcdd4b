"""Conversations with their live figures, and a read-only view of their messages from the store."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from imserver.admin.users import shown_time
from imserver.models import Conversation
from imserver.storage import conversation_figures, user_facts, versions
from imserver.storage.clients import get_mongo, get_redis
from imserver.storage.versions import State

MSGS_PER_PAGE = 100
#: Content is shown up to here; a message may be large.
SHOWN_CONTENT_CHARS = 2000


@admin.register(Conversation)
class ConversationAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("owner_user_id", "peer", "conversation_type", "newest", "read", "last_message", "messages_link")
    list_filter = ("conversation_type", "is_pinned")
    search_fields = ("owner_user_id", "user_id", "group_id", "conversation_id")
    list_per_page = 50
    readonly_fields = tuple(
        field.name for field in Conversation._meta.fields if field.name not in ("recv_msg_opt", "is_pinned", "ex")
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        self._figures: dict[tuple[str, str], conversation_figures.Figures] = {}
        return super().get_queryset(request)

    def _of(self, item: Conversation) -> conversation_figures.Figures:
        key = (item.owner_user_id, item.conversation_id)
        if key not in self._figures:
            self._figures[key] = conversation_figures.get(get_redis(), get_mongo(), *key)
        return self._figures[key]

    @admin.display(description="peer")
    def peer(self, item: Conversation) -> str:
        return item.group_id or item.user_id

    @admin.display(description="max seq")
    def newest(self, item: Conversation) -> int:
        return self._of(item).max_seq

    @admin.display(description="read seq")
    def read(self, item: Conversation) -> int:
        return self._of(item).read_seq

    @admin.display(description="last message")
    def last_message(self, item: Conversation) -> str:
        return shown_time(self._of(item).last_ms)

    @admin.display(description="messages")
    def messages_link(self, item: Conversation) -> str:
        return format_html('<a href="{}">messages</a>', reverse("admin:imserver_conversation_messages", args=[item.pk]))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.messages_view)
        return [path("<path:pk>/messages/", view, name="imserver_conversation_messages"), *super().get_urls()]

    def messages_view(self, request: HttpRequest, pk: str) -> HttpResponse:
        """One block of messages a page, newest first."""
        item = self.get_object(request, pk)
        if item is None or not self.has_view_permission(request, item):
            raise Http404("no such conversation")
        newest = max(conversation_figures.last_block(get_mongo(), item.conversation_id), 0)
        wanted = request.GET.get("block", "")
        block = min(int(wanted), newest) if wanted.isascii() and wanted.isdecimal() else newest
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": f"Messages of {item.conversation_id}",
            "conversation": item,
            "rows": [_row(slot) for slot in conversation_figures.block_slots(get_mongo(), item.conversation_id, block)],
            "older": block - 1 if block > 0 else None,
            "newer": block + 1 if block < newest else None,
            "opts": self.model._meta,
        }
        return TemplateResponse(request, "admin/imserver/conversation/messages.html", context)

    def save_model(self, request: HttpRequest, obj: Conversation, form: Any, change: bool) -> None:
        """The gateways keep the receive option, and the owner's devices sync by version; both are told."""
        super().save_model(request, obj, form, change)
        versions.record(get_mongo(), versions.conversations_of(obj.owner_user_id), {obj.conversation_id: State.UPDATE})
        user_facts.forget_now(get_redis(), [obj.owner_user_id])

    def has_add_permission(self, _request: HttpRequest) -> bool:
        """The first message creates a conversation."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: object = None) -> bool:
        return False


def _row(slot: dict[str, Any]) -> dict[str, Any]:
    msg = slot["msg"]
    content = msg["content"]
    text = content if isinstance(content, str) else f"{len(content)} bytes"
    return {
        "seq": msg["seq"],
        "sent": shown_time(msg["send_time"]),
        "sender": msg["send_id"],
        "content_type": msg["content_type"],
        "content": text[:SHOWN_CONTENT_CHARS],
        "is_revoked": slot.get("revoke") is not None,
        "is_read": slot.get("is_read", False),
    }
