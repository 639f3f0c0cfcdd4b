"""One user of the PyPI package openim-sdk-core: takes commands and tells events, one JSON object a line.

A process of its own, because the package and this project register the same protobuf messages. Ends with its stdin.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from typing import Any

from openim_sdk import OpenIMWSSDK, WSConfig, WSMessage

_print_lock = threading.Lock()


def tell(event: str, **facts: Any) -> None:
    with _print_lock:
        sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
        sys.stdout.flush()


def tell_message(event: str, msg: WSMessage) -> None:
    tell(
        event,
        conversation_id=msg.conversation_id,
        seq=msg.seq,
        sender=msg.send_id,
        client_msg_id=msg.client_msg_id,
        text=json.loads(msg.content)["content"],
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("gateway_url", "user_id", "token", "data_dir"):
        parser.add_argument(name)
    options = parser.parse_args()
    config = WSConfig(
        ws_addr=options.gateway_url,
        data_dir=options.data_dir,
        timeout_seconds=10,
        auto_sync_on_connect=True,
        reconnect_backoff_seconds=(0.1, 0.2),
    )
    sdk = OpenIMWSSDK(
        config,
        on_recv_new_message=lambda msg: tell_message("pushed", msg),
        on_recv_offline_new_message=lambda msg: tell_message("pulled", msg),
        on_connect_success=lambda: tell("connected"),
        on_connect_failed=lambda error: tell("connect failed", error=repr(error)),
        on_kicked_offline=lambda: tell("kicked"),
        on_error=lambda error: tell("error", error=repr(error)),
    )
    sdk.login(options.user_id, options.token)
    try:
        sdk.start()
    except Exception as error:  # noqa: BLE001  (whatever it raises is what the test wants to know)
        tell("start raised", error=repr(error))
        return
    tell("started")
    for line in sys.stdin:
        command = json.loads(line)
        for text in command["texts"]:
            sdk.send_text(text, recv_id=command["receiver"])
        tell("sent", count=len(command["texts"]))
    sdk.logout()


if __name__ == "__main__":
    main()
