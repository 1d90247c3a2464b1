"""Memory of ours and of the peer: idle, with all models, after unloading; and over pictures of mixed sizes.

PSS summed over all processes of a server. The long load is OCR and faces in turns, of pictures with short sides from
200 to 2400 pixels in many shapes, after a warm-up of 200; growth compares the last tenth of the samples with the first
tenth after the warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from tools.bench import contenders
from tools.bench.chart import line_chart
from tools.bench.client import Client
from tools.bench.compare import warm_up
from tools.bench.generator import Extent, closed_loop
from tools.bench.load import Load
from tools.bench.pictures import mixed_sizes
from tools.bench.processes import ProcessTree
from tools.bench.report import Cell, Table
from tools.bench.target import Target
from tools.bench.verdicts import Verdict, at_most, verdict_table
from tools.bench.workload import bodies, pictures, request

TARGET_MB = {"idle": 380, "loaded": 900, "unloaded": 380}
TARGET_RATIO = 0.5
TARGET_GROWTH = 10
_SETTLE = 3.0
_AT_REST = 13.0
"""Seconds after which ours has given back what models only need while they work."""
_RENEWAL = 12.0
"""Seconds within which a process of ours whose models are all unloaded has given way to a fresh one."""
_STEPS = ("idle", "one request of each task", "after {} mixed requests", "the same, at rest", "after unloading")

Samples = list[tuple[float, float]]
"""(seconds since the start, MB)."""


def add_options(parser: argparse.ArgumentParser) -> None:
    contenders.add_server_options(parser)
    parser.add_argument("--mixed", type=int, default=200, help="mixed requests after which memory is looked at (200)")
    parser.add_argument(
        "--requests", type=int, default=2000, help="OCR requests, and as many of faces, of mixed sizes (2000)"
    )
    parser.add_argument("--warm-up", type=int, default=200, help="such requests before the growth is counted (200)")
    parser.add_argument("--shapes", type=int, default=100, help="different pictures of each task in that load (100)")
    parser.add_argument("--callers", type=int, default=8, help="closed-loop callers (8)")
    parser.add_argument(
        "--peer-requests",
        type=int,
        default=0,
        help="the same load on the peer, so many requests of each task (0: none)",
    )
    parser.add_argument("--plot", type=Path, help="write a chart of memory over time to this SVG file")


def run(options: argparse.Namespace) -> list[Table]:
    tables, verdicts = measure(options)
    return [*tables, verdict_table(verdicts)]


def measure(options: argparse.Namespace) -> tuple[list[Table], list[Verdict]]:
    """Measure memory by steps, then over the long load, one server after the other, so that they share no pages."""
    with contenders.ours(options) as server:
        _one_of_each(server)  # compiles what the next start finds: what is measured is any start but the very first
    with contenders.ours(options) as server:
        our_steps = [*steps(server, options), unload(server)]
        lines = {"ours": long_load(server, options.requests, options)}
    with contenders.peer(options) as server:
        peer_steps = [*steps(server, options), math.nan]
        if options.peer_requests:
            lines["peer"] = long_load(server, options.peer_requests, options)
    if options.plot:
        minutes = {name: [(seconds / 60, size) for seconds, size in samples] for name, samples in lines.items()}
        title = f"Memory over {options.requests} OCR and {options.requests} face requests of mixed sizes"
        options.plot.write_text(line_chart(title, "PSS of all processes, MB, by minutes after the warm-up", minutes))
    rows: list[tuple[Cell, ...]] = [
        (step.format(options.mixed), mine, theirs, mine / theirs)
        for step, mine, theirs in zip(_STEPS, our_steps, peer_steps, strict=True)
    ]
    grown = [(name, len(samples), *growth(samples)) for name, samples in lines.items()]
    tables = [
        Table("Memory: PSS of all processes, MB", ("", "ours", "peer", "ours / peer"), tuple(rows)),
        Table(
            "Over pictures of mixed sizes",
            ("server", "samples", "first tenth, MB", "last tenth, MB", "peak, MB", "growth, %"),
            tuple(grown),
        ),
    ]
    return tables, _verdicts(our_steps, peer_steps, growth(lines["ours"])[-1])


def _verdicts(ours: Sequence[float], peer: Sequence[float], grown: float) -> list[Verdict]:
    return [
        at_most("memory idle, MB", ours[0], TARGET_MB["idle"]),
        at_most("memory with all four models after mixed requests, at rest, MB", ours[3], TARGET_MB["loaded"]),
        at_most("the same / peer's", ours[3] / peer[3], TARGET_RATIO),
        at_most("memory after unloading, MB", ours[4], TARGET_MB["unloaded"]),
        at_most("growth over mixed sizes, %", grown, TARGET_GROWTH),
    ]


def steps(target: Target, options: argparse.Namespace) -> list[float]:
    """Return MB: idle; after one request of each task; after ``options.mixed`` mixed ones; and at rest after those."""
    time.sleep(_SETTLE)
    sizes = [_pss(target)]
    _one_of_each(target)
    sizes.append(_pss(target))
    load = asyncio.run(
        closed_loop(target.url, bodies("mixed"), callers=options.callers, extent=Extent(requests=options.mixed))
    )
    _refuse_failures(load)
    sizes.append(_pss(target))
    time.sleep(_AT_REST)
    return [*sizes, _pss(target)]


def _one_of_each(target: Target) -> None:
    warm_up(target, [bodies(task)[0] for task in ("clip", "text", "face", "ocr")])


def unload(target: Target) -> float:
    """Return MB after ours has unloaded its models, as mt-photos-ai's clients ask for it."""

    async def ask() -> None:
        async with Client(target.url) as client:
            answer = await client.ask("POST", "/restart_v2", b"", {"api-key": contenders.KEY})
            if answer.status != 200:
                raise RuntimeError(f"POST /restart_v2 was answered {answer.status}: {answer.body[:300]!r}")
            for _ in range(60):
                metrics = (await client.ask("GET", "/metrics")).body.decode()
                if not any(
                    map(float, re.findall(r"^immich_bento_models_loaded\{[^}]*\} (\S+)", metrics, re.MULTILINE))
                ):
                    return
                await asyncio.sleep(0.5)
        raise RuntimeError("The models were not unloaded within 30 s.")

    asyncio.run(ask())
    time.sleep(_RENEWAL)
    return _pss(target)


