"""What users set about themselves, and whom that is told: the user's devices, those who have the user as a friend, its groups."""

from __future__ import annotations

import asyncio
import logging

from imserver.actions import friends, group_settings
from imserver.actions.groups import MAX_CHARS, Operator
from imserver.actions.notify import send_notification
from imserver.actions.users import MAX_NICKNAME_CHARS, check_exists
from imserver.constants import ContentType, RecvMsgOpt, SessionType
from imserver.errors import ArgsError, IMError, RecordNotFound
from imserver.protocol.gen.sdkws_pb2 import UserInfo, UserInfoUpdatedTips, UserInfoWithEx
from imserver.storage import user_facts
from imserver.storage.clients import Document, get_async_mongo, get_async_redis
from imserver.storage.users import Users

logger = logging.getLogger(__name__)

#: Friends who are told at a time.
NOTICES_AT_ONCE = 500

_TEXTS = {"nickname": "nickname", "faceURL": "face_url", "ex": "ex"}
#: What others see of a user in their lists.
_SHOWN = ("nickname", "face_url")


def check_update(request: UserInfo | UserInfoWithEx) -> Document:
    """The changes, as fields of the row. Of the plain form what is empty stays as it is. Raises ArgsError."""
    changes: Document = {}
    for name, column in {**_TEXTS, "globalRecvMsgOpt": "global_recv_msg_opt"}.items():
        if isinstance(request, UserInfoWithEx):
            if request.HasField(name):
                changes[column] = getattr(request, name).value
        elif getattr(request, name):
            changes[column] = getattr(request, name)
    if not 1 <= len(changes.get("nickname", "x")) <= MAX_NICKNAME_CHARS:
        raise ArgsError(f"nickname must be 1 to {MAX_NICKNAME_CHARS} characters")
    for column in ("face_url", "ex"):
        if len(changes.get(column, "")) > MAX_CHARS[column]:
            raise ArgsError(f"{column} is longer than {MAX_CHARS[column]} characters")
    check_receive_option(changes.get("global_recv_msg_opt", 0))
    return changes


def check_receive_option(value: int) -> None:
    """Raises ArgsError."""
    if value not in set(RecvMsgOpt):
        raise ArgsError(f"globalRecvMsgOpt must be 0, 1 or 2, not {value}")


async def do_update(operator: Operator, user_id: str, changes: Document) -> None:
    """Change a user and tell whom it concerns: friends and groups, where name or face are others than before.

    May run twice: the second time only the user is told.

    Raises:
        RecordNotFound
    """
    if not changes:
        await check_exists(user_id)
        return
    old = await Users(get_async_mongo()).change(user_id, changes)
    if old is None:
        raise RecordNotFound(f"user {user_id} does not exist")
    if "global_recv_msg_opt" in changes:
        await user_facts.forget(get_async_redis(), [user_id])
    tips = UserInfoUpdatedTips(userID=user_id)
    await _tell(ContentType.USER_INFO_UPDATED, tips, operator.user_id, [user_id], operator.operation_id)
    if any(column in changes and changes[column] != old.get(column, "") for column in _SHOWN):
        owners = await friends.note_changed_user(user_id)
        await _tell(ContentType.FRIEND_INFO_UPDATED, tips, user_id, owners, operator.operation_id)
        await group_settings.tell_changed_user(operator, user_id)


async def _tell(
    content_type: ContentType, tips: UserInfoUpdatedTips, send_id: str, recv_ids: list[str], operation_id: str
) -> None:
    """The change is done by now, so a log that does not take a notice is not the request's failure: the next sync brings it."""
    for at in range(0, len(recv_ids), NOTICES_AT_ONCE):
        notices = (
            send_notification(
                content_type,
                tips,
                send_id=send_id,
                recv_id=recv_id,
                session_type=SessionType.SINGLE,
                operation_id=operation_id,
            )
            for recv_id in recv_ids[at : at + NOTICES_AT_ONCE]
        )
        for failure in await asyncio.gather(*notices, return_exceptions=True):
            if isinstance(failure, IMError):
                facts = {"action": "user_infos", "operation_id": operation_id, "content_type": int(content_type)}
                logger.warning("notice of a changed user lost", extra=facts, exc_info=failure)
            elif failure is not None:
                raise failure
