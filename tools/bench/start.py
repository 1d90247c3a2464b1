"""The time of a start: to ``/ping``, and to the first answers of CLIP, cold and warm.

Cold is a start with empty caches, warm the next one with what the first left there (compiled models, checked digests).
The weights are in the machine's page cache both times. The first requests are sent from the moment of the start, again
and again until they are answered.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from tools.bench import contenders
from tools.bench.client import Client, RequestFailed
from tools.bench.figures import median
from tools.bench.report import Cell, Table
from tools.bench.verdicts import Verdict, at_most, verdict_table
from tools.bench.workload import bodies
from tools.harness.server import Server, free_port

TARGET_PING, TARGET_CLIP = 5, 8
_PATIENCE = 120.0
Times = tuple[float, float, float]
"""Seconds from the start to /ping, to the first vector of a picture, and of a text."""


def add_options(parser: argparse.ArgumentParser) -> None:
    contenders.add_server_options(parser)
    parser.add_argument("--rounds", type=int, default=3, help="cold and warm starts (3)")


def run(options: argparse.Namespace) -> list[Table]:
    tables, verdicts = measure(options)
    return [*tables, verdict_table(verdicts)]


def measure(options: argparse.Namespace) -> tuple[list[Table], list[Verdict]]:
    """Time starts of ours, cold and warm, and of the peer in turns."""
    times: dict[str, list[Times]] = {"ours, cold": [], "ours, warm": [], "peer": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="immich-bento-bench-") as folder:
            for state in ("cold", "warm"):
                times[f"ours, {state}"].append(timed_start(contenders.our_server(options, Path(folder, "ours"))))
            times["peer"].append(timed_start(contenders.peer_server(options, Path(folder, "peer"))))
    found = {name: tuple(median([one[part] for one in rounds]) for part in range(3)) for name, rounds in times.items()}
    rows: list[tuple[Cell, ...]] = [(name, *medians) for name, medians in found.items()]
    table = Table(
        "Seconds from the start, medians",
        ("", "to /ping", "to the first CLIP picture", "to the first CLIP text"),
        tuple(rows),
    )
    warm = found["ours, warm"]
    return [table], [
        at_most("start to /ping, warm cache, s", warm[0], TARGET_PING),
        at_most("start to the first CLIP answer, warm cache, s", warm[1], TARGET_CLIP),
    ]


class Started(Protocol):
    """A server that was just started."""

    @property
    def url(self) -> str: ...
    @property
    def log(self) -> str: ...


def timed_start(server: Server) -> Times:
    """Start ``server``, time it and stop it."""
    server.port = free_port()
    started = time.perf_counter()
    server.spawn()
    try:
        return first_answers(server, started)
    finally:
        server.__exit__(None, None, None)


def first_answers(server: Started, started: float) -> Times:
    """Ask ``server``, which was started at ``started`` of ``time.perf_counter``, until it answers; return when it did.

    Raise ``RuntimeError`` with its log if it does not.
    """
    return asyncio.run(_first_answers(server, started))


async def _first_answers(server: Started, started: float) -> Times:
    image, text = (bodies(task)[0] for task in ("clip", "text"))

    async def first(ask: Callable[[Client], Awaitable[object]]) -> float:
        async with Client(server.url) as client:
            while True:
                try:
                    await ask(client)
                    return time.perf_counter() - started
                except RequestFailed as error:
                    if time.perf_counter() - started > _PATIENCE:
                        raise RuntimeError(
                            f"No answer {_PATIENCE:.0f} s after the start: {error}\n{server.log}"
                        ) from error
                    await asyncio.sleep(0.02)

    ping, picture, query = await asyncio.gather(
        first(_ping), first(lambda c: c.predict(image)), first(lambda c: c.predict(text))
    )
    return ping, picture, query


async def _ping(client: Client) -> None:
    if (await client.ask("GET", "/ping")).status != 200:
        raise RequestFailed("GET /ping was not answered 200")
