"""/healthz and /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import prometheus_client
import redis
import redis.asyncio
from django.http import HttpRequest, HttpResponse, JsonResponse
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from pymongo.errors import PyMongoError

from imserver.conf import get_config
from imserver.storage import logs, process_health, routes
from imserver.storage.clients import get_async_mongo, get_async_redis, get_redis
from imserver.storage.routes import Routes
from tasks.names import all_queues

#: A probe that takes longer is a failure of its own.
PROBE_SECONDS = 3

Checks = dict[str, dict[str, str]]


def _check(ok: bool, detail: str) -> dict[str, str]:
    return {"status": "ok" if ok else "failing", "detail": detail}


async def _check_redis() -> Checks:
    try:
        info = await get_async_redis().info("server")
    except redis.RedisError as error:
        return {"redis": _check(False, f"not reachable: {error}")}
    version = info.get("valkey_version") or info.get("redis_version")
    return {"redis": _check(True, f"{info.get('server_name', 'redis')} {version}")}


async def _check_mongodb() -> Checks:
    try:
        info = await get_async_mongo().client.server_info()
    except PyMongoError as error:
        return {"mongodb": _check(False, f"not reachable: {error.__class__.__name__}")}
    return {"mongodb": _check(True, f"MongoDB {info['version']}")}


async def _check_workers() -> Checks:
    config = get_config()
    queues = all_queues(config.shards)
    checks: Checks = {}
    try:
        client = get_async_redis()
        workers = await process_health.workers_by_queue(client)
        age = await process_health.sweep_age_ms(client)
        waiting = await _queue_lengths(queues)
    except redis.RedisError as error:
        return {"workers": _check(False, f"unknown, Redis is not reachable: {error}")}
    for queue, length in zip(queues, waiting, strict=True):
        names = workers.get(queue, [])
        detail = f"served by {', '.join(sorted(names))}" if names else "no worker serves it"
        if length:
            detail += f"; {length} wake-ups wait"
        checks[f"queue {queue}"] = _check(bool(names), detail)
    late = age is None or age > process_health.SWEEP_LATE_MS
    checks["beat"] = _check(not late, "no sweep yet" if age is None else f"last sweep {age / 1000:.1f} s ago")
    return checks


async def _queue_lengths(queues: list[str]) -> list[int]:
    """Zeros for a broker that is not Redis: its own tools tell."""
    broker = get_config().broker
    if not broker.startswith(("redis", "valkey")):
        return [0] * len(queues)
    if not get_config().broker_url:
        return await process_health.queue_lengths(get_async_redis(), queues)
    client = redis.asyncio.Redis.from_url(broker, socket_timeout=PROBE_SECONDS)
    try:
        return await process_health.queue_lengths(client, queues)
    finally:
        await client.aclose()


async def _check_nodes() -> Checks:
    try:
        nodes = await Routes(get_async_redis()).nodes()
    except redis.RedisError as error:
        return {"gateway": _check(False, f"unknown, Redis is not reachable: {error}")}
    alive = {name: count for name, count in nodes.items() if count is not None}
    checks = {f"gateway {name}": _check(True, f"{count} connections") for name, count in alive.items()}
    if not alive:
        checks["gateway"] = _check(False, "no gateway node is alive")
    return checks


async def _guarded(name: str, probe: Any) -> Checks:
    try:
        return await asyncio.wait_for(probe, PROBE_SECONDS)
    except TimeoutError:
        return {name: _check(False, f"no answer within {PROBE_SECONDS} s")}


async def healthz(_request: HttpRequest) -> HttpResponse:
    """What works and what does not, part by part; HTTP 503 when anything fails."""
    parts = await asyncio.gather(
        _guarded("redis", _check_redis()),
        _guarded("mongodb", _check_mongodb()),
        _guarded("workers", _check_workers()),
        _guarded("gateway", _check_nodes()),
    )
    checks = {name: check for part in parts for name, check in part.items()}
    healthy = all(check["status"] == "ok" for check in checks.values())
    return JsonResponse(
        {"status": "ok" if healthy else "failing", "checks": checks},
        status=200 if healthy else 503,
        json_dumps_params={"indent": 1},
    )


class StateCollector(Collector):
    """Figures that live in Redis, read at each scrape."""

    def collect(self) -> Iterable[Metric]:
        client = get_redis()
        lengths = GaugeMetricFamily("im_log_entries", "Entries waiting in a log", labels=["log", "shard"])
        for (name, shard), length in logs.lengths(client).items():
            lengths.add_metric([name, f"{shard:02d}"], length)
        yield lengths
        connections = GaugeMetricFamily("im_online_connections", "Open connections of a gateway node", labels=["node"])
        users = GaugeMetricFamily(
            "im_online_users", "Users connected to a gateway node; one on two nodes counts twice", labels=["node"]
        )
        for node, (connection_count, user_count) in routes.living_nodes(client).items():
            connections.add_metric([node], connection_count)
            users.add_metric([node], user_count)
        yield users
        yield connections


def _render_metrics() -> bytes:
    registry = prometheus_client.CollectorRegistry()
    if get_config().metrics_dir:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry = prometheus_client.REGISTRY
    text: bytes = prometheus_client.generate_latest(registry)
    state = prometheus_client.CollectorRegistry()
    state.register(StateCollector())
    return text + prometheus_client.generate_latest(state)


async def metrics(_request: HttpRequest) -> HttpResponse:
    """Counters of all processes on this host, and the length of every log."""
    try:
        body = await asyncio.to_thread(_render_metrics)
    except redis.RedisError as error:
        return HttpResponse(f"Redis is not reachable: {error}\n", status=503, content_type="text/plain")
    return HttpResponse(body, content_type=prometheus_client.CONTENT_TYPE_LATEST)
