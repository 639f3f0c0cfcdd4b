"""Numbers and names fixed by the OpenIM protocol. Nothing here is ours to choose."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class ReqIdentifier(IntEnum):
    """What a WebSocket frame asks for or announces."""

    GET_NEWEST_SEQ = 1001
    PULL_MSG_BY_RANGE = 1002
    SEND_MSG = 1003
    PULL_MSG_BY_SEQ_LIST = 1005
    GET_CONV_MAX_READ_SEQ = 1006
    GET_LAST_MESSAGE = 1007
    PUSH_MSG = 2001
    KICK_ONLINE = 2002
    LOGOUT = 2003
    SET_BACKGROUND = 2004
    SUB_USER_ONLINE_STATUS = 2005


class SessionType(IntEnum):
    SINGLE = 1
    WRITE_GROUP = 2
    GROUP = 3
    NOTIFICATION = 4


class MsgStatus(IntEnum):
    SENDING = 1
    SUCCESS = 2
    FAILED = 3
    DELETED = 4
    FILTERED = 5


class MsgFrom(IntEnum):
    USER = 100
    SYSTEM = 200


class ContentType(IntEnum):
    TEXT = 101
    PICTURE = 102
    VOICE = 103
    VIDEO = 104
    FILE = 105
    AT_TEXT = 106
    CUSTOM = 110
    REVOKE = 111
    TYPING = 113
    QUOTE = 114
    ADVANCED_TEXT = 117
    MARKDOWN_TEXT = 118
    FRIEND_APPLICATION_APPROVED = 1201
    FRIEND_APPLICATION_REJECTED = 1202
    FRIEND_APPLICATION = 1203
    FRIEND_DELETED = 1205
    FRIEND_REMARK_SET = 1206
    BLACK_ADDED = 1207
    BLACK_DELETED = 1208
    FRIEND_INFO_UPDATED = 1209
    FRIENDS_INFO_UPDATE = 1210
    CONVERSATION_CHANGE = 1300
    USER_INFO_UPDATED = 1303
    OA_NOTIFICATION = 1400
    GROUP_CREATED = 1501
    GROUP_INFO_SET = 1502
    JOIN_GROUP_APPLICATION = 1503
    MEMBER_QUIT = 1504
    GROUP_APPLICATION_ACCEPTED = 1505
    GROUP_APPLICATION_REJECTED = 1506
    GROUP_OWNER_TRANSFERRED = 1507
    MEMBER_KICKED = 1508
    MEMBER_INVITED = 1509
    MEMBER_ENTER = 1510
    GROUP_DISMISSED = 1511
    GROUP_MEMBER_MUTED = 1512
    GROUP_MEMBER_CANCEL_MUTED = 1513
    GROUP_MUTED = 1514
    GROUP_CANCEL_MUTED = 1515
    GROUP_MEMBER_INFO_SET = 1516
    GROUP_MEMBER_SET_TO_ADMIN = 1517
    GROUP_MEMBER_SET_TO_ORDINARY = 1518
    GROUP_INFO_SET_ANNOUNCEMENT = 1519
    GROUP_INFO_SET_NAME = 1520
    CONVERSATION_PRIVATE_CHAT = 1701
    CLEAR_CONVERSATION = 1703
    BUSINESS_NOTIFICATION = 2001
    MSG_REVOKE = 2101
    DELETE_MSGS = 2102
    HAS_READ_RECEIPT = 2200


NOTIFICATION_BEGIN = 1000
NOTIFICATION_END = 5000


class Platform(IntEnum):
    IOS = 1
    ANDROID = 2
    WINDOWS = 3
    OSX = 4
    WEB = 5
    MINI_WEB = 6
    LINUX = 7
    APAD = 8
    IPAD = 9
    ADMIN = 10
    HARMONY_OS = 11


#: Name of each platform, as webhooks and REST show it.
PLATFORM_NAME: dict[int, str] = {
    Platform.IOS: "IOS",
    Platform.ANDROID: "Android",
    Platform.WINDOWS: "Windows",
    Platform.OSX: "OSX",
    Platform.WEB: "Web",
    Platform.MINI_WEB: "MiniWeb",
    Platform.LINUX: "Linux",
    Platform.APAD: "APad",
    Platform.IPAD: "IPad",
    Platform.ADMIN: "Admin",
    Platform.HARMONY_OS: "HarmonyOS",
}

#: Who took a message here needs no offline push (pipeline.md section 7.4).
PUSH_TERMINALS = frozenset({Platform.IOS, Platform.ANDROID})


class PushResult(IntEnum):
    """What became of a batch on the connections of a user and platform."""

    OK = 0
    #: The connection was closed, or cut off as too slow.
    FAILED = 1603
    #: An iOS app in the background is not written to.
    IOS_BACKGROUND = 1604


#: Class of each platform, for the multi-terminal policies.
PLATFORM_CLASS: dict[int, str] = {
    Platform.IOS: "Mobile",
    Platform.ANDROID: "Mobile",
    Platform.WINDOWS: "PC",
    Platform.OSX: "PC",
    Platform.WEB: "Web",
    Platform.MINI_WEB: "MiniWeb",
    Platform.LINUX: "PC",
    Platform.APAD: "Pad",
    Platform.IPAD: "Pad",
    Platform.ADMIN: "Admin",
    Platform.HARMONY_OS: "HarmonyOS",
}


class LoginPolicy(IntEnum):
    """Multi-terminal login: who stays when a user logs in again."""

    NO_KICK = 0
    ONE_PER_PLATFORM = 1
    ONE_PER_CLASS = 4
    PC_AND_OTHER = 5


class TokenState(IntEnum):
    NORMAL = 0
    INVALID = 1
    KICKED = 2
    EXPIRED = 3


class OnlineStatus(IntEnum):
    OFFLINE = 0
    ONLINE = 1


class StatusGenre(IntEnum):
    SUBSCRIBE = 1
    UNSUBSCRIBE = 2


class RecvMsgOpt(IntEnum):
    RECEIVE = 0
    NOT_RECEIVE = 1
    RECEIVE_NOT_NOTIFY = 2


class GroupAtType(IntEnum):
    """Why a group's conversation is marked for a user."""

    NONE = 0
    ME = 1
    ALL = 2
    ALL_AND_ME = 3
    GROUP_NOTICE = 4


