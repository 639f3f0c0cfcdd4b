"""Every route of the URL table: what it cannot use is refused with its code, and changes nothing (protocol: rest.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.route_table import ROWS, SAID, Json, World
from tests.client import Api

pytestmark = pytest.mark.acceptance

#: What OpenIM has besides (rest.md 6, Tier 4): test_app_server_routes.py, test_group_dashboard.py and others try them.
TIER_4 = {
    *("user/update_user_info", "user/get_all_users_uid"),
    *("user/get_users_online_status", "user/get_users_online_token_detail"),
    *("user/get_users_status", "user/get_subscribe_users_status", "user/process_user_command_get"),
    *("user/add_notification_account", "user/update_notification_account"),
    *("user/get_user_client_config", "user/set_user_client_config", "user/del_user_client_config"),
    *("friend/get_friend_id", "group/set_group_info"),
    *("group/get_group_users_req_application_list", "group/get_group_abstract_info"),
    *("group/get_group_member_user_id", "group/get_incremental_group_members", "msg/newest_seq", "msg/search_msg"),
    *("msg/send_business_notification", "msg/pull_msg_by_seq", "msg/delete_msg_phsical_by_seq"),
    *("msg/delete_msg_physical", "msg/send_simple_msg", "msg/check_msg_is_send_success", "msg/get_server_time"),
    *("conversation/get_sorted_conversation_list", "conversation/get_conversation"),
    *("conversation/get_pinned_conversation_ids", "conversation/delete_conversations"),
    *("conversation/update_conversations_by_user", "object/access_url", "object/initiate_form_data"),
    *("object/complete_form_data", "third/logs/delete", "statistics/user/register"),
    *("statistics/user/active", "statistics/group/create", "statistics/group/active"),
}
#: Of these no value of the right type is bad: they take nothing but the caller's id, a time since when, or ids of which those
#: that are the caller's count.
TAKE_EVERYTHING = {
    *("object/part_limit", "user/process_user_command_get_all", "conversation/get_all_conversations"),
    *("friend/get_self_unhandled_apply_count", "group/get_group_application_unhandled_count"),
    *("conversation/get_not_notify_conversation_ids", "msg/user_clear_all_msg"),
    *("msg/get_conversations_has_read_and_max_seq",),
}

MANY = [f"x{number}" for number in range(1001)]
Changes = list[tuple[Json, int]]
PAGES: Changes = [
    ({"pagination": value}, 1001)
    for value in (None, {}, {"pageNumber": 0, "showNumber": 1}, {"pageNumber": 1, "showNumber": 1001})
]
#: What MongoDB does not take in a pattern.
WORDS = ["\x00", "a\x00b", "x" * 257, "x" * 40_000]
VERSIONS: Changes = [({"version": -1}, 1001), ({"version": 1 << 63, "versionID": ["x"]}, 1001)]
HASHES: Changes = [({"idHash": -1}, 1001)]


def row_of(member: Json) -> Json:
    return {"members": [{"groupID": "@group", "userID": "@third", **member}]}


def setting(**values: Any) -> Json:
    return {"conversation": {"conversationID": "@chat", **values}}


def group_info(**values: Any) -> Json:
    return {"groupInfo": {"groupName": "g", "groupType": 2, **values}}


#: Route -> changes of its good request, and the code of the answer.
BAD_VALUES: dict[str, Changes] = {
    "auth/get_admin_token": [({"secret": "wrong"}, 1002), ({"userID": "@me"}, 1001)],
    "auth/get_user_token": [
        *(({"platformID": value}, 1001) for value in (0, 12)),
        ({"platformID": 10}, 1002),
        ({"userID": "@nobody"}, 1004),
    ],
    "auth/parse_token": [({"token": "a.b.c"}, 1503)],
    "auth/force_logout": [({"platformID": value}, 1001) for value in (0, 12)],
    "user/user_register": [
        ({"users": []}, 1001),
        ({"users": [{"userID": "@new", "nickname": ""}]}, 1001),
        ({"users": [{"userID": "a b", "nickname": "n"}]}, 1001),
        ({"users": [{"userID": "@new", "nickname": "n", "ex": "x" * 4001}]}, 1001),
        ({"users": [{"userID": "@new", "nickname": "n", "faceURL": "x" * 1025}]}, 1001),
        ({"users": [{"userID": "@new", "nickname": "n", "appMangerLevel": 5}]}, 1001),
        ({"users": [{"userID": "@new", "nickname": "n", "globalRecvMsgOpt": 3}]}, 1001),
        ({"users": [{"userID": "@new", "nickname": "n"}] * 2}, 1001),
        ({"users": [{"userID": "@new", "nickname": "n"}, {"userID": "@me", "nickname": "n"}]}, 1102),
    ],
    "user/get_users_info": [({"userIDs": MANY}, 1001)],
    "user/account_check": [({"checkUserIDs": ["@me", "@me"]}, 1001), ({"checkUserIDs": MANY}, 1001)],
    "user/update_user_info_ex": [
        ({"userInfo": {"userID": "@me", "nickname": ""}}, 1001),
        ({"userInfo": {"userID": "@me", "nickname": "n", "ex": "x" * 4001}}, 1001),
        ({"userInfo": {"userID": "@me", "nickname": "n", "globalRecvMsgOpt": 3}}, 1001),
    ],
    "user/set_global_msg_recv_opt": [({"globalRecvMsgOpt": value}, 1001) for value in (-1, 3)],
    "user/subscribe_users_status": [
        *(({"userIDs": value}, 1001) for value in ([], [""], ["x" * 65], MANY)),
        *(({"genre": value}, 1001) for value in (0, 3)),
    ],
    "user/process_user_command_add": [({"uuid": ""}, 1001), ({"value": "x" * 20_000}, 1001)],
    "user/process_user_command_update": [({"uuid": ""}, 1001), ({}, 1004)],
    "user/process_user_command_delete": [({"uuid": ""}, 1001), ({}, 1004)],
    "msg/send_msg": [
        ({"content": None}, 1001),
        ({"contentType": 113}, 1001),
        ({"sessionType": 2}, 1001),
        ({"recvID": "@nobody"}, 1004),
        ({"sendID": "@nobody"}, 1004),
        ({"content": {"content": "x" * 200_000}}, 1001),
    ],
    "msg/batch_send_msg": [
        ({"recvIDs": []}, 1001),
        ({"recvIDs": MANY}, 1001),
        ({"contentType": 113}, 1001),
        ({"sendID": "@nobody"}, 1004),
    ],
    "msg/mark_conversation_as_read": [
        *(({"hasReadSeq": value}, 1001) for value in (0, -1, SAID + 1)),
        *(({"seqs": value}, 1001) for value in ([0], [1, SAID + 1])),
        ({"conversationID": "si_x_y"}, 1002),
        ({"hasReadSeq": 1 << 62}, 1001),
    ],
    "msg/mark_msgs_as_read": [
        *(({"seqs": value}, 1001) for value in ([], [0], [SAID + 1], [1] * 1001)),
        ({"conversationID": "si_x_y"}, 1002),
    ],
    "msg/set_conversation_has_read_seq": [
        *(({"hasReadSeq": value}, 1001) for value in (0, SAID + 1)),
        ({"conversationID": "si_x_y"}, 1002),
    ],
    "msg/revoke_msg": [({"seq": 0}, 1001), ({"seq": 9}, 1004), ({"conversationID": "si_x_y"}, 1002)],
    "msg/delete_msgs": [
        *(({"seqs": value}, 1001) for value in ([], [0], [1] * 1001)),
        ({"conversationID": "si_x_y"}, 1002),
    ],
    "msg/clear_conversation_msg": [
        *(({"conversationIDs": value}, 1001) for value in ([], MANY)),
        ({"conversationIDs": ["@chat", "si_x_y"]}, 1002),
    ],
    "conversation/set_conversations": [
        *(({"userIDs": value}, 1001) for value in ([], ["@me"] * 1001)),
        ({"conversation": None}, 1001),
        (setting(recvMsgOpt=3, isPinned=True), 1001),
        (setting(burnDuration=-1, isPinned=True), 1001),
        (setting(groupAtType=9, isPinned=True), 1001),
        (setting(ex="x" * 4001, isPinned=True), 1001),
        (setting(attachedInfo="x" * 4001, isPinned=True), 1001),
        ({"conversation": {"conversationID": "si_x_y", "isPinned": True}}, 1002),
    ],
    "conversation/get_conversations": [({"conversationIDs": MANY}, 1001)],
    "conversation/get_owner_conversation": PAGES,
    "conversation/get_incremental_conversations": VERSIONS,
    "conversation/get_full_conversation_ids": HASHES,
    "jssdk/get_active_conversations": [({"count": -1}, 1001)],
    "jssdk/get_conversations": [({"conversationIDs": MANY}, 1001)],
    "friend/get_friend_apply_list": PAGES,
    "friend/get_self_friend_apply_list": PAGES,
    "friend/get_designated_friend_apply": [({"fromUserID": ""}, 1001)],
    "friend/add_friend": [
        ({"toUserID": "@me"}, 1301),
        ({"toUserID": "@nobody"}, 1004),
        ({"toUserID": "@you"}, 1304),
        ({"reqMsg": "x" * 1001}, 1001),
        ({"ex": "x" * 4001}, 1001),
    ],
    "friend/add_friend_response": [
        ({"handleResult": 0}, 1001),
        ({"handleMsg": "x" * 1001}, 1001),
        ({"fromUserID": "@eve"}, 1004),
    ],
    "friend/import_friend": [
        *(({"friendUserIDs": value}, 1001) for value in ([], ["@third", "@third"], MANY)),
        ({"friendUserIDs": ["@third", "@nobody"]}, 1004),
        ({"friendUserIDs": ["@third", "@me"]}, 1301),
    ],
    "friend/update_friends": [
        *(({"friendUserIDs": value}, 1001) for value in ([], ["@you", "@you"], MANY)),
        ({"friendUserIDs": ["@you", "@eve"]}, 1004),
        ({"remark": "x" * 256}, 1001),
    ],
    "friend/get_friend_list": PAGES,
    "friend/get_designated_friends": [({"friendUserIDs": value}, 1001) for value in (["@you", "@you"], MANY)],
    "friend/get_full_friend_user_ids": HASHES,
    "friend/get_incremental_friends": VERSIONS,
    "friend/is_friend": [({"userID2": ""}, 1001)],
    "friend/delete_friend": [({"friendUserID": "@eve"}, 1004)],
    "friend/add_black": [
        ({"blackUserID": "@me"}, 1001),
        ({"blackUserID": "@nobody"}, 1004),
        ({"blackUserID": "@foe"}, 1003),
        ({"ex": "x" * 4001}, 1001),
    ],
    "friend/remove_black": [({"blackUserID": ""}, 1001)],
    "friend/get_black_list": PAGES,
    "friend/get_incremental_blacks": VERSIONS,
    "friend/get_specified_friends_info": [({"userIDList": value}, 1001) for value in ([], ["@you", "@you"], MANY)],
    "friend/set_friend_remark": [({"remark": "x" * 256}, 1001), ({"friendUserID": "@eve"}, 1004)],
    "friend/get_specified_blacks": [({"userIDList": value}, 1001) for value in ([], ["@foe", "@foe"], MANY)],
    "group/create_group": [
        (group_info(groupType=0), 1001),
        (group_info(needVerification=3), 1001),
        (group_info(groupName="x" * 256), 1001),
        (group_info(groupID="under_score"), 1001),
        (group_info(groupID="@group"), 1202),
        ({"memberUserIDs": ["@third"]}, 1001),
        ({"memberUserIDs": ["@nobody"]}, 1101),
        ({"memberUserIDs": MANY}, 1001),
    ],
    "group/get_groups_info": [({"groupIDs": value}, 1001) for value in ([], MANY)],
    "group/get_group_member_list": [
        *PAGES,
        ({"filter": 6}, 1001),
        *(({"keyword": word}, 1001) for word in WORDS),
        ({"groupID": "none"}, 1004),
    ],
    "group/get_groups": [({"groupID": "", "groupName": word}, 1001) for word in WORDS],
    "user/get_users": [
        *(({"userID": word}, 1001) for word in WORDS),
        *(({"nickName": word}, 1001) for word in WORDS),
    ],
    "user/page_user_client_config": [({"key": word}, 1001) for word in WORDS],
    "user/search_notification_account": [({"keyword": word}, 1001) for word in WORDS],
    "third/logs/search": [({"keyword": word}, 1001) for word in WORDS],
    "group/get_group_members_info": [
        *(({"userIDs": value}, 1001) for value in ([], MANY)),
        ({"groupID": "none"}, 1004),
    ],
    "group/get_joined_group_list": PAGES,
    "group/get_full_join_group_ids": HASHES,
    "group/get_incremental_join_groups": VERSIONS,
    "group/get_full_group_member_user_ids": [*HASHES, ({"groupID": "none"}, 1004)],
    "group/get_incremental_group_members_batch": [
        ({"reqList": [{"groupID": item} for item in MANY]}, 1001),
        ({"reqList": [{"groupID": "@group"}, {"groupID": "none"}]}, 1002),
    ],
    "group/get_recv_group_applicationList": [*PAGES, ({"groupIDs": ["@group", "none"]}, 1002)],
    "group/get_user_req_group_applicationList": PAGES,
    "group/get_specified_user_group_request_info": [({"groupID": "none"}, 1002)],
    "group/group_application_response": [
        ({"handleResult": 0}, 1001),
        ({"handledMsg": "x" * 1001}, 1001),
        ({"fromUserID": "@eve"}, 1004),
        ({"groupID": "none"}, 1004),
    ],
    "group/join_group": [
        ({"groupID": "none"}, 1004),
        *(({"joinSource": value}, 1001) for value in (0, 1, 5)),
        ({"reqMessage": "x" * 1001}, 1001),
        ({"ex": "x" * 4001}, 1001),
    ],
    "group/invite_user_to_group": [
        *(({"invitedUserIDs": value}, 1001) for value in ([], ["@eve", "@eve"], ["@you"], MANY)),
        ({"invitedUserIDs": ["@eve", "@nobody"]}, 1004),
        ({"reason": "x" * 1001}, 1001),
        ({"groupID": "none"}, 1004),
    ],
    "group/mute_group_member": [
        ({"mutedSeconds": 0}, 1001),
        ({"userID": "@eve"}, 1004),
        ({"groupID": "none"}, 1004),
    ],
    "group/cancel_mute_group_member": [({"userID": "@eve"}, 1004), ({"groupID": "none"}, 1004)],
    "group/mute_group": [({"groupID": "none"}, 1004)],
    "group/cancel_mute_group": [({"groupID": "none"}, 1004)],
    "group/set_group_info_ex": [
        *(({"groupName": value}, 1001) for value in ("", " ")),
        ({"needVerification": 3}, 1001),
        ({"notification": "x" * 4001}, 1001),
        ({"groupID": "none"}, 1004),
    ],
    "group/set_group_member_info": [
        ({"members": []}, 1001),
        (row_of({"nickname": "x" * 256}), 1001),
        (row_of({"nickname": "n", "roleLevel": 100}), 1002),
        (row_of({"nickname": "n", "roleLevel": 30}), 1001),
        (row_of({"nickname": "n", "userID": "@eve"}), 1001),
        (row_of({"nickname": "n", "groupID": "none"}), 1004),
    ],
    "group/kick_group": [
        *(({"kickedUserIDs": value}, 1001) for value in ([], ["@third", "@third"], ["@third", "@me"], MANY)),
        ({"kickedUserIDs": ["@third", "@eve"]}, 1101),
        ({"groupID": "none"}, 1004),
    ],
    "group/transfer_group": [
        ({"newOwnerUserID": "@me"}, 1001),
        ({"newOwnerUserID": "@eve"}, 1001),
        ({"groupID": "none"}, 1004),
    ],
    "group/quit_group": [({}, 1002), ({"groupID": "none"}, 1004)],
    "group/dismiss_group": [({"groupID": "none"}, 1004)],
    "object/part_size": [({"size": value}, 1001) for value in (0, -1, 1 << 50)],
    "object/initiate_multipart_upload": [
        *(({"size": value}, 1001) for value in (0, -1, 1 << 50)),
        ({"hash": "x"}, 1001),
        ({"partSize": 1}, 1001),
        ({"name": ""}, 1001),
        ({"name": "somebody/x"}, 1002),
    ],
    "object/auth_sign": [
        *(({"partNumbers": value}, 1001) for value in ([], [0], [2], [1, 1])),
        ({"uploadID": "none"}, 1004),
    ],
    "object/complete_multipart_upload": [
        *(({"parts": value}, 1001) for value in ([], ["x"], ["1" * 32], ["0" * 32] * 2)),
        ({"uploadID": "none"}, 1004),
    ],
    "third/fcm_update_token": [
        *(({"platformID": value}, 1001) for value in (0, 12)),
        ({"fcmToken": ""}, 1001),
        ({"expireTime": -1}, 1001),
    ],
    "third/set_app_badge": [({"appUnreadCount": -1}, 1001)],
    "third/logs/upload": [
        ({"platform": 0}, 1001),
        ({"fileURLs": []}, 1001),
        ({"fileURLs": [{"filename": "f"}]}, 1001),
        ({"version": "x" * 2049}, 1001),
    ],
}


def test_every_route_has_bad_values_or_takes_everything() -> None:
    assert sorted([*BAD_VALUES, *TAKE_EVERYTHING, *TIER_4]) == sorted(ROWS)


def misread(value: Any) -> list[Any]:
    """Values of other types in its place."""
    if isinstance(value, bool):
        return ["yes", 1]
    if isinstance(value, int):
        return ["1", 1.5, True]
    if isinstance(value, str):
        return [1, {}]
    if isinstance(value, list):
        return ["x", [None]]
    return ["x", []]


async def test_what_no_route_can_use_is_refused_with_its_code_and_changes_nothing(
    api: Api, names: Iterator[str]
) -> None:
    world = await World.make(api, names)
    before = await world.seen()
    misfits = [
        (route, {name: other}, 1001)
        for route, row in ROWS.items()
        for name, value in row.body.items()
        for other in misread(value)
    ]
    bad = [*misfits, *((route, change, code) for route, changes in BAD_VALUES.items() for change, code in changes)]

    async def answer(route: str, change: Json) -> tuple[str, ...]:
        """What is there to see when it is not the code that was wanted."""
        envelope = await world.post(route, {**ROWS[route].body, **change}, ROWS[route].by)
        assert "data" not in envelope, (route, change)
        return (route, str(change)[:80], str(envelope["errCode"]))

    answers = await asyncio.gather(*(answer(route, change) for route, change, _ in bad))

    assert answers == [(route, str(change)[:80], str(code)) for route, change, code in bad]
    await world.check_unchanged(before)