def long_load(target: Target, requests: int, options: argparse.Namespace) -> Samples:
    """Sample memory while ``requests`` OCR and as many face requests of mixed sizes run, after the warm-up."""
    made = [
        [request(task, picture) for picture in mixed_sizes(pictures(task), options.shapes, seed=seed)]
        for seed, task in enumerate(("ocr", "face"))
    ]
    work = list(itertools.chain.from_iterable(zip(*made, strict=True)))
    _refuse_failures(
        asyncio.run(closed_loop(target.url, work, callers=options.callers, extent=Extent(requests=options.warm_up)))
    )

    async def load() -> tuple[Load, Samples]:
        sampler = asyncio.ensure_future(_sample(_tree(target)))
        done = await closed_loop(target.url, work, callers=options.callers, extent=Extent(requests=2 * requests))
        sampler.cancel()
        samples = await sampler
        return done, samples

    done, samples = asyncio.run(load())
    _refuse_failures(done)
    return samples


async def _sample(tree: ProcessTree, every: float = 1.0) -> Samples:
    """Sample memory every ``every`` seconds until cancelled, and once more then."""
    samples: Samples = []
    started = time.perf_counter()
    try:
        while True:
            samples.append((time.perf_counter() - started, await asyncio.to_thread(tree.pss)))
            await asyncio.sleep(every)
    except asyncio.CancelledError:
        return [*samples, (time.perf_counter() - started, tree.pss())]


def growth(samples: Samples) -> tuple[float, float, float, float]:
    """Return MB in the first and in the last tenth of ``samples`` (means), the peak, and the growth.

    The growth is from the first to the last, in percent.
    """
    sizes = [size for _, size in samples]
    tenth = max(1, len(sizes) // 10)
    first, last = statistics.fmean(sizes[:tenth]), statistics.fmean(sizes[-tenth:])
    return first, last, max(sizes), (last / first - 1) * 100


def _tree(target: Target) -> ProcessTree:
    assert target.tree is not None
    return target.tree


def _pss(target: Target) -> float:
    return _tree(target).pss()


def _refuse_failures(load: Load) -> None:
    if load.failures:
        raise RuntimeError(f"{len(load.failures)} requests failed, the first with {load.failures[0]}")
