"""Every Redis key, by a function. ``{07}`` is the shard: a Redis Cluster hash tag, so that one script's keys share a slot.

| key | type | expiry | holds |
|---|---|---|---|
| log:<name>:{s} | stream | trimmed when handled | entries of a stage |
| log:dead:{s} | stream | none | entries that cannot succeed, with reason and origin |
| lease:<stage>:{s} | string | LEASE_MS | token of the one drainer |
| wake:<stage>:{s} | string | WAKE_TTL_MS | a wake-up is on its way |
| WEBHOOK_WAIT:{s}:<kind>:<conversation> | list | none | batches that wait until their webhook works again, oldest first |
| WEBHOOK_DUE:{s} | sorted set | none | <kind>:<conversation> that waits -> ms of the next try |
| WEBHOOK_SETTLED:{s} | string | a minute | the last settlement, so that a repeated call is not applied twice |
| OFFLINE_WAIT:{s} | hash | none | offline pushes that are tried again: id -> what is left of it |
| OFFLINE_DUE:{s} | sorted set | none | id of such a push -> ms of the next try |
| OFFLINE_SETTLED:{s} | string | a minute | the last settlement of offline pushes, as above |
| OFFLINE_PUSHED:{s}:<server msg id> | hash | OFFLINE_PUSHED_TTL | user or user:platform that the message was pushed to -> entry, ms |
| DEDUP:{s}:<send id>:<client msg id> | string | DEDUP_TTL_SECONDS | answer of the first append |
| MALLOC_SEQ:{s}:<conversation> | hash | SEQ_KEY_TTL_DAYS | CURR, LAST, TIME, LOCK (+ its expiry), TRY, BATCH, KEPT |
| MSG_CACHE:{s}:<conversation>:<block> | hash | CACHE_TTL_SECONDS, renewed by writes | seq -> serialized MsgData without seq, v changes |
| SEQ_USER_READ:{s}:<conversation>:<user> | string | none | last read seq |
| SEQ_LIMITS:<user> | hash | SEQ_LIMITS_TTL | conversation -> "<min seq> <cap>", v changes |
| SEQ_MIN | hash | SEQ_LIMITS_TTL | conversation cleared for all -> min seq, v changes; the empty field says it is complete |
| READ_DIRTY:{s} | hash | none | read seqs that MongoDB does not have yet |
| SEND_STATUS:<operation id> | string | SEND_STATUS_TTL | MsgStatus of what the app server sent under that id |
| TOKEN_LOCK:<user> | string | 5 s | somebody issues a token for the user |
| TOKENS:<user>:<platform> | hash | lifetime of a token | token -> state |
| CONVERSATIONS:<user> | set | CONVERSATIONS_TTL | conversation ids; the empty member says it is complete |
| GROUP_STATE:<group> | string | GROUP_STATE_TTL | random token that names the member list as it is now |
| GROUP_MEMBERS:<group>:<token> | set | GROUP_MEMBERS_TTL | member ids at that token; the empty member says it is complete |
| GROUP_LEAVERS:<group> | hash | GROUP_LEAVERS_TTL | user who just left -> ms until which the news of it still go there |
| ROUTE:<user> | hash | none, healed by nodes | connection id -> node, platform, since |
| SUBSCRIBED:<user> | set | SUBSCRIBED_TTL | users whose status the user asked for over REST |
| SYNCED:<user>:<token digest> | string | RECENT_SYNC_MS | ms of the last 1001 that was asked with the token |
| NODE:<node> | string | NODE_TTL_MS | heartbeat, with the number of connections |
| NODE_USERS | hash | none | node -> users connected there |
| NODES | set | none | nodes that may be alive |
| BADGE:<user> | string | BADGE_TTL | number on the icon of the user's app |
| WORKER:<name> | string | WORKER_TTL_MS | JSON list of the queues a worker serves |
| SWEPT_AT | string | none | ms of the last sweep |
"""

from __future__ import annotations

from imserver.conf import get_config

#: Long enough for a Celery hop on a busy machine; after it the sweep may wake again.
WAKE_TTL_MS = 2000
#: Rebuilt from MongoDB when it is missing.
CONVERSATIONS_TTL_SECONDS = 7 * 86_400

#: Copied from MongoDB again when it is missing.
SEQ_LIMITS_TTL_SECONDS = 86_400

#: Longer than any set of members, so that a token is never made anew while a set of its name is left.
GROUP_STATE_TTL_SECONDS = 86_400
#: Bounds how long a set can be wrong after a process died between MongoDB and Redis.
GROUP_MEMBERS_TTL_SECONDS = 600
#: A notification is pushed much sooner; later the leaver learns of it by the next sync.
GROUP_LEAVERS_TTL_SECONDS = 60

#: Longer than any push is tried for (OFFLINE_PUSH_RETRY_MINUTES), so that none goes out twice.
OFFLINE_PUSHED_TTL_SECONDS = 86_400
#: Who was away for so long starts to count again.
BADGE_TTL_SECONDS = 90 * 86_400

#: Who has not asked for so long does not look any more.
SUBSCRIBED_TTL_SECONDS = 30 * 86_400