#: Names everybody in ``MsgData.atUserIDList``.
AT_ALL = "AtAllTag"


class AppManagerLevel(IntEnum):
    """What a user is taken for. An app admin's rights come from ADMIN_USER_IDS alone."""

    ORDINARY = 1
    ADMIN = 2
    NOTIFICATION = 3
    ROBOT = 4


#: The only kind of group there is.
GROUP_TYPE = 2


class GroupStatus(IntEnum):
    OK = 0
    BANNED = 1
    DISMISSED = 2
    MUTED = 3


class RoleLevel(IntEnum):
    OWNER = 100
    ADMIN = 60
    MEMBER = 20


class NeedVerification(IntEnum):
    """Who becomes a member only after an approval."""

    APPLICATIONS = 0
    ALL_BUT_MANAGERS_INVITATIONS = 1
    NOBODY = 2


class JoinSource(IntEnum):
    ADMIN = 1
    INVITATION = 2
    SEARCH = 3
    QR_CODE = 4


class FriendSource(IntEnum):
    IMPORT = 1
    APPLICATION = 2


class HandleResult(IntEnum):
    """State of an application, to a friend or a group."""

    PENDING = 0
    AGREED = 1
    REFUSED = -1


class WebhookCommand(StrEnum):
    """Webhooks of the message path; the command is also the last part of the address."""

    BEFORE_SEND_SINGLE = "callbackBeforeSendSingleMsgCommand"
    BEFORE_SEND_GROUP = "callbackBeforeSendGroupMsgCommand"
    BEFORE_MODIFY = "callbackBeforeMsgModifyCommand"
    AFTER_SEND_SINGLE = "callbackAfterSendSingleMsgCommand"
    AFTER_SEND_GROUP = "callbackAfterSendGroupMsgCommand"
    AFTER_SAVE = "callbackAfterMsgSaveDBCommand"
    BEFORE_ONLINE_PUSH = "callbackBeforeOnlinePushCommand"
    BEFORE_GROUP_ONLINE_PUSH = "callbackBeforeGroupOnlinePushCommand"
    BEFORE_OFFLINE_PUSH = "callbackBeforeOfflinePushCommand"


class PresenceCommand(StrEnum):
    """Webhooks that tell of connections."""

    ONLINE = "callbackAfterUserOnlineCommand"
    OFFLINE = "callbackAfterUserOfflineCommand"
    KICK_OFF = "callbackAfterUserKickOffCommand"


class Option:
    """Keys of ``MsgData.options``. An absent key means true."""

    HISTORY = "history"
    PERSISTENT = "persistent"
    OFFLINE_PUSH = "offlinePush"
    UNREAD_COUNT = "unreadCount"
    CONVERSATION_UPDATE = "conversationUpdate"
    SENDER_CONVERSATION_UPDATE = "senderConversationUpdate"
    SENDER_SYNC = "senderSync"
    NOT_PRIVATE = "notPrivate"
    REACTION_FROM_CACHE = "reactionFromCache"
    IS_NOT_NOTIFICATION = "isNotNotification"
    IS_SEND_MSG = "isSendMsg"


#: Messages in one MongoDB document.
MSGS_PER_BLOCK = 100

#: Close code of a client that does not read what is written to it. Gateway and servers both cut such a client off.
SLOW_READER_CODE = 4001
