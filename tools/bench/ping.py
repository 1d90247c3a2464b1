"""The latency of ``GET /ping`` while every runner is saturated; Immich gives a server up after 2 s.

Pings come at a fixed rate, each on a connection of its own, as Immich's do (it pings every 30 s and closes idle
connections after 4), and are timed from the moment that they were due. The load comes from another process: eight
callers each of OCR (1440-px pages), faces and CLIP (t1.jpg).
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import psutil

from tools.bench.load import Connection, closed_loop
from tools.bench.pictures import group_photo
from tools.bench.report import Cell, Table, milliseconds
from tools.bench.running import requests_by_task, service
from tools.harness.immich_client import clip_visual, faces, multipart

TARGET_MS = 50


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=60, help="of saturation (60)")
    parser.add_argument("--idle-seconds", type=float, default=15, help="of pings to an idle service before that (15)")
    parser.add_argument("--rate", type=float, default=20, help="pings per second (20)")
    parser.add_argument("--callers", type=int, default=8, help="callers of each task (8)")


def _pings(url: str, rate: float, until: Callable[[], bool]) -> list[float]:
    """Return the seconds of each ping, counted from when it was due, so that a late one delays those after it."""
    latencies: list[float] = []
    started = time.perf_counter()
    while not until():
        due = started + len(latencies) / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        with Connection(url) as connection:
            status, answer, _ = connection.ask("GET", "/ping")
        if (status, answer) != (200, b"pong"):
            raise RuntimeError(f"GET /ping was answered {status}: {answer!r}")
        latencies.append(time.perf_counter() - due)
    return latencies


def run(options: argparse.Namespace) -> list[Table]:
    bodies = requests_by_task() | {"faces": [multipart(faces(), image=group_photo())]}
    bodies["clip (tiny)"] = [multipart(clip_visual(), image=group_photo())]
    callers = [(task, task_bodies) for task, task_bodies in bodies.items() for _ in range(options.callers)]
    with service() as server, ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other_process:
        closed_loop(server.url, list(bodies.values()), 0.1)  # loads the models
        end = time.perf_counter() + options.idle_seconds
        idle = _pings(server.url, options.rate, lambda: time.perf_counter() >= end)
        # The pings begin when the load is there, and end before its last requests do.
        pending = other_process.submit(
            closed_loop, server.url, [task_bodies for _, task_bodies in callers], options.seconds + 2
        )
        time.sleep(2)
        psutil.cpu_percent()
        end = time.perf_counter() + options.seconds
        saturated = _pings(server.url, options.rate, lambda: time.perf_counter() >= end)
        busy = psutil.cpu_percent()
        load = pending.result()
    if load.failures:
        raise RuntimeError(f"{len(load.failures)} requests of the load failed, the first with {load.failures[0]}")
    per_second = {
        task: sum(len(done) for (owner, _), done in zip(callers, load.latencies, strict=True) if owner == task)
        / load.seconds
        for task in bodies
    }
    meanwhile = ", ".join(f"{task} {rate:.1f}/s" for task, rate in per_second.items())
    return [
        Table(
            f"GET /ping, {options.rate:g} per second",
            ("service", "pings", "p50, ms", "p95, ms", "p99, ms", "max, ms", f"p99 under {TARGET_MS} ms"),
            (_row("idle", idle), _row(f"saturated, {len(callers)} callers", saturated)),
            f"The load meanwhile, without failures: {meanwhile}; CPU {busy:.0f} % busy.",
        )
    ]


def _row(label: str, latencies: list[float]) -> tuple[Cell, ...]:
    p50, p95, p99 = (milliseconds(latencies, percentile) for percentile in (50, 95, 99))
    return label, len(latencies), p50, p95, p99, max(latencies) * 1000, "yes" if p99 < TARGET_MS else "NO"
