"""One good request for every route of the URL table: whose token it takes, and whose it refuses.

Values that begin with @ stand for what ``World.make`` has made; the rows' order is one in which all of them can succeed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from imserver.protocol.conversations import single_conversation_id
from tests.client import ANSWER_SECONDS, Api
from tests.stack import POLL_SECONDS

Json = dict[str, Any]
PAGE = {"pageNumber": 1, "showNumber": 100}
VERSION = {"version": 0, "versionID": ""}

#: What is in the chat: a message of me's, the line that tells of the friendship, and a message of yours. Me has read its own.
SAID, READ = 3, 1
#: In place of a user: the app admin.
ADMIN = "@admin"
#: What anybody may ask with a good token, about whomever.
NOBODY: tuple[str, ...] = ()
STRANGER = ("@eve",)
#: Of a group: ordinary members are refused as strangers are.
NOT_MANAGERS = ("@eve", "@you")
#: Even whom the request is about is refused.
ORDINARY_USERS = ("@me", "@eve")


@dataclass(frozen=True)
class Row:
    """A request. ``code``: what it is answered with once the rights are settled."""

    body: Json
    by: str = "@me"
    refuses: tuple[str, ...] = STRANGER
    code: int = 0
    query: str = ""


def for_admins(body: Json, **more: Any) -> Row:
    return Row(body, by=ADMIN, refuses=ORDINARY_USERS, **more)


def for_managers(body: Json) -> Row:
    return Row(body, refuses=NOT_MANAGERS)


def for_all(body: Json, **more: Any) -> Row:
    return Row(body, refuses=NOBODY, **more)


MESSAGE: Json = {
    "sendID": "@me",
    "senderPlatformID": 1,
    "sessionType": 1,
    "contentType": 101,
    "content": {"content": "hello"},
}
FILE: Json = {
    "hash": "0" * 32,
    "size": 10,
    "partSize": 5 * 1024 * 1024,
    "maxParts": 1,
    "name": "@file",
    "cause": "c",
    "contentType": "text/plain",
}
SPAN: Json = {"start": 1_000, "end": 2_000}

_AUTH = {
    "auth/get_admin_token": Row({"secret": "openIM123", "userID": "imAdmin"}, by="", refuses=NOBODY),
    "auth/parse_token": Row({"token": "@token"}, by="", refuses=NOBODY),
    "auth/get_user_token": for_admins({"userID": "@eve", "platformID": 3}),
    "auth/force_logout": for_admins({"userID": "@eve", "platformID": 3}),
}
_USER = {
    "user/user_register": for_admins({"users": [{"userID": "@new", "nickname": "n", "faceURL": "", "ex": ""}]}),
    "user/get_users_info": for_all({"userIDs": ["@me"]}),
    "user/account_check": for_admins({"checkUserIDs": ["@me"]}),
    "user/get_all_users_uid": for_admins({"pagination": PAGE}),
    "user/get_users": for_admins({"pagination": PAGE, "userID": "@me", "nickName": ""}),
    "user/update_user_info": Row({"userInfo": {"userID": "@me", "nickname": "I"}}),
    "user/update_user_info_ex": Row({"userInfo": {"userID": "@me", "nickname": "I", "ex": "e"}}),
    "user/set_global_msg_recv_opt": Row({"userID": "@me", "globalRecvMsgOpt": 2}),
    "user/get_users_online_status": for_admins({"userIDs": ["@me"]}),
    "user/get_users_online_token_detail": for_admins({"userIDs": ["@me"]}),
    "user/subscribe_users_status": Row({"userID": "@me", "userIDs": ["@you"], "genre": 1}),
    "user/get_users_status": Row({"userID": "@me", "userIDs": ["@you"]}),
    "user/get_subscribe_users_status": Row({"userID": "@me"}),
    "user/process_user_command_add": Row({"userID": "@me", "type": 1, "uuid": "u", "value": "v", "ex": "e"}),
    "user/process_user_command_update": Row({"userID": "@me", "type": 1, "uuid": "u", "value": "w"}),
    "user/process_user_command_get": Row({"userID": "@me", "type": 1}),
    "user/process_user_command_get_all": Row({"userID": "@me"}),
    "user/process_user_command_delete": Row({"userID": "@me", "type": 1, "uuid": "u"}),
    "user/get_user_client_config": Row({"userID": "@me"}),
    "user/set_user_client_config": for_admins({"userID": "@me", "configs": {"a": "b"}}),
    "user/page_user_client_config": for_admins({"userID": "@me", "key": "", "pagination": PAGE}),
    "user/del_user_client_config": for_admins({"userID": "@me", "keys": ["a"]}),
    "user/add_notification_account": for_admins({"userID": "@robot", "nickName": "r", "appMangerLevel": 4}),
    "user/update_notification_account": for_admins({"userID": "@robot", "nickName": "R"}),
    "user/search_notification_account": for_admins({"keyword": "@robot", "pagination": PAGE}),
}
_MSG = {
    "msg/send_msg": for_admins({**MESSAGE, "recvID": "@you"}),
    "msg/batch_send_msg": for_admins({**MESSAGE, "recvIDs": ["@you"]}),
    # The key is {"sendID": "imAdmin", "recvID": "imAdmin"}: who answers oneself.
    "msg/send_simple_msg": for_admins(
        {"content": "x", "sendID": "imAdmin"}, query="?key=eyJzZW5kSUQiOiJpbUFkbWluIiwicmVjdklEIjoiaW1BZG1pbiJ9"
    ),
    "msg/send_business_notification": for_admins({"sendUserID": "@me", "recvUserID": "@you", "key": "k", "data": "d"}),
    "msg/check_msg_is_send_success": for_admins({}),
    "msg/get_server_time": for_all({}),
    "msg/newest_seq": Row({"userID": "@me"}),
    "msg/pull_msg_by_seq": Row(
        {"userID": "@me", "seqRanges": [{"conversationID": "@chat", "begin": 1, "end": 2, "num": 2}], "order": 0}
    ),
    "msg/search_msg": for_admins({"sendID": "@me", "recvID": "@you", "pagination": PAGE}),
    "msg/mark_conversation_as_read": Row({"conversationID": "@chat", "userID": "@me", "hasReadSeq": 3, "seqs": [3]}),
    "msg/mark_msgs_as_read": Row({"conversationID": "@chat", "userID": "@me", "seqs": [3]}),
    "msg/set_conversation_has_read_seq": Row(
        {"conversationID": "@chat", "userID": "@me", "hasReadSeq": 3, "noNotification": True}
    ),
    "msg/get_conversations_has_read_and_max_seq": Row(
        {"userID": "@me", "conversationIDs": ["@chat"], "returnPinned": True}
    ),
    "msg/revoke_msg": Row({"conversationID": "@chat", "seq": 1, "userID": "@me"}),
    "msg/delete_msgs": Row(
        {"conversationID": "@chat", "seqs": [1], "userID": "@me", "deleteSyncOpt": {"IsSyncSelf": True}}
    ),
    "msg/delete_msg_phsical_by_seq": for_admins({"conversationID": "@chat", "seqs": [1]}),
    "msg/delete_msg_physical": for_admins({"conversationIDs": ["@chat"], "timestamp": 1}),
}
_CONVERSATION = {
    "conversation/set_conversations": Row(
        {"userIDs": ["@me"], "conversation": {"conversationID": "@chat", "recvMsgOpt": 1, "isPinned": True, "ex": "e"}}
    ),
    "conversation/update_conversations_by_user": Row({"userID": "@me", "ex": "x"}),
    "conversation/get_conversation": Row({"ownerUserID": "@me", "conversationID": "@chat"}),
    "conversation/get_conversations": Row({"ownerUserID": "@me", "conversationIDs": ["@chat"]}),
    "conversation/get_all_conversations": Row({"ownerUserID": "@me"}),
    "conversation/get_owner_conversation": Row({"userID": "@me", "pagination": PAGE}),
    "conversation/get_incremental_conversations": Row({"userID": "@me", **VERSION}),
    "conversation/get_full_conversation_ids": Row({"userID": "@me", "idHash": 0}),
    "conversation/get_not_notify_conversation_ids": Row({"userID": "@me"}),
    "conversation/get_pinned_conversation_ids": Row({"userID": "@me"}),
    "conversation/get_sorted_conversation_list": Row(
        {"userID": "@me", "conversationIDs": ["@chat"], "pagination": PAGE}
    ),
    "jssdk/get_active_conversations": for_all({"ownerUserID": "@me", "count": 20}),
    "jssdk/get_conversations": for_all({"ownerUserID": "@me", "conversationIDs": ["@chat"]}),
    "conversation/delete_conversations": Row({"ownerUserID": "@me", "conversationIDs": ["@chat"], "needDeleteTime": 0}),
    "msg/clear_conversation_msg": Row(
        {"conversationIDs": ["@chat"], "userID": "@me", "deleteSyncOpt": {"IsSyncSelf": True}}
    ),
    "msg/user_clear_all_msg": Row({"userID": "@me", "deleteSyncOpt": {"IsSyncSelf": True}}),
}
_FRIEND = {
    "friend/get_friend_apply_list": Row({"userID": "@me", "pagination": PAGE, "handleResults": [0]}),
    "friend/get_self_friend_apply_list": Row({"userID": "@me", "pagination": PAGE, "handleResults": [0]}),
    "friend/get_self_unhandled_apply_count": Row({"userID": "@me", "time": 0}),
    "friend/get_designated_friend_apply": Row({"fromUserID": "@applicant", "toUserID": "@me"}),
    "friend/add_friend": Row({"fromUserID": "@me", "toUserID": "@third", "reqMsg": "r", "ex": "e"}),
    "friend/add_friend_response": Row(
        {"fromUserID": "@applicant", "toUserID": "@me", "handleResult": 1, "handleMsg": "m"}
    ),
    "friend/import_friend": for_admins({"ownerUserID": "@me", "friendUserIDs": ["@third"]}),
    "friend/update_friends": Row(
        {"ownerUserID": "@me", "friendUserIDs": ["@you"], "isPinned": True, "remark": "r", "ex": "e"}
    ),
    "friend/set_friend_remark": Row({"ownerUserID": "@me", "friendUserID": "@you", "remark": "r"}),
    "friend/get_friend_list": Row({"userID": "@me", "pagination": PAGE}),
    "friend/get_designated_friends": Row({"ownerUserID": "@me", "friendUserIDs": ["@you"]}),
    "friend/get_specified_friends_info": Row({"ownerUserID": "@me", "userIDList": ["@you"]}),
    "friend/is_friend": Row({"userID1": "@me", "userID2": "@you"}),
    "friend/get_friend_id": Row({"userID": "@me"}),
    "friend/get_full_friend_user_ids": Row({"userID": "@me", "idHash": 0}),
    "friend/get_incremental_friends": Row({"userID": "@me", **VERSION}),
    "friend/delete_friend": Row({"ownerUserID": "@me", "friendUserID": "@you"}),
    "friend/add_black": Row({"ownerUserID": "@me", "blackUserID": "@you", "ex": "e"}),
    "friend/get_black_list": Row({"userID": "@me", "pagination": PAGE}),
    "friend/get_specified_blacks": Row({"ownerUserID": "@me", "userIDList": ["@you"]}),
    "friend/get_incremental_blacks": Row({"userID": "@me", **VERSION}),
    "friend/remove_black": Row({"ownerUserID": "@me", "blackUserID": "@foe"}),
}
_GROUP = {
    "group/create_group": Row(
        {
            "ownerUserID": "@me",
            "memberUserIDs": ["@you"],
            "adminUserIDs": ["@third"],
            "groupInfo": {"groupName": "g", "groupType": 2},
            "sendMessage": False,
        }
    ),
    "group/get_groups_info": for_all({"groupIDs": ["@group"]}),
    "group/get_group_abstract_info": for_all({"groupIDs": ["@group"]}),
    "group/get_groups": for_admins({"groupName": "g", "groupID": "@group", "pagination": PAGE}),
    "group/get_group_member_list": Row({"groupID": "@group", "pagination": PAGE, "filter": 0, "keyword": ""}),
    "group/get_group_members_info": Row({"groupID": "@group", "userIDs": ["@you"]}),
    "group/get_group_member_user_id": Row({"groupID": "@group"}),
    "group/get_joined_group_list": Row({"fromUserID": "@me", "pagination": PAGE}),
    "group/get_full_join_group_ids": Row({"userID": "@me", "idHash": 0}),
    "group/get_full_group_member_user_ids": Row({"groupID": "@group", "idHash": 0}),
    "group/get_incremental_join_groups": Row({"userID": "@me", **VERSION}),
    "group/get_incremental_group_members": Row({"groupID": "@group", **VERSION}),
    "group/get_incremental_group_members_batch": Row({"userID": "@me", "reqList": [{"groupID": "@group", **VERSION}]}),
    "group/get_recv_group_applicationList": Row(
        {"fromUserID": "@me", "pagination": PAGE, "groupIDs": ["@group"], "handleResults": [0]}
    ),
    "group/get_user_req_group_applicationList": Row(
        {"userID": "@me", "pagination": PAGE, "groupIDs": ["@group"], "handleResults": [0]}
    ),
    "group/get_group_application_unhandled_count": Row({"userID": "@me", "time": 0}),
    "group/get_specified_user_group_request_info": for_managers({"groupID": "@group", "userID": "@applicant"}),
    "group/get_group_users_req_application_list": for_managers({"groupID": "@group", "userIDs": ["@applicant"]}),
    "group/group_application_response": for_managers(
        {"groupID": "@group", "fromUserID": "@applicant", "handledMsg": "m", "handleResult": 1}
    ),
    "group/join_group": Row(
        {"groupID": "@group", "reqMessage": "m", "joinSource": 3, "inviterUserID": "@foe", "ex": "e"},
        by="@foe",
        refuses=("@eve", "@me"),
    ),
    "group/invite_user_to_group": Row(
        {"groupID": "@group", "invitedUserIDs": ["@eve"], "reason": "r", "sendMessage": False}
    ),
    "group/mute_group_member": for_managers({"groupID": "@group", "userID": "@third", "mutedSeconds": 60}),
    "group/cancel_mute_group_member": for_managers({"groupID": "@group", "userID": "@third"}),
    "group/mute_group": for_managers({"groupID": "@group"}),
    "group/cancel_mute_group": for_managers({"groupID": "@group"}),
    "group/set_group_info": for_managers({"groupInfoForSet": {"groupID": "@group", "groupName": "x"}}),
    "group/set_group_info_ex": for_managers({"groupID": "@group", "groupName": "y", "needVerification": 2}),
    "group/set_group_member_info": for_managers(
        {"members": [{"groupID": "@group", "userID": "@third", "nickname": "n", "roleLevel": 20}]}
    ),
    "group/kick_group": for_managers(
        {"groupID": "@group", "kickedUserIDs": ["@third"], "reason": "r", "sendMessage": False}
    ),
    "group/transfer_group": for_managers({"groupID": "@group", "oldOwnerUserID": "@me", "newOwnerUserID": "@you"}),
    # Me is no longer the owner by then.
    "group/quit_group": Row({"groupID": "@group", "userID": "@me"}, refuses=NOT_MANAGERS),
    "group/dismiss_group": for_managers({"groupID": "@other group", "deleteMember": False, "sendMessage": False}),
}
_OBJECT = {
    "object/part_limit": for_all({}),
    "object/part_size": for_all({"size": 10}),
    "object/initiate_multipart_upload": Row(FILE),
    "object/auth_sign": Row({"uploadID": "@upload", "partNumbers": [1]}),
    # Nothing was put there: who may complete it is told which parts are missing.
    "object/complete_multipart_upload": Row(
        {"uploadID": "@upload", "parts": ["0" * 32], "name": "@file", "contentType": "text/plain"}, code=1001
    ),
    "object/initiate_form_data": Row({"name": "@file", "size": 10, "contentType": "text/plain", "group": "g"}),
    "object/complete_form_data": Row({"id": "@form"}, code=1001),
    # There is no such file, for anybody.
    "object/access_url": for_all({"name": "@file", "query": {"type": "image"}}, code=1004),
}
_OTHER = {
    "statistics/user/register": for_admins(SPAN),
    "statistics/group/create": for_admins(SPAN),
    "statistics/user/active": for_admins({**SPAN, "pagination": PAGE}),
    "statistics/group/active": for_admins({**SPAN, "pagination": PAGE}),
    "third/fcm_update_token": Row({"account": "@me", "platformID": 1, "fcmToken": "t", "expireTime": 60}),
    "third/set_app_badge": Row({"userID": "@me", "appUnreadCount": 1}),
    "third/logs/upload": for_all({"platform": 1, "fileURLs": [{"filename": "f", "URL": "u"}], "version": "v"}),
    "third/logs/search": for_admins({"keyword": "@me", "pagination": PAGE}),
    "third/logs/delete": for_admins({"logIDs": ["@log"]}),
}
ROWS: dict[str, Row] = {**_AUTH, **_USER, **_MSG, **_FRIEND, **_GROUP, **_CONVERSATION, **_OBJECT, **_OTHER}

#: What shows that nothing has changed: reading routes, asked by the app admin for each user of the world.
_SEEN = [
    "friend/get_friend_list",
    "friend/get_friend_apply_list",
    "friend/get_self_friend_apply_list",
    "friend/get_black_list",
    "friend/get_incremental_friends",
    "group/get_joined_group_list",
    "group/get_user_req_group_applicationList",
    "conversation/get_all_conversations",
    "conversation/get_incremental_conversations",
    "user/get_users_info",
    "user/process_user_command_get_all",
    "user/get_user_client_config",
    "user/get_subscribe_users_status",
    "third/logs/search",
]
_SEEN_ONCE = ["group/get_groups_info", "group/get_group_member_list", "group/get_recv_group_applicationList"]


class World:
    """Users with something to lose. Me has a chat with you and a friend in you, an applicant, a blocked foe, two groups
    with you and a third, an applicant to the group, an upload, a form and a log. Eve has nothing to do with them."""

    def __init__(self, api: Api, names: Iterator[str]) -> None:
        self.api = api
        self.names = {f"@{who}": next(names) for who in ("me", "you", "eve", "third", "foe", "applicant")}
        self.users = list(self.names.values())
        self.names |= {"@new": next(names), "@robot": next(names), "@nobody": next(names)}
        self.names["@file"] = f"{self.names['@me']}/{secrets.token_hex(8)}.txt"
        self.names["@chat"] = single_conversation_id(self.names["@me"], self.names["@you"])
        self.tokens: dict[str, str | None] = {ADMIN: None, "": ""}
        self._at_once = asyncio.Semaphore(8)

    @classmethod
    async def make(cls, api: Api, names: Iterator[str]) -> Self:
        world = cls(api, names)
        await api.register(*world.users)
        for who in ("@me", "@you", "@eve", "@third", "@foe", "@applicant"):
            world.tokens[who] = await api.token(world.names[who], 5)
        world.names["@token"] = world.tokens["@me"] or ""
        for name in ("@group", "@other group"):
            info = {"groupName": "g", "groupType": 2, "needVerification": 0}
            given: Json = {"memberUserIDs": ["@you", "@third"], "adminUserIDs": [], "groupInfo": info}
            data = await world.call("group/create_group", **given)
            world.names[name] = data["groupInfo"]["groupID"]
        application = {"groupID": "@group", "inviterUserID": "@applicant", "reqMessage": "", "joinSource": 3}
        await world.call("group/join_group", by="@applicant", **application)
        await world.call("friend/add_friend", by="@applicant", fromUserID="@applicant", toUserID="@me")
        await world.call("friend/add_black", blackUserID="@foe")
        await world.call("msg/send_msg")
        await world.call("friend/import_friend", friendUserIDs=["@you"])
        await world.call("msg/send_msg", sendID="@you", recvID="@me")
        await world.call("third/logs/upload")
        world.names["@log"] = (await world.call("third/logs/search"))["logsInfos"][0]["logID"]
        world.names["@upload"] = (await world.call("object/initiate_multipart_upload"))["upload"]["uploadID"]
        world.names["@form"] = (await world.call("object/initiate_form_data"))["id"]
        await world.until_said(SAID)
        return world

    def fill(self, value: Any) -> Any:
        """With names in place of what begins with @."""
        if isinstance(value, dict):
            return {name: self.fill(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        return self.names.get(value, value) if isinstance(value, str) else value

    async def post(self, route: str, body: Json, by: str) -> Json:
        """The route's row says what is in the query."""
        async with self._at_once:
            return await self.api.post(f"/{route}{ROWS[route].query}", self.fill(body), token=self.tokens[by])

    async def code(self, route: str, body: Json, by: str) -> int:
        code: int = (await self.post(route, body, by))["errCode"]
        return code

    async def call(self, route: str, by: str | None = None, **change: Any) -> Any:
        """The data of a success of the row's request with some fields changed."""
        row = ROWS[route]
        envelope = await self.post(route, {**row.body, **change}, by or row.by)
        assert envelope["errCode"] == 0, (route, envelope)
        return envelope.get("data")

    async def seqs(self) -> tuple[int, int]:
        """How far the chat goes, and how far me has read it."""
        data = await self.call("msg/get_conversations_has_read_and_max_seq", by=ADMIN)
        found = data["seqs"].get(self.names["@chat"], {"maxSeq": 0, "hasReadSeq": 0})
        return found["maxSeq"], found["hasReadSeq"]

    async def until_said(self, count: int) -> None:
        """The chat has that many messages, and both have a record of it."""

        async def is_said() -> bool:
            last, _ = await self.seqs()
            route = "conversation/get_all_conversations"
            rows = [(await self.call(route, by=ADMIN, ownerUserID=owner))["conversations"] for owner in ("@me", "@you")]
            # A list begins with version 1; the one that tells of the record comes after the record.
            route = "conversation/get_full_conversation_ids"
            lists = [await self.call(route, by=ADMIN, userID=owner) for owner in ("@me", "@you")]
            return last >= count and all(rows) and all(found["version"] > 1 for found in lists)

        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                if await is_said():
                    return
                await asyncio.sleep(POLL_SECONDS)

    async def seen(self) -> Json:
        """All that the users have, as the routes tell it."""
        asked: list[tuple[str, Json]] = [(route, {}) for route in _SEEN_ONCE]
        asked += [(route, _about(ROWS[route].body, who)) for who in self.users for route in _SEEN]
        asked.append(("user/get_users_info", {"userIDs": ["@new", "@robot"]}))
        answers = await asyncio.gather(*(self.call(route, by=ADMIN, **change) for route, change in asked))
        return {f"{route} {change}": answer for (route, change), answer in zip(asked, answers, strict=True)}

    async def check_unchanged(self, before: Json) -> None:
        """Nothing has changed since ``seen`` said that, and nobody has said anything or read it."""
        # After all that was refused, to the same conversation: nothing of that is before it.
        await self.call("msg/send_msg", sendID="@you", recvID="@me")
        await self.until_said(SAID + 1)
        assert await self.seqs() == (SAID + 1, READ)
        assert await self.seen() == before


def _about(body: Json, who: str) -> Json:
    """The body that names somebody else than me."""
    if isinstance(body.get("userIDs"), list) and "userID" not in body:
        return {"userIDs": [who]}
    return {name: who for name, value in body.items() if value == "@me"}
