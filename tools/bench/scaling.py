"""The growth of our throughput with the number of cores, the size of the pictures, and the size of batches.

Cores: servers pinned to the first 1, 2, … cores from their start (ours, and the peer), 4 callers. Sizes: short sides of
360 to 2880 pixels, 4 callers. Batches: MAX_BATCH 1 to 16, 16 callers.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tools.bench import contenders
from tools.bench.chart import line_chart
from tools.bench.compare import Loading, one_round, warm_up
from tools.bench.figures import medians
from tools.bench.generator import Extent
from tools.bench.report import Cell, Table, progress
from tools.bench.target import Target
from tools.bench.workload import bodies

TASKS = ("clip", "face", "ocr")
PICTURES = 8
"""Of each task, so that a point takes seconds."""
SIZES = (360, 720, 1440, 2880)
BATCHES = (1, 2, 4, 8, 16)
PARTS = ("cores", "sizes", "batches")

Throughput = dict[str, list[tuple[float, float]]]
"""Task (and server) -> (cores, pixels or pictures; requests per second)."""


def add_options(parser: argparse.ArgumentParser) -> None:
    contenders.add_server_options(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to vary (all)")
    parser.add_argument("--seconds", type=float, default=4, help="of load per point and round (4)")
    parser.add_argument("--requests", type=int, help="requests per point and round, in place of --seconds")
    parser.add_argument("--rounds", type=int, default=1, help="loads per point, of which the median counts (1)")
    parser.add_argument(
        "--plot", type=Path, help="write charts to SVG files called this, with -cores, -sizes and -batches before .svg"
    )


def run(options: argparse.Namespace) -> list[Table]:
    parts = {"cores": by_cores, "sizes": by_sizes, "batches": by_batches}
    tables = []
    for part in options.parts:
        title, unit, found = parts[part](options)
        tables.append(_table(title, unit, found))
        if options.plot:
            chart = line_chart(title, f"by {unit}", found)
            options.plot.with_name(f"{options.plot.stem}-{part}.svg").write_text(chart)
    return tables


def by_cores(options: argparse.Namespace) -> tuple[str, str, Throughput]:
    """Measure both servers on the first n cores that this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    counts = [count for count in (1, 2, 4, 8, 16, 32, 64) if count <= len(usable)]
    found: Throughput = {f"{task}, {name}": [] for name in ("ours", "peer") for task in TASKS}
    for count in counts:
        with ExitStack() as running:
            cores = usable[:count]
            targets = [
                running.enter_context(start(options, cores=cores)) for start in (contenders.ours, contenders.peer)
            ]
            for task in TASKS:
                for target in targets:
                    found[f"{task}, {target.name}"].append(
                        (count, _throughput(target, bodies(task)[:PICTURES], options, callers=4))
                    )
    return "Requests per second by cores", "cores", found


def by_sizes(options: argparse.Namespace) -> tuple[str, str, Throughput]:
    """Measure ours, with the same pictures in other sizes."""
    found: Throughput = {task: [] for task in TASKS}
    with contenders.ours(options) as target:
        for task in TASKS:
            for size in SIZES:
                found[task].append(
                    (size, _throughput(target, bodies(task, short_side=size)[:PICTURES], options, callers=4))
                )
    return "Requests per second by the pictures' short side", "pixels of the short side", found


def by_batches(options: argparse.Namespace) -> tuple[str, str, Throughput]:
    """Measure ours, started anew for each MAX_BATCH."""
    found: Throughput = {task: [] for task in TASKS}
    for size in BATCHES:
        with contenders.ours(options, {"MAX_BATCH": str(size)}) as target:
            for task in TASKS:
                found[task].append((size, _throughput(target, bodies(task)[:PICTURES], options, callers=16)))
    return "Requests per second by the largest batch, 16 callers", "MAX_BATCH", found


def _throughput(target: Target, requests: Sequence[bytes], options: argparse.Namespace, *, callers: int) -> float:
    """Return answers per second. Raise ``RuntimeError`` if a request fails."""
    warm_up(target, requests)
    loading = Loading(Extent(options.seconds, options.requests), callers=callers)
    figures = medians([one_round(target, requests, loading) for _ in range(options.rounds)])
    if figures.failures:
        raise RuntimeError(f"{figures.failures:.0f} requests to {target.url} failed.")
    progress(f"{figures.per_second:.3g}/s from {target.name}")
    return figures.per_second


def _table(title: str, unit: str, found: Throughput) -> Table:
    points = [point for point, _ in next(iter(found.values()))]
    rows: list[tuple[Cell, ...]] = [(name, *(value for _, value in line)) for name, line in found.items()]
    return Table(title, (unit, *(f"{point:g}" for point in points)), tuple(rows))
