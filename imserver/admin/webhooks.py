"""Settings of the webhooks. A change is in force everywhere after two seconds."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest

from imserver.models import Webhook
from imserver.storage import webhooks

MOST_TIMEOUT_SECONDS = 60
MOST_RETRY_MINUTES = 24 * 60


class WebhookForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Webhook
        fields = (
            "command",
            "url",
            "enable",
            "timeout",
            "fail_open",
            "denied_types",
            "attention_ids",
            "retry_minutes",
        )

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"].strip()
        try:
            parts = urlsplit(url)
            is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_usable = False
        if not is_usable or any(char.isspace() for char in url):
            raise forms.ValidationError("Expected an address such as http://app:8080/callback.")
        if parts.query or parts.fragment:
            raise forms.ValidationError("The command is added at the end: leave out what follows ? or #.")
        return url.rstrip("/")

    def clean_timeout(self) -> int:
        seconds: int = self.cleaned_data["timeout"]
        if not 1 <= seconds <= MOST_TIMEOUT_SECONDS:
            raise forms.ValidationError(f"Expected 1 to {MOST_TIMEOUT_SECONDS} seconds.")
        return seconds

    def clean_retry_minutes(self) -> int:
        minutes: int = self.cleaned_data["retry_minutes"]
        if minutes > MOST_RETRY_MINUTES:
            raise forms.ValidationError(f"Expected at most {MOST_RETRY_MINUTES} minutes.")
        return minutes

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("command") in webhooks.BEFORE_COMMANDS | webhooks.PUSH_COMMANDS:
            if cleaned.get("attention_ids"):
                self.add_error("attention_ids", "Before hooks are asked about every message: leave this empty.")
        elif cleaned.get("fail_open"):
            self.add_error("fail_open", "After hooks hold nothing up: leave this off.")
        return cleaned


@admin.register(Webhook)
class WebhookAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    form = WebhookForm
    list_display = ("command", "url", "enable", "timeout", "fail_open")
    list_filter = ("enable",)

    def save_model(self, request: HttpRequest, obj: Webhook, form: ModelForm[Webhook], change: bool) -> None:
        super().save_model(request, obj, form, change)
        webhooks.forget()

    def delete_model(self, request: HttpRequest, obj: Webhook) -> None:
        super().delete_model(request, obj)
        webhooks.forget()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        super().delete_queryset(request, queryset)
        webhooks.forget()
