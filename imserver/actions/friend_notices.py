"""Telling users what happened to their friends, applications and blacklists: the notifications 1201 to 1210.

By the time one is sent the change is done, so a log that does not take it is not the request's failure: clients learn of the
change by their next sync.
"""

from __future__ import annotations

import logging

from google.protobuf.message import Message

from imserver.actions.notify import send_notification
from imserver.constants import ContentType, SessionType
from imserver.errors import ServerBusy, StorageUnavailable
from imserver.protocol.gen.sdkws_pb2 import (
    FriendApplicationApprovedTips,
    FriendRequest,
    FromToUserID,
    UserInfo,
)

logger = logging.getLogger(__name__)

#: (version id, version) of a list.
Version = tuple[str, int]


async def tell(
    content_type: ContentType,
    tips: Message,
    *,
    send_id: str,
    recv_id: str,
    operation_id: str,
    sender: UserInfo | None = None,
    is_shown: bool = False,
) -> None:
    """Send a notification, which the sender's devices get as well; a failure is logged only.

    Args:
        is_shown: the chat of the two gets a copy, stored, as a line.
    """
    try:
        await send_notification(
            content_type,
            tips,
            send_id=send_id,
            recv_id=recv_id,
            session_type=SessionType.SINGLE,
            operation_id=operation_id,
            is_send_msg=is_shown,
            sender_nickname=sender.nickname if sender else "",
            sender_face_url=sender.faceURL if sender else "",
        )
    except (ServerBusy, StorageUnavailable) as error:
        facts = {"action": "friend_notice", "operation_id": operation_id, "content_type": int(content_type)}
        logger.warning("friend notification lost", extra=facts, exc_info=error)


async def tell_approved(
    applicant: str,
    handler: UserInfo,
    *,
    operation_id: str,
    version: Version,
    handle_msg: str = "",
    request: FriendRequest | None = None,
) -> None:
    """1201: two are friends now.

    Args:
        version: of the applicant's friend list.
        request: what was applied for; None when an app server made them friends.
    """
    tips = FriendApplicationApprovedTips(
        fromToUserID=FromToUserID(fromUserID=applicant, toUserID=handler.userID),
        handleMsg=handle_msg,
        friendVersionID=version[0],
        friendVersion=version[1],
        request=request,
    )
    await tell(
        ContentType.FRIEND_APPLICATION_APPROVED,
        tips,
        send_id=handler.userID,
        recv_id=applicant,
        operation_id=operation_id,
        sender=handler,
        is_shown=True,
    )
