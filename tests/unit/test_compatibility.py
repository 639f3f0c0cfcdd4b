"""docs/compatibility.md has a row for every route and request of OpenIM's, and says what the URL table does."""

from __future__ import annotations

import re

import pytest

from imserver.conf import BASE_DIR
from imserver.constants import ReqIdentifier
from imserver.rest import unsupported
from imserver.urls import API

PAGE = BASE_DIR / "docs" / "compatibility.md"
NOT_SUPPORTED = "not supported"

#: Prefix -> routes of OpenIM 3.8, in the order of its router; GET routes are in ``unsupported.GET_ROUTES``.
OPENIM: dict[str, str] = {
    "/auth": "get_admin_token get_user_token parse_token force_logout",
    "/user": """user_register update_user_info update_user_info_ex set_global_msg_recv_opt get_users_info get_all_users_uid
        account_check get_users get_users_online_status get_users_online_token_detail subscribe_users_status get_users_status
        get_subscribe_users_status process_user_command_add process_user_command_delete process_user_command_update
        process_user_command_get process_user_command_get_all add_notification_account update_notification_account
        search_notification_account get_user_client_config set_user_client_config del_user_client_config
        page_user_client_config unsubscribe_users_status""",
    "/friend": """delete_friend get_friend_apply_list get_designated_friend_apply get_self_friend_apply_list get_friend_list
        get_designated_friends add_friend add_friend_response set_friend_remark add_black get_black_list get_specified_blacks
        remove_black get_incremental_blacks import_friend is_friend get_friend_id get_specified_friends_info update_friends
        get_incremental_friends get_full_friend_user_ids get_self_unhandled_apply_count""",
    "/group": """create_group set_group_info set_group_info_ex join_group quit_group group_application_response transfer_group
        get_recv_group_applicationList get_user_req_group_applicationList get_group_users_req_application_list
        get_specified_user_group_request_info get_groups_info kick_group get_group_members_info get_group_member_list
        invite_user_to_group get_joined_group_list dismiss_group mute_group_member cancel_mute_group_member mute_group
        cancel_mute_group set_group_member_info get_group_abstract_info get_groups get_group_member_user_id
        get_incremental_join_groups get_incremental_group_members get_incremental_group_members_batch
        get_full_group_member_user_ids get_full_join_group_ids get_group_application_unhandled_count""",
    "/third": "fcm_update_token set_app_badge logs/upload logs/delete logs/search",
    "/object": """part_limit part_size initiate_multipart_upload auth_sign complete_multipart_upload access_url
        initiate_form_data complete_form_data""",
    "/msg": """newest_seq search_msg send_msg send_business_notification pull_msg_by_seq revoke_msg mark_msgs_as_read
        mark_conversation_as_read get_conversations_has_read_and_max_seq set_conversation_has_read_seq clear_conversation_msg
        user_clear_all_msg delete_msgs delete_msg_phsical_by_seq delete_msg_physical batch_send_msg send_simple_msg
        check_msg_is_send_success get_server_time get_stream_msg append_stream_msg""",
    "/conversation": """get_sorted_conversation_list get_all_conversations get_conversation get_conversations set_conversations
        get_full_conversation_ids get_incremental_conversations get_owner_conversation get_not_notify_conversation_ids
        get_pinned_conversation_ids delete_conversations update_conversations_by_user
        get_conversation_offline_push_user_ids""",
    "/statistics": "user/register user/active group/create group/active",
    "/jssdk": "get_conversations get_active_conversations",
    "/config": """get_config_list get_config set_config set_configs reset_config set_enable_config_manager
        get_enable_config_manager""",
    "": "restart",
}
ROUTES = {f"{prefix}/{name}" for prefix, names in OPENIM.items() for name in names.split()}

BUILT = {f"/{route.pattern}" for route in API}
REFUSED = {f"/{name}" for name in (*unsupported.ROUTES, *unsupported.USER_ROUTES, *unsupported.GET_ROUTES)}


def read_rows(page: str, head: str) -> dict[str, str]:
    """First column -> second, of the table that begins with a head."""
    rows = {}
    table = page.partition(f"| {head} |")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        first, state = (cell.strip() for cell in line.strip("|").split(" | ", 1))
        rows[first] = state.rstrip(" |")
    return rows


def routes_of(cell: str) -> list[str]:
    """```/group/mute_group`, `kick_group``` names two routes: a name without a slash has the prefix of the one before."""
    routes: list[str] = []
    for name in re.findall(r"`([^`]+)`", cell):
        routes.append(name if name.startswith("/") else f"{routes[-1].rpartition('/')[0]}/{name}")
    return routes


ROWS = {
    route: state
    for cell, state in read_rows(PAGE.read_text("utf-8"), "REST route").items()
    for route in routes_of(cell)
}


def test_every_route_of_openim_is_answered() -> None:
    missing = sorted(ROUTES - BUILT - REFUSED)

    assert not missing, f"build, or add to imserver/rest/unsupported.py: {', '.join(missing)}"


def test_every_route_of_openim_has_a_row() -> None:
    missing = sorted((ROUTES | BUILT | REFUSED) - ROWS.keys())

    assert not missing, f"add rows to docs/compatibility.md: {', '.join(missing)}"


def test_no_row_names_a_route_that_is_not_there() -> None:
    known = BUILT | REFUSED | {"/object/<name>"}

    assert sorted(ROWS.keys() - known) == []


def test_rows_say_what_the_url_table_does() -> None:
    assert not BUILT & REFUSED
    assert [route for route in sorted(BUILT & ROWS.keys()) if NOT_SUPPORTED in ROWS[route]] == []
    assert [route for route in sorted(REFUSED & ROWS.keys()) if NOT_SUPPORTED not in ROWS[route]] == []


def test_every_request_of_the_socket_has_a_row() -> None:
    page = PAGE.read_text("utf-8")
    told = {int(number) for cell in read_rows(page, "WebSocket request") for number in re.findall(r"\d{4}", cell)}
    # Frames of the server, which nobody asks for.
    pushed = {ReqIdentifier.PUSH_MSG, ReqIdentifier.KICK_ONLINE}

    assert sorted({int(item) for item in ReqIdentifier} - pushed - told) == []


@pytest.mark.parametrize(
    ("cell", "routes"),
    [
        ("`/a/b`, `c`, `/d/e/f`, `g`", ["/a/b", "/a/c", "/d/e/f", "/d/e/g"]),
        ("`/restart`", ["/restart"]),
        ("nothing", []),
    ],
)
def test_a_cell_names_routes_with_their_prefix_once(cell: str, routes: list[str]) -> None:
    assert routes_of(cell) == routes
