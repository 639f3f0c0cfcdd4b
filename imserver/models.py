"""Django's view of collections that the hot path reads and writes with PyMongo: for operators, through the admin.

``managed = False``: indexes are ``storage/indexes.py``'s business.
"""

from __future__ import annotations

from django.db import models


class User(models.Model):
    user_id = models.CharField("user id", max_length=64)
    nickname = models.CharField(max_length=255)
    face_url = models.CharField("avatar", max_length=1024, blank=True, default="")
    ex = models.TextField("extra", blank=True, default="")
    create_time = models.BigIntegerField("created (ms)", default=0)
    app_manger_level = models.IntegerField("level", default=1)
    global_recv_msg_opt = models.IntegerField("receive option", default=0)

    class Meta:
        managed = False
        db_table = "user"
        ordering = ("user_id",)

    def __str__(self) -> str:
        return f"{self.user_id} ({self.nickname})"


class Conversation(models.Model):
    """One owner's view of a conversation."""

    owner_user_id = models.CharField("owner", max_length=64)
    conversation_id = models.CharField("conversation", max_length=255)
    conversation_type = models.IntegerField("type", choices=[(1, "single"), (3, "group"), (4, "notification")])
    user_id = models.CharField("peer", max_length=64, blank=True, default="")
    group_id = models.CharField("group", max_length=64, blank=True, default="")
    recv_msg_opt = models.IntegerField("receive option", default=0)
    is_pinned = models.BooleanField("pinned", default=False)
    is_private_chat = models.BooleanField("private", default=False)
    burn_duration = models.IntegerField("burn after (s)", default=0)
    group_at_type = models.IntegerField("@ type", default=0)
    attached_info = models.TextField(blank=True, default="")
    ex = models.TextField("extra", blank=True, default="")
    min_seq = models.BigIntegerField(default=0)
    max_seq = models.BigIntegerField("max seq cap", default=0)
    create_time = models.BigIntegerField("created (ms)", default=0)

    class Meta:
        managed = False
        db_table = "conversation"
        ordering = ("owner_user_id", "conversation_id")

    def __str__(self) -> str:
        return f"{self.owner_user_id}: {self.conversation_id}"