#: OpenIM's Go core starts no second sync within 5 s of the last one's beginning; its 1001 is the sync's third step or so.
RECENT_SYNC_MS = 6000

#: An app server asks soon after it sent, or not at all: OpenIM's day.
SEND_STATUS_TTL_SECONDS = 86_400

TO_REDIS = "toRedis"
TO_MONGO = "toMongo"
TO_PUSH = "toPush"
TO_WEBHOOK = "toWebhook"
TO_OFFLINE_PUSH = "toOfflinePush"
DEAD = "dead"


def _sharded(name: str, shard: int, rest: str = "") -> str:
    return f"{get_config().key_prefix}{name}:{{{shard:02d}}}{rest}"


def log(name: str, shard: int) -> str:
    return _sharded(f"log:{name}", shard)


def lease(stage: str, shard: int) -> str:
    return _sharded(f"lease:{stage}", shard)


def wake(stage: str, shard: int) -> str:
    return _sharded(f"wake:{stage}", shard)


def webhook_wait(shard: int, line: str) -> str:
    return _sharded("WEBHOOK_WAIT", shard, f":{line}")


def webhook_due(shard: int) -> str:
    return _sharded("WEBHOOK_DUE", shard)


def webhook_settled(shard: int) -> str:
    return _sharded("WEBHOOK_SETTLED", shard)


def offline_wait(shard: int) -> str:
    return _sharded("OFFLINE_WAIT", shard)


def offline_due(shard: int) -> str:
    return _sharded("OFFLINE_DUE", shard)


def offline_settled(shard: int) -> str:
    return _sharded("OFFLINE_SETTLED", shard)


def offline_pushed(shard: int, server_msg_id: str) -> str:
    return _sharded("OFFLINE_PUSHED", shard, f":{server_msg_id}")


def badge(user_id: str) -> str:
    return f"{get_config().key_prefix}BADGE:{user_id}"


def dedup(shard: int, send_id: str, client_msg_id: str) -> str:
    return _sharded("DEDUP", shard, f":{send_id}:{client_msg_id}")


def malloc_seq(shard: int, conversation_id: str) -> str:
    return _sharded("MALLOC_SEQ", shard, f":{conversation_id}")


def msg_cache_prefix(shard: int, conversation_id: str) -> str:
    """Followed by the block number."""
    return _sharded("MSG_CACHE", shard, f":{conversation_id}:")


def read_seq(shard: int, conversation_id: str, user_id: str) -> str:
    return _sharded("SEQ_USER_READ", shard, f":{conversation_id}:{user_id}")


def seq_limits(user_id: str) -> str:
    return f"{get_config().key_prefix}SEQ_LIMITS:{user_id}"


def seq_min() -> str:
    return f"{get_config().key_prefix}SEQ_MIN"


def read_dirty(shard: int) -> str:
    return _sharded("READ_DIRTY", shard)


def tokens(user_id: str, platform_id: int) -> str:
    return f"{get_config().key_prefix}TOKENS:{user_id}:{platform_id}"


def conversations(user_id: str) -> str:
    return f"{get_config().key_prefix}CONVERSATIONS:{user_id}"


def group_state(group_id: str) -> str:
    return f"{get_config().key_prefix}GROUP_STATE:{group_id}"


def group_members(group_id: str, token: str) -> str:
    return f"{get_config().key_prefix}GROUP_MEMBERS:{group_id}:{token}"


def group_leavers(group_id: str) -> str:
    return f"{get_config().key_prefix}GROUP_LEAVERS:{group_id}"


def user_facts_channel() -> str:
    """A channel, not a key: ids of users whose facts (storage/user_facts.py) changed."""
    return f"{get_config().key_prefix}USER_FACTS"


def route(user_id: str) -> str:
    return f"{get_config().key_prefix}ROUTE:{user_id}"


def status_channel(user_id: str) -> str:
    """A channel, not a key: the platforms on which a user is online, whenever they changed."""
    return f"{get_config().key_prefix}STATUS:{user_id}"


def status_feed_channel() -> str:
    """A channel on which nothing is said: who follows users is subscribed to it first."""
    return f"{get_config().key_prefix}STATUS_FEED"


def subscribed(user_id: str) -> str:
    return f"{get_config().key_prefix}SUBSCRIBED:{user_id}"


def synced(user_id: str, token_digest: str) -> str:
    return f"{get_config().key_prefix}SYNCED:{user_id}:{token_digest}"


def node(name: str) -> str:
    return f"{get_config().key_prefix}NODE:{name}"


def nodes() -> str:
    return f"{get_config().key_prefix}NODES"


def worker(name: str) -> str:
    return f"{get_config().key_prefix}WORKER:{name}"


def swept_at() -> str:
    return f"{get_config().key_prefix}SWEPT_AT"


def send_status(operation_id: str) -> str:
    return f"{get_config().key_prefix}SEND_STATUS:{operation_id}"


def token_lock(user_id: str) -> str:
    return f"{get_config().key_prefix}TOKEN_LOCK:{user_id}"


def node_users() -> str:
    return f"{get_config().key_prefix}NODE_USERS"
