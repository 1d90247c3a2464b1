"""Text queries while 16 callers saturate CLIP, faces and OCR, and what the queries cost that bulk work.

Bulk load alone and with queries in turns. Queries arrive at random (Poisson) at a mean --rate and are timed from when
they were due.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
from collections.abc import Sequence
from contextlib import ExitStack

from tools.bench import contenders
from tools.bench.compare import warm_up
from tools.bench.figures import median
from tools.bench.generator import Extent, closed_loop, open_loop
from tools.bench.load import Load
from tools.bench.report import Cell, Table, milliseconds
from tools.bench.target import Target
from tools.bench.verdicts import Verdict, at_least, at_most, verdict_table
from tools.bench.workload import bodies

TARGET_MS = 150
TARGET_SHARE = 0.9
_HEAD_START = 1.0
"""Seconds of bulk load before the first query."""


def add_options(parser: argparse.ArgumentParser) -> None:
    contenders.add_server_options(parser)
    parser.add_argument("--callers", type=int, default=16, help="of the bulk load (16)")
    parser.add_argument("--rate", type=float, default=2, help="text queries per second (2)")
    parser.add_argument("--seconds", type=float, default=15, help="of each load (15)")
    parser.add_argument("--rounds", type=int, default=3, help="alternations of bulk alone and bulk with queries (3)")
    parser.add_argument("--with-peer", action="store_true", help="the same with tools/bench/reference.py")


def run(options: argparse.Namespace) -> list[Table]:
    with ExitStack() as running:
        targets = [running.enter_context(contenders.ours(options))]
        if options.with_peer:
            targets.append(running.enter_context(contenders.peer(options)))
        tables, verdicts = measure(targets, options)
    return [*tables, verdict_table(verdicts)]


def bulk() -> list[bytes]:
    """Return requests of CLIP, faces and OCR in turns."""
    return list(
        itertools.chain.from_iterable(zip(*(bodies(task)[:8] for task in ("clip", "face", "ocr")), strict=True))
    )


def measure(targets: Sequence[Target], options: argparse.Namespace) -> tuple[list[Table], list[Verdict]]:
    """Return tables of all ``targets``, and verdicts on the first."""
    rows: list[tuple[Cell, ...]] = []
    verdicts: list[Verdict] = []
    for target in targets:
        idle, alone, busy, queries = _rounds(target, options)
        share = median([with_queries / without for with_queries, without in zip(busy, alone, strict=True)])
        p50, p95, p99 = (milliseconds(queries, percentile) for percentile in (50, 95, 99))
        rows.append(
            (target.name, milliseconds(idle, 50), len(queries), p50, p95, p99, median(alone), median(busy), share)
        )
        verdicts = verdicts or [
            at_most(f"text query while {options.callers} callers saturate: p95, ms", p95, TARGET_MS),
            at_least("bulk throughput with queries / without", share, TARGET_SHARE),
        ]
    columns = (
        "server",
        "idle p50, ms",
        "queries",
        "p50, ms",
        "p95, ms",
        "p99, ms",
        "bulk/s alone",
        "bulk/s with queries",
        "share",
    )
    note = (
        f"{options.rate:g} queries per second; bulk: CLIP, faces and OCR by turns. share: median of {options.rounds} "
        "rounds."
    )
    return [Table(f"Text queries under {options.callers} bulk callers", columns, tuple(rows), note)], verdicts


def _rounds(target: Target, options: argparse.Namespace) -> tuple[list[float], list[float], list[float], list[float]]:
    """Return the rounds of one server.

    They are: latencies of queries while it is idle; bulk requests per second alone, and with queries; latencies of
    those queries.
    """
    work, texts = bulk(), bodies("text")
    warm_up(target, [*work, *texts])
    idle = _complete(
        asyncio.run(closed_loop(target.url, texts, callers=1, extent=Extent(requests=len(texts))))
    ).all_latencies
    alone, busy, queries = [], [], []
    for number in range(options.rounds):
        extent = Extent(options.seconds + _HEAD_START)
        alone.append(
            _complete(asyncio.run(closed_loop(target.url, work, callers=options.callers, extent=extent))).per_second
        )
        load, asked = asyncio.run(_both(target.url, work, texts, options, seed=number))
        busy.append(_complete(load).per_second)
        queries += _complete(asked).all_latencies
    return idle, alone, busy, queries


async def _both(
    url: str, work: Sequence[bytes], texts: Sequence[bytes], options: argparse.Namespace, *, seed: int
) -> tuple[Load, Load]:
    async def queries() -> Load:
        await asyncio.sleep(_HEAD_START)
        return await open_loop(url, texts, rate=options.rate, extent=Extent(options.seconds), seed=seed)

    extent = Extent(options.seconds + _HEAD_START)
    load, asked = await asyncio.gather(closed_loop(url, work, callers=options.callers, extent=extent), queries())
    return load, asked


def _complete(load: Load) -> Load:
    """Raise ``RuntimeError`` if a request failed, or none was answered."""
    if load.failures or math.isnan(milliseconds(load.all_latencies, 50)):
        raise RuntimeError(f"{len(load.failures)} requests failed, the first with {load.failures[:1]}")
    return load
