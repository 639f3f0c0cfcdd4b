"""Django admin: users, conversations, and read-only views of what is in the store."""

from imserver.admin import conversations, users

__all__ = ["conversations", "users"]
