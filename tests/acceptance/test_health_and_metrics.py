"""/healthz says part by part what works; /metrics adds up the counters of all processes."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from imserver.conf import BASE_DIR
from imserver.devservices.launch import launcher
from imserver.devservices.ports import find_free_ports
from tasks.names import all_queues
from tests.client import Api, Connect
from tests.stack import STOP_SECONDS, Stack, wait_until

pytestmark = pytest.mark.acceptance

SHARDS = 16
STAGES = {"transfer", "persist", "push"}
LOGS = {"toRedis", "toMongo", "toPush", "dead"}
#: A killed worker is missed after 10 s, a killed gateway after 7 s.
MISSED_SECONDS = 25

Checks = dict[str, dict[str, str]]


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=20)


def health(web_url: str) -> tuple[int, str, Checks]:
    answer = get(f"{web_url}/healthz")
    body = answer.json()
    return answer.status_code, body["status"], body["checks"]


def failing(checks: Checks) -> set[str]:
    return {name for name, check in checks.items() if check["status"] != "ok"}


class Figures:
    """What /metrics says now."""

    def __init__(self, web_url: str) -> None:
        answer = get(f"{web_url}/metrics")
        assert answer.status_code == 200, answer.text
        self.text = answer.text
        self.samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                self.samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value

    def get(self, name: str, **labels: str) -> float:
        """Sum over all labels that are not given; 0 when there is no such sample."""
        return sum(
            value
            for (known, its), value in self.samples.items()
            if known == name and labels.items() <= dict(its).items()
        )

    def labels(self, name: str) -> list[dict[str, str]]:
        return [dict(its) for known, its in self.samples if known == name]


@contextmanager
def lone_web(stack: Stack, folder: Path, **settings: str) -> Iterator[str]:
    """A web process with keys of its own: nothing else runs for it."""
    (port,) = find_free_ports(1)
    environ = {**stack.environ, "KEY_PREFIX": "alone:", "METRICS_DIR": "", "WEB_PORT": str(port), **settings}
    with (folder / "web.log").open("wb") as log:
        process = subprocess.Popen(
            launcher([sys.executable, "-m", "imserver"]), cwd=BASE_DIR, env=environ, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: process.poll() is not None or answers(url), "the web process")
            yield url
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def answers(url: str) -> bool:
    try:
        return get(f"{url}/demo/config").status_code == 200
    except httpx.HTTPError:
        return False


# -- health


def test_a_healthy_stack_says_of_every_part_what_it_is(stack: Stack) -> None:
    code, status, checks = health(stack.web_url)

    assert (code, status, failing(checks)) == (200, "ok", set())
    queues = {f"queue {name}" for name in all_queues(SHARDS)}
    assert {f"queue {stage}.{shard:02d}" for stage in STAGES for shard in range(SHARDS)} < queues
    nodes = {name for name in checks if name.startswith("gateway ")}
    assert checks.keys() == {"redis", "mongodb", "beat"} | queues | nodes
    assert len(nodes) == 1
    assert re.fullmatch(r"(redis|valkey) \d+\.\d+\.\d+", checks["redis"]["detail"])
    assert re.fullmatch(r"MongoDB \d+\.\d+\.\d+", checks["mongodb"]["detail"])
    assert re.fullmatch(r"last sweep \d+\.\d s ago", checks["beat"]["detail"])
    for name in queues:
        assert re.match(r"served by worker0@\S+", checks[name]["detail"]), name
    for name in nodes:
        assert re.fullmatch(r"\d+ connections", checks[name]["detail"])


async def test_the_gateways_connections_are_counted(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice = next(names)
    await api.register(alice)
    connected = [await connect(alice, platform_id=platform_id) for platform_id in (1, 2, 3, 5)]

    def in_health() -> int:
        _, _, checks = health(stack.web_url)
        return sum(int(check["detail"].split()[0]) for name, check in checks.items() if name.startswith("gateway "))

    wait_until(lambda: in_health() >= len(connected), "the connections in /healthz")
    wait_until(lambda: Figures(stack.web_url).get("im_online_connections") >= len(connected), "them in /metrics")
    for client in connected:
        await client.close()
    wait_until(lambda: Figures(stack.web_url).get("im_online_connections") == 0, "no connections in /metrics")


def test_a_web_process_alone_says_what_is_missing(stack: Stack, tmp_path: Path) -> None:
    with lone_web(stack, tmp_path) as url:
        code, status, checks = health(url)

    assert (code, status) == (503, "failing")
    assert failing(checks) == checks.keys() - {"redis", "mongodb"}
    assert checks["gateway"]["detail"] == "no gateway node is alive"
    assert checks["beat"]["detail"] == "no sweep yet"
    assert checks["queue transfer.00"]["detail"] == "no worker serves it"
    assert {f"queue {name}" for name in all_queues(SHARDS)} <= checks.keys()


async def test_servers_that_are_not_reachable_are_named_and_requests_are_refused_with_their_codes(
    stack: Stack, api: Api, names: Iterator[str], tmp_path: Path
) -> None:
    alice = next(names)
    await api.register(alice)
    token = await api.token(alice)
    redis_port, mongo_port = find_free_ports(2)
    nowhere = {"REDIS_URL": f"redis://127.0.0.1:{redis_port}/0", "MONGO_URL": f"mongodb://127.0.0.1:{mongo_port}"}

    with lone_web(stack, tmp_path, **nowhere) as url:
        async with httpx.AsyncClient(base_url=url, timeout=20, headers={"operationID": "x"}) as http:
            healthz, metrics, needs_redis, needs_mongodb = await asyncio.gather(
                http.get("/healthz"),
                http.get("/metrics"),
                http.post("/auth/parse_token", json={"token": token}),
                http.post("/auth/get_admin_token", json={"secret": "openIM123", "userID": "imAdmin"}),
            )

    assert healthz.status_code == 503
    assert failing(healthz.json()["checks"]) == {"redis", "mongodb", "workers", "gateway"}
    assert healthz.json()["checks"].keys() == {"redis", "mongodb", "workers", "gateway"}
    assert (metrics.status_code, "Redis" in metrics.text) == (503, True)
    assert needs_redis.json()["errCode"] == 90004
    assert needs_mongodb.json()["errCode"] == 90002


@pytest.fixture
def mended_stack(stack: Stack) -> Iterator[Stack]:
    yield stack
    stack.mend()


def test_a_worker_and_a_gateway_that_died_are_missed_and_welcomed_back(mended_stack: Stack) -> None:
    url = mended_stack.web_url
    mended_stack.kill_worker()
    mended_stack.kill_gateway()

    def missed() -> bool:
        code, _, checks = health(url)
        missing = failing(checks)
        return code == 503 and "gateway" in missing and {f"queue {name}" for name in all_queues(SHARDS)} <= missing

    wait_until(missed, "worker and gateway to be missed", MISSED_SECONDS)
    _, _, checks = health(url)
    assert {checks[name]["status"] for name in ("redis", "mongodb")} == {"ok"}

    mended_stack.start_worker(1)
    mended_stack.start_gateway()
    mended_stack.wait_healthy()
    _, _, checks = health(url)
    assert checks["queue push.07"]["detail"].startswith("served by worker1@")


# -- metrics


def test_the_length_of_every_log_is_told_for_every_shard(stack: Stack) -> None:
    figures = Figures(stack.web_url)

    told = {(labels["log"], labels["shard"]) for labels in figures.labels("im_log_entries")}
    logs = {log for log, _ in told}
    assert logs >= LOGS
    assert told == {(log, f"{shard:02d}") for log in logs for shard in range(SHARDS)}


def test_a_log_that_grows_is_seen_to_grow(stack: Stack) -> None:
    key = f"{stack.prefix}log:dead:{{05}}"
    before = Figures(stack.web_url).get("im_log_entries", log="dead", shard="05")

    entry_id = stack.redis.xadd(key, {"reason": "a test"})
    during = Figures(stack.web_url).get("im_log_entries", log="dead", shard="05")
    stack.redis.xdel(key, entry_id)

    assert during == before + 1


def test_every_metric_is_explained_once_and_parses(stack: Stack) -> None:
    text = Figures(stack.web_url).text

    families = [family for family in text_string_to_metric_families(text) if family.name.startswith("im_")]
    names = [family.name for family in families]
    assert len(set(names)) == len(names) > 2
    assert all(family.documentation for family in families)


@pytest.mark.parametrize(("entrance", "processes"), [("ws", "gateway, worker and web"), ("rest", "web and worker")])
async def test_counters_of_the_whole_path_rise_when_a_message_is_sent(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str], entrance: str, processes: str
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    sender, receiver = await connect(alice), await connect(bob)
    before = Figures(stack.web_url)

    if entrance == "ws":
        await sender.send_text(bob, "counted")
    else:
        content: dict[str, Any] = {"contentType": 101, "content": {"content": "counted"}}
        await api.call("/msg/send_msg", {"sendID": alice, "recvID": bob, "sessionType": 1, **content})
    await receiver.until(lambda: receiver.chat_with(alice))
    await sender.until(lambda: sender.chat_with(bob))

    steps: dict[str, Callable[[Figures], float]] = {
        "appended": lambda figures: figures.get("im_append_msgs_total", entrance=entrance),
        "transferred": lambda figures: figures.get("im_transfer_msgs_total"),
        "persisted": lambda figures: figures.get("im_persist_msgs_total", result="ok"),
        "pushed": lambda figures: figures.get("im_push_msgs_total"),
        "events for nodes": lambda figures: figures.get("im_push_node_events_total"),
        "batches": lambda figures: figures.get("im_stage_batch_entries_count", stage="transfer"),
        "frames encoded": lambda figures: figures.get("im_gateway_frames_encoded_total"),
        "frames sent": lambda figures: figures.get("im_gateway_frames_sent_total", kind="push"),
    }
    if entrance == "ws":
        steps["frames received"] = lambda figures: figures.get("im_gateway_frames_received_total")

    def unmoved() -> list[str]:
        now = Figures(stack.web_url)
        return [name for name, figure in steps.items() if figure(now) <= figure(before)]

    try:
        wait_until(lambda: not unmoved(), "the counters")
    except AssertionError:
        pytest.fail(f"after a message through {processes} did not rise: {', '.join(unmoved())}")


async def test_a_message_sent_twice_is_counted_once_and_its_repetition_apart(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    sender = await connect(alice)
    before = Figures(stack.web_url)

    for _ in range(3):
        await sender.send_text(bob, "once", client_msg_id="the same")
    await sender.until(lambda: sender.chat_with(bob))

    after = Figures(stack.web_url)
    rise = {name: after.get(name) - before.get(name) for name in ("im_append_msgs_total", "im_append_duplicates_total")}
    assert rise == {"im_append_msgs_total": 1, "im_append_duplicates_total": 2}
