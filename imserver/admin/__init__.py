"""Django admin: users, friends, groups, conversations, webhooks, dead letters, and read-only views of what is in the store."""

from imserver.admin import conversations, dead_letters, device_tokens, friends, groups, users, webhooks

__all__ = ["conversations", "dead_letters", "device_tokens", "friends", "groups", "users", "webhooks"]
