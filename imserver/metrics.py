"""Every metric, declared once. docs/metrics.md is generated from this module.

With METRICS_DIR the processes of a host count into files there, and the web process's /metrics adds them up.
"""

from __future__ import annotations

import os
from pathlib import Path

from imserver.conf import get_config

if get_config().metrics_dir:
    # The library chooses where to count when it is imported.
    Path(get_config().metrics_dir).mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = get_config().metrics_dir

from prometheus_client import Counter, Histogram, values

if get_config().metrics_dir:
    # The library asks for the process id at every count, a fifth of the gateway's time under load. None of our processes
    # forks after it has loaded this module, so the answer never changes.
    PROCESS_ID = os.getpid()
    values.ValueClass = values.MultiProcessValue(lambda: PROCESS_ID)  # type: ignore[no-untyped-call]

#: Messages accepted into a log, by entrance (ws, rest, notification).
APPENDED = Counter("im_append_msgs_total", "Messages appended to a toRedis log", ["entrance"])
#: Sends that repeated a known client_msg_id.
DUPLICATES = Counter("im_append_duplicates_total", "Sends answered with the first answer")
#: Sends refused because a log was full.
BUSY = Counter("im_append_busy_total", "Sends refused as busy")
#: Messages numbered, cached and handed on.
TRANSFERRED = Counter("im_transfer_msgs_total", "Messages numbered and cached", ["kind"])
#: Messages of single chats (with service accounts and notifications of one user) and of groups.
PROCESSED = Counter(
    "im_transfer_processed_msgs_total", "Messages by kind of session and outcome", ["session", "result"]
)
#: Seq ranges that could not be reserved in MongoDB.
SEQ_REFILLS_FAILED = Counter("im_seq_refills_failed_total", "Seq ranges that could not be reserved")
#: Messages written to MongoDB.
PERSISTED = Counter("im_persist_msgs_total", "Messages written to MongoDB", ["result"])
#: Messages handed to gateway nodes.
PUSHED = Counter("im_push_msgs_total", "Messages handed to the channel layer", ["result"])
#: Channel-layer messages sent to nodes.
NODE_EVENTS = Counter("im_push_node_events_total", "Channel-layer messages sent to gateway nodes")
#: Messages pushed more than ten seconds after they were sent.
PUSHED_LATE = Counter("im_push_late_msgs_total", "Messages pushed more than 10 s after sending")
#: Entries set aside because they can never succeed.
DEAD_LETTERS = Counter("im_dead_letters_total", "Entries moved to a dead-letter log", ["stage"])
#: Entries for after webhooks and offline pushes that were dropped because their log was full; the messages are kept.
DROPPED = Counter("im_dropped_entries_total", "Entries not handed on because a log was full", ["log"])
#: Ranges of seqs that were skipped after a loss.
SEQ_GAPS = Counter("im_seq_gaps_total", "Seq ranges skipped and recorded as gaps")
#: Leases taken over or lost while draining.
LEASES_LOST = Counter("im_lease_lost_total", "Batches given up because the lease was lost", ["stage"])
#: Batches that failed and are tried again.
RETRIES = Counter("im_stage_retries_total", "Batches that failed and are tried again", ["stage"])
#: Size of a drained batch in entries.
BATCH_ENTRIES = Histogram(
    "im_stage_batch_entries", "Entries in a batch", ["stage"], buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500)
)
#: Time for the batches of one read, of all its shards together.
BATCH_SECONDS = Histogram(
    "im_stage_batch_seconds",
    "Time for the batches of one read",
    ["stage"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)
#: Age of the oldest entry of a batch when it is looked at.
BATCH_LAG_SECONDS = Histogram(
    "im_stage_lag_seconds",
    "Age of the oldest entry of a batch",
    ["stage"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 60),
)
#: Wake-ups published.
WAKEUPS = Counter("im_wakeups_total", "Celery wake-ups published", ["stage"])
#: Frames written to connections.
FRAMES_SENT = Counter("im_gateway_frames_sent_total", "Frames written to connections", ["kind"])
#: Frames received from clients.
FRAMES_RECEIVED = Counter("im_gateway_frames_received_total", "Frames received from clients")
#: Frames encoded for pushes: once per codec and node.
FRAMES_ENCODED = Counter("im_gateway_frames_encoded_total", "Push frames encoded")
#: Connections closed by the server, by reason.
CLOSED = Counter("im_gateway_closed_total", "Connections closed by the server", ["reason"])
#: Offline pushes to a device or user, by what came of each (docs/offline-push.md names the results).
OFFLINE_PUSHES = Counter("im_offline_push_total", "Offline pushes by vendor and result", ["vendor", "result"])
#: Offline pushes that the vendor did not take and that are not tried again.
OFFLINE_PUSHES_FAILED = Counter("im_offline_push_failed_total", "Offline pushes that failed for good", ["vendor"])
#: Time for one call of a push vendor, with up to a batch of users.
OFFLINE_PUSH_SECONDS = Histogram(
    "im_offline_push_call_seconds",
    "Time for one call of a push vendor",
    ["vendor"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
#: Calls of webhooks, by command and outcome (ok, rejected = 3xx and 4xx, failed = 5xx, no answer in time, not reachable).
WEBHOOK_CALLS = Counter("im_webhook_calls_total", "Calls of webhooks", ["command", "outcome"])
#: Time for one call of a webhook, whatever its outcome.
WEBHOOK_SECONDS = Histogram(
    "im_webhook_call_seconds",
    "Time for one call of a webhook",
    ["command"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
#: What before webhooks decided (passed, refused, modified, failed open, failed closed).
WEBHOOK_DECISIONS = Counter("im_webhook_decisions_total", "Decisions of before webhooks", ["command", "decision"])
#: Failed calls of after webhooks that are tried again later.
WEBHOOK_RETRIES = Counter("im_webhook_retries_total", "Calls of after webhooks put off", ["command"])
