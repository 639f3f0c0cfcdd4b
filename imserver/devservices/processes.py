"""The processes of the product as ``up`` runs them: command lines, graceful times, how each shows that it is well."""

from __future__ import annotations

import sys
from pathlib import Path

from imserver.conf import Config
from imserver.devservices import health
from imserver.devservices.cores import home_cores
from imserver.devservices.health import Check
from imserver.devservices.supervisor import ProcessSpec

GATEWAY, WEB, BEAT, FLOWER = "gateway", "web", "beat", "flower"

# How long each may take to end by itself before it is killed.
WEB_SECONDS = 10.0
GATEWAY_EXTRA_SECONDS = 7.0  # beyond DRAIN_SECONDS, in which clients are told to reconnect
WORKER_EXTRA_SECONDS = 10.0  # beyond the longest drain task
SMALL_SECONDS = 5.0

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound


def worker_names(config: Config) -> list[str]:
    return [f"worker{number}" for number in range(1, config.worker_processes + 1)]


def local_address(config: Config, port: int) -> str:
    """Where this machine reaches a port of ours: one cannot dial 0.0.0.0 everywhere."""
    host = ANY_ADDRESS.get(config.bind_host, config.bind_host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def product_processes(config: Config, data: Path) -> list[ProcessSpec]:
    """In the order of starting."""
    python = [sys.executable, "-m"]
    celery = [*python, "celery", "--quiet", "-A", "tasks"]
    level = config.log_level.lower()
    return [
        ProcessSpec(
            GATEWAY,
            [*python, "gateway"],
            config.drain_seconds + GATEWAY_EXTRA_SECONDS,
            cores=home_cores(config, GATEWAY),
        ),
        ProcessSpec(WEB, [*python, "imserver"], WEB_SECONDS),
        *(_worker(celery, name, config) for name in worker_names(config)),
        ProcessSpec(
            BEAT,
            [*celery, "beat", "--schedule", str(data / "beat-schedule"), "--pidfile=", "--loglevel", level],
            SMALL_SECONDS,
        ),
        ProcessSpec(
            FLOWER,
            [*celery, "flower", f"--address={config.bind_host}", f"--port={config.flower_port}"],
            SMALL_SECONDS,
        ),
    ]


def _worker(celery: list[str], name: str, config: Config) -> ProcessSpec:
    command = [*celery, "worker", "--pool", "threads", "--concurrency", str(config.worker_threads)]
    # Gossip and mingle only tell workers about each other; -E is what Flower shows.
    command += ["--hostname", f"{name}@%h", "--without-gossip", "--without-mingle", "-E"]
    command += ["--loglevel", config.log_level.lower()]
    graceful_seconds = config.drain_slice_ms / 1000 + WORKER_EXTRA_SECONDS
    return ProcessSpec(name, command, graceful_seconds, cores=home_cores(config, name))


def health_checks(config: Config) -> dict[str, Check]:
    """By process name. Workers are covered by web's report; of beat there is nothing to ask but that it runs."""
    return {
        GATEWAY: health.answers(f"http://{local_address(config, config.gateway_port)}/healthz"),
        WEB: health.reports_ok(f"http://{local_address(config, config.web_port)}/healthz"),
        FLOWER: health.answers(f"http://{local_address(config, config.flower_port)}/healthcheck"),
    }


def stop_order(config: Config) -> list[list[str]]:
    """Those who take work first, the stores last. What stands together ends side by side."""
    return [[GATEWAY, WEB], [FLOWER], [BEAT], worker_names(config)]
