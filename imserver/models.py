"""Django's view of collections that the hot path reads and writes with PyMongo: for operators, through the admin.

``managed = False``: indexes are ``storage/indexes.py``'s business.
"""

from __future__ import annotations

from django.db import models
from django_mongodb_backend.fields import ArrayField

from imserver.constants import PLATFORM_NAME, PresenceCommand, WebhookCommand
from imserver.storage import device_tokens, webhooks


class User(models.Model):
    user_id = models.CharField("user id", max_length=64)
    nickname = models.CharField(max_length=255)
    face_url = models.CharField("avatar", max_length=1024, blank=True, default="")
    ex = models.TextField("extra", blank=True, default="")
    create_time = models.BigIntegerField("created (ms)", default=0)
    app_manger_level = models.IntegerField("level", default=0)
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


class Webhook(models.Model):
    """Settings of a webhook: docs/webhooks.md."""

    command = models.CharField(
        max_length=64,
        unique=True,
        choices=[
            (WebhookCommand.BEFORE_SEND_SINGLE.value, "before send, single chat"),
            (WebhookCommand.BEFORE_SEND_GROUP.value, "before send, group"),
            (WebhookCommand.BEFORE_MODIFY.value, "before send, may change the message"),
            (WebhookCommand.AFTER_SEND_SINGLE.value, "after send, single chat"),
            (WebhookCommand.AFTER_SEND_GROUP.value, "after send, group"),
            (WebhookCommand.AFTER_SAVE.value, "after the message is in MongoDB"),
            (WebhookCommand.BEFORE_ONLINE_PUSH.value, "before an online push, single chat"),
            (WebhookCommand.BEFORE_GROUP_ONLINE_PUSH.value, "before an online push, group"),
            (WebhookCommand.BEFORE_OFFLINE_PUSH.value, "before an offline push"),
            (PresenceCommand.ONLINE.value, "after a user connects"),
            (PresenceCommand.OFFLINE.value, "after a connection is gone"),
            (PresenceCommand.KICK_OFF.value, "after a connection is kicked"),
        ],
    )
    url = models.CharField(
        "address", max_length=1024, help_text="http://host:port/path; the command is added as the last part."
    )
    enable = models.BooleanField("enabled", default=False)
    timeout = models.PositiveIntegerField("timeout (s)", default=webhooks.DEFAULT_TIMEOUT_SECONDS)
    fail_open = models.BooleanField(
        default=False,
        help_text="Before hooks: send the message when the hook does not answer or its answer cannot be used.",
    )
    denied_types = ArrayField(
        models.IntegerField(),
        verbose_name="content types not sent",
        default=list,
        blank=True,
        help_text="Numbers, comma separated.",
    )
    attention_ids = ArrayField(
        models.CharField(max_length=64),
        verbose_name="only for",
        default=list,
        blank=True,
        help_text="After hooks: ids of receivers or groups (of users for presence), comma separated. Empty: all.",
    )
    retry_minutes = models.PositiveIntegerField(
        "retried for (min)",
        default=webhooks.DEFAULT_RETRY_MINUTES,
        help_text="After hooks: what fails longer becomes a dead letter. 0: at once.",
    )

    class Meta:
        managed = False
        db_table = webhooks.COLLECTION
        ordering = ("command",)

    def __str__(self) -> str:
        return self.command


class DeviceToken(models.Model):
    """Where a push vendor finds a device of a user."""

    user_id = models.CharField("user", max_length=64)
    platform_id = models.IntegerField("platform", choices=sorted(PLATFORM_NAME.items()))
    token = models.CharField(max_length=4096)
    update_time = models.BigIntegerField("registered (ms)", default=0)
    expires_at = models.DateTimeField("expires", null=True, blank=True)

    class Meta:
        managed = False
        db_table = device_tokens.COLLECTION
        ordering = ("user_id", "platform_id")

    def __str__(self) -> str:
        return f"{self.user_id}: {PLATFORM_NAME.get(self.platform_id, self.platform_id)}"


class DeadLetter(models.Model):
    """An entry that was set aside. It lives in Redis (storage/dead_letters.py): this only gives it a place in the admin."""

    entry = models.CharField(max_length=64, primary_key=True)

    class Meta:
        managed = False
        db_table = "dead_letter"

    def __str__(self) -> str:
        return self.entry


