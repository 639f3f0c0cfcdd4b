"""Which protobuf messages a request identifier carries."""

from __future__ import annotations

from google.protobuf.message import Message

from imserver.constants import ReqIdentifier
from imserver.protocol.gen import msg_pb2, push_pb2, sdkws_pb2

#: reqIdentifier -> (request message, response message); None where there is no data.
MESSAGE_TYPES: dict[int, tuple[type[Message] | None, type[Message] | None]] = {
    ReqIdentifier.GET_NEWEST_SEQ: (sdkws_pb2.GetMaxSeqReq, sdkws_pb2.GetMaxSeqResp),
    ReqIdentifier.PULL_MSG_BY_RANGE: (sdkws_pb2.PullMessageBySeqsReq, sdkws_pb2.PullMessageBySeqsResp),
    ReqIdentifier.SEND_MSG: (sdkws_pb2.MsgData, msg_pb2.SendMsgResp),
    ReqIdentifier.PULL_MSG_BY_SEQ_LIST: (msg_pb2.GetSeqMessageReq, msg_pb2.GetSeqMessageResp),
    ReqIdentifier.GET_CONV_MAX_READ_SEQ: (
        msg_pb2.GetConversationsHasReadAndMaxSeqReq,
        msg_pb2.GetConversationsHasReadAndMaxSeqResp,
    ),
    ReqIdentifier.GET_LAST_MESSAGE: (msg_pb2.GetLastMessageReq, msg_pb2.GetLastMessageResp),
    ReqIdentifier.PUSH_MSG: (None, sdkws_pb2.PushMessages),
    ReqIdentifier.KICK_ONLINE: (None, None),
    ReqIdentifier.LOGOUT: (push_pb2.DelUserPushTokenReq, push_pb2.DelUserPushTokenResp),
    ReqIdentifier.SET_BACKGROUND: (sdkws_pb2.SetAppBackgroundStatusReq, None),
    ReqIdentifier.SUB_USER_ONLINE_STATUS: (sdkws_pb2.SubUserOnlineStatus, sdkws_pb2.SubUserOnlineStatusTips),
}
