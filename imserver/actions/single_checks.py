"""May this message go to this one user? Asked for every message of a single chat, so the answers lie in the process."""

from __future__ import annotations

from imserver.conf import get_config
from imserver.constants import (
    NOTIFICATION_BEGIN,
    NOTIFICATION_END,
    AppManagerLevel,
    ContentType,
    Option,
    RecvMsgOpt,
    SessionType,
)
from imserver.errors import ArgsError, BlockedByPeer, NotPeersFriend, RecordNotFound
from imserver.protocol.conversations import single_conversation_id
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.options import is_notification
from imserver.storage.user_facts import UserFacts, get_user_facts


async def check_single(msg: MsgData) -> None:
    """A message from one user to another. Where the receiver wants no offline push, the message's option says so.

    Raises:
        ArgsError: no receiver, or one who does not want the message.  RecordNotFound: an unknown sender or receiver.
        BlockedByPeer, NotPeersFriend: not for notifications, configured admins and users of a higher level.
    """
    if not msg.recvID:
        raise ArgsError("recvID is empty")
    sender, receiver = await get_facts(msg.sendID), await get_facts(msg.recvID)
    is_exempt = (
        msg.sendID in get_config().admins
        or NOTIFICATION_BEGIN <= msg.contentType <= NOTIFICATION_END
        or sender.level >= AppManagerLevel.ADMIN
    )
    if not is_exempt:
        await _check_relation(msg, receiver)
    if msg.sessionType == SessionType.SINGLE and not is_notification(msg):
        _apply_receive_options(msg, receiver)


async def get_facts(user_id: str) -> UserFacts:
    """Raises RecordNotFound."""
    facts = await get_user_facts().get(user_id)
    if facts is None:
        raise RecordNotFound(f"user {user_id} is not registered")
    return facts


async def _check_relation(msg: MsgData, receiver: UserFacts) -> None:
    if msg.sendID in receiver.blocked:
        raise BlockedByPeer("the receiver has blocked the sender")
    if not get_config().friend_check or msg.sendID == msg.recvID:
        return
    if not await get_user_facts().is_friend(msg.recvID, receiver, msg.sendID):
        raise NotPeersFriend("the sender is not a friend of the receiver")


def _apply_receive_options(msg: MsgData, receiver: UserFacts) -> None:
    options = {receiver.receive_option}
    if receiver.receive_options:
        options.add(receiver.receive_options.get(single_conversation_id(msg.sendID, msg.recvID), RecvMsgOpt.RECEIVE))
    if RecvMsgOpt.NOT_RECEIVE in options and msg.contentType != ContentType.HAS_READ_RECEIPT:
        raise ArgsError("the message is not sent: the receiver does not receive")
    if RecvMsgOpt.RECEIVE_NOT_NOTIFY in options:
        msg.options[Option.OFFLINE_PUSH] = False
