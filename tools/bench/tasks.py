"""Throughput, latency, CPU and memory of the service by task: CLIP, faces and OCR.

Real weights but for CLIP's, a tiny model: that row is transport and decoding only. Photos and pages with a short side
of 1440 pixels, as Immich sends them; closed-loop callers over HTTP. Memory is PSS summed over all processes: before any
model, with all models, and after they were unloaded for being idle.
"""

from __future__ import annotations

import argparse
import re
import time

from tools.bench.load import Connection, closed_loop
from tools.bench.report import Cell, Table, milliseconds
from tools.bench.running import cpu_seconds, pss, requests_by_task, service
from tools.harness.server import Server


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4], help="closed-loop callers (1 4)")
    parser.add_argument("--seconds", type=float, default=20, help="of load per task and number of callers (20)")
    parser.add_argument("--pictures", type=int, default=8, help="different pictures per task, at most (8)")
    parser.add_argument("--ttl", type=int, default=20, help="seconds without use after which models are unloaded (20)")


def run(options: argparse.Namespace) -> list[Table]:
    bodies = {task: requests[: options.pictures] for task, requests in requests_by_task().items()}
    with service({"MACHINE_LEARNING_MODEL_TTL": str(options.ttl), "MACHINE_LEARNING_MODEL_TTL_POLL_S": "1"}) as server:
        time.sleep(2)
        memory = {"idle, no model yet": pss(server)}
        rows = [
            _row(server, task, bodies[task], callers, options.seconds) for task in bodies for callers in options.callers
        ]
        closed_loop(server.url, list(bodies.values()), 0.1)  # loads again what was unloaded meanwhile
        memory["all models loaded, after the load"] = pss(server)
        _wait_until_unloaded(server, options.ttl + 30)
        memory["after unloading"] = pss(server)
    names = sorted({name for sizes in memory.values() for name in sizes})
    return [
        Table(
            "Tasks over HTTP",
            ("task", "callers", "requests/s", "p50, ms", "p95, ms", "CPU, ms per request"),
            tuple(rows),
        ),
        Table(
            "Memory: PSS, MB",
            ("", "sum", *names),
            tuple(
                (label, sum(sizes.values()), *(sizes.get(name, 0.0) for name in names))
                for label, sizes in memory.items()
            ),
        ),
    ]


def _row(server: Server, task: str, bodies: list[bytes], callers: int, seconds: float) -> tuple[Cell, ...]:
    with Connection(server.url) as connection:
        for body in bodies:  # loads the model, and meets every shape once
            connection.predict(body)
    cpu = cpu_seconds(server)
    # Each caller begins at another picture.
    load = closed_loop(
        server.url,
        [bodies[number % len(bodies) :] + bodies[: number % len(bodies)] for number in range(callers)],
        seconds,
    )
    cpu = cpu_seconds(server) - cpu
    if load.failures:
        raise RuntimeError(f"{len(load.failures)} requests failed, the first with {load.failures[0]}")
    latencies = load.all_latencies
    return (
        task,
        callers,
        load.per_second,
        milliseconds(latencies, 50),
        milliseconds(latencies, 95),
        cpu / len(latencies) * 1000,
    )


def _wait_until_unloaded(server: Server, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    with Connection(server.url) as connection:
        while time.monotonic() < deadline:
            metrics = connection.ask("GET", "/metrics")[1].decode()
            if not any(
                float(count)
                for count in re.findall(r"^immich_bento_models_loaded\{[^}]*\} (\S+)", metrics, re.MULTILINE)
            ):
                time.sleep(1)
                return
            time.sleep(0.5)
    raise RuntimeError(f"The models were not unloaded within {seconds} s.")
