"""Every HTTP route of the web process."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, path

from imserver.conf import get_config
from imserver.rest import auth, conversation, demo, group, health, msg, user
from imserver.rest.decorators import unknown_route

API: list[URLPattern] = [
    path("auth/get_admin_token", auth.get_admin_token),
    path("auth/get_user_token", auth.get_user_token),
    path("auth/parse_token", auth.parse_token),
    path("auth/force_logout", auth.force_logout),
    path("user/user_register", user.user_register),
    path("user/get_users_info", user.get_users_info),
    path("msg/send_msg", msg.send_msg),
    path("msg/mark_conversation_as_read", msg.mark_conversation_as_read),
    path("msg/mark_msgs_as_read", msg.mark_msgs_as_read),
    path("msg/set_conversation_has_read_seq", msg.set_conversation_has_read_seq),
    path("msg/revoke_msg", msg.revoke_msg),
    path("msg/delete_msgs", msg.delete_msgs),
    path("msg/clear_conversation_msg", msg.clear_conversation_msg),
    path("msg/user_clear_all_msg", msg.user_clear_all_msg),
    path("msg/get_conversations_has_read_and_max_seq", msg.get_conversations_has_read_and_max_seq),
    path("conversation/set_conversations", conversation.set_conversations),
    path("conversation/get_conversation", conversation.get_conversation),
    path("conversation/get_conversations", conversation.get_conversations),
    path("conversation/get_all_conversations", conversation.get_all_conversations),
    path("conversation/get_owner_conversation", conversation.get_owner_conversation),
    path("conversation/get_incremental_conversations", conversation.get_incremental_conversations),
    path("conversation/get_full_conversation_ids", conversation.get_full_conversation_ids),
    path("conversation/get_not_notify_conversation_ids", conversation.get_not_notify_conversation_ids),
    path("conversation/get_pinned_conversation_ids", conversation.get_pinned_conversation_ids),
    path("group/create_group", group.create_group),
    path("group/dismiss_group", group.dismiss_group),
    path("group/join_group", group.join_group),
    path("group/invite_user_to_group", group.invite_user_to_group),
    path("group/quit_group", group.quit_group),
    path("group/kick_group", group.kick_group),
    path("group/transfer_group", group.transfer_group),
    path("group/mute_group_member", group.mute_group_member),
    path("group/cancel_mute_group_member", group.cancel_mute_group_member),
    path("group/mute_group", group.mute_group),
    path("group/cancel_mute_group", group.cancel_mute_group),
    path("group/set_group_info_ex", group.set_group_info_ex),
    path("group/set_group_member_info", group.set_group_member_info),
    path("group/get_groups_info", group.get_groups_info),
    path("group/get_group_member_list", group.get_group_member_list),
    path("group/get_group_members_info", group.get_group_members_info),
    path("group/get_joined_group_list", group.get_joined_group_list),
    path("group/get_full_join_group_ids", group.get_full_join_group_ids),
    path("group/get_full_group_member_user_ids", group.get_full_group_member_user_ids),
    path("group/get_incremental_join_groups", group.get_incremental_join_groups),
    path("group/get_incremental_group_members_batch", group.get_incremental_group_members_batch),
    path("group/group_application_response", group.group_application_response),
    path("group/get_recv_group_applicationList", group.get_recv_group_application_list),
    path("group/get_user_req_group_applicationList", group.get_user_req_group_application_list),
    path("group/get_group_application_unhandled_count", group.get_group_application_unhandled_count),
    path("group/get_specified_user_group_request_info", group.get_specified_user_group_request_info),
]

handler404 = unknown_route

urlpatterns: list[URLPattern | URLResolver] = [
    *API,
    path("healthz", health.healthz),
    path("metrics", health.metrics),
    path("admin/", admin.site.urls),
    path("", demo.index),
]
if get_config().demo:
    urlpatterns += [
        path("demo/config", demo.config),
        path("demo/users", demo.list_users),
        path("demo/login", demo.login),
    ]