class Group(models.Model):
    group_id = models.CharField("group id", max_length=64)
    group_name = models.CharField("name", max_length=255, blank=True, default="")
    notification = models.TextField("announcement", blank=True, default="")
    introduction = models.TextField(blank=True, default="")
    face_url = models.CharField("avatar", max_length=1024, blank=True, default="")
    ex = models.TextField("extra", blank=True, default="")
    owner_user_id = models.CharField("owner", max_length=64)
    creator_user_id = models.CharField("creator", max_length=64)
    create_time = models.BigIntegerField("created (ms)", default=0)
    status = models.IntegerField(choices=[(0, "ok"), (1, "banned"), (2, "dismissed"), (3, "muted")], default=0)
    group_type = models.IntegerField("type", default=2)
    need_verification = models.IntegerField(
        "approval", choices=[(0, "applications"), (1, "applications and members' invitations"), (2, "none")], default=0
    )
    look_member_info = models.IntegerField("members look at members (0 yes)", default=0)
    apply_member_friend = models.IntegerField("members befriend members (0 yes)", default=0)
    notification_update_time = models.BigIntegerField("announced (ms)", default=0)
    notification_user_id = models.CharField("announced by", max_length=64, blank=True, default="")

    class Meta:
        managed = False
        db_table = "group"
        ordering = ("-create_time",)

    def __str__(self) -> str:
        return f"{self.group_id} ({self.group_name})"


class GroupMember(models.Model):
    group_id = models.CharField("group", max_length=64)
    user_id = models.CharField("user", max_length=64)
    role_level = models.IntegerField("role", choices=[(100, "owner"), (60, "admin"), (20, "member")])
    nickname = models.CharField("nickname in the group", max_length=255, blank=True, default="")
    face_url = models.CharField("avatar in the group", max_length=1024, blank=True, default="")
    ex = models.TextField("extra", blank=True, default="")
    join_time = models.BigIntegerField("joined (ms)", default=0)
    join_source = models.IntegerField(
        "how", choices=[(1, "admin"), (2, "invitation"), (3, "search"), (4, "QR code")], default=0
    )
    inviter_user_id = models.CharField("inviter", max_length=64, blank=True, default="")
    operator_user_id = models.CharField("operator", max_length=64, blank=True, default="")
    mute_end_time = models.BigIntegerField("muted until (ms)", default=0)

    class Meta:
        managed = False
        db_table = "group_member"
        ordering = ("group_id", "-role_level", "join_time")

    def __str__(self) -> str:
        return f"{self.group_id}: {self.user_id}"


class Friend(models.Model):
    """One side of a friendship: the friend stands in the owner's list."""

    owner_user_id = models.CharField("owner", max_length=64)
    friend_user_id = models.CharField("friend", max_length=64)
    remark = models.CharField(max_length=255, blank=True, default="")
    create_time = models.BigIntegerField("since (ms)", default=0)
    add_source = models.IntegerField("how", choices=[(1, "import"), (2, "application")], default=1)
    operator_user_id = models.CharField("operator", max_length=64, blank=True, default="")
    ex = models.TextField("extra", blank=True, default="")
    is_pinned = models.BooleanField("pinned", default=False)

    class Meta:
        managed = False
        db_table = "friend"
        ordering = ("owner_user_id", "friend_user_id")

    def __str__(self) -> str:
        return f"{self.owner_user_id}: {self.friend_user_id}"


class FriendRequest(models.Model):
    from_user_id = models.CharField("applicant", max_length=64)
    to_user_id = models.CharField("applied to", max_length=64)
    handle_result = models.IntegerField("answer", choices=[(0, "none yet"), (1, "agreed"), (-1, "refused")], default=0)
    req_msg = models.TextField("message", blank=True, default="")
    create_time = models.BigIntegerField("applied (ms)", default=0)
    handler_user_id = models.CharField("answered by", max_length=64, blank=True, default="")
    handle_msg = models.TextField("answer's message", blank=True, default="")
    handle_time = models.BigIntegerField("answered (ms)", default=0)
    ex = models.TextField("extra", blank=True, default="")

    class Meta:
        managed = False
        db_table = "friend_request"
        ordering = ("-create_time",)
        verbose_name = "friend application"

    def __str__(self) -> str:
        return f"{self.from_user_id} to {self.to_user_id}"


class Black(models.Model):
    """The blocked user's messages do not reach the owner."""

    owner_user_id = models.CharField("owner", max_length=64)
    block_user_id = models.CharField("blocked user", max_length=64)
    create_time = models.BigIntegerField("since (ms)", default=0)
    add_source = models.IntegerField("how", default=0)
    operator_user_id = models.CharField("operator", max_length=64, blank=True, default="")
    ex = models.TextField("extra", blank=True, default="")

    class Meta:
        managed = False
        db_table = "black"
        ordering = ("owner_user_id", "block_user_id")
        unique_together = (("owner_user_id", "block_user_id"),)
        verbose_name = "blocked user"

    def __str__(self) -> str:
        return f"{self.owner_user_id}: {self.block_user_id}"
