"""Our batcher against BentoML's own, over the same fake model.

The model sleeps FIXED + PER_PICTURE * n in a thread, as a runner would compute. BentoML's CorkDispatcher is built and
called as its ServiceAppFactory does it for ``batchable=True``, with a max_latency far above any batch (below that it
answers 503). Both run in this process, in turns, each phase on a new batcher that was warmed up; figures are medians
over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import uvloop
from bentoml._internal.marshal.dispatcher import CorkDispatcher
from bentoml._internal.runner.container import AutoContainer

from runners.batching import Batcher
from tools.bench.chart import bar_chart
from tools.bench.report import Cell, Table, milliseconds

Submit: TypeAlias = Callable[[int], Awaitable[int]]
Figures: TypeAlias = "dict[tuple[str, ...], list[float]]"
"""(phase, figure, batcher) -> one number per round."""

MAX_LATENCY_MS = 600_000


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fixed-ms", type=float, default=10, help="what a call of the model costs, whatever its size (10)"
    )
    parser.add_argument(
        "--per-picture-ms", type=float, default=45, help="what each picture adds (45: faces on two cores)"
    )
    parser.add_argument("--max-batch", type=int, default=8, help="MAX_BATCH of the service (8)")
    parser.add_argument("--rounds", type=int, default=3, help="alternations (3)")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4, 16], help="closed-loop callers (1 4 16)")
    parser.add_argument("--seconds", type=float, default=5, help="of load per number of callers (5)")
    parser.add_argument(
        "--saturate", type=float, default=10, help="seconds of saturation by 16 callers before lone requests (10)"
    )
    parser.add_argument("--lone", type=int, default=10, help="lone requests after that (10)")
    parser.add_argument("--pause", type=float, default=1, help="seconds between lone requests (1)")
    parser.add_argument("--plot", type=Path, help="write a chart of the lone requests to this SVG file")


@asynccontextmanager
async def our_batcher(model: Callable[[Sequence[int]], Sequence[int]], max_batch: int) -> AsyncIterator[Submit]:
    with ThreadPoolExecutor(1) as thread:
        yield Batcher(model, max_batch=max_batch, executor=thread).submit


@asynccontextmanager
async def bentoml_batcher(model: Callable[[Sequence[int]], Sequence[int]], max_batch: int) -> AsyncIterator[Submit]:
    """Run BentoML's batcher as ``_bentoml_impl.server.app.ServiceAppFactory`` of 1.4.39 does.

    The steps are those of its ``__init__``, ``batch_infer`` and ``_to_thread``.
    """

    def fallback() -> Any:
        raise RuntimeError("the dispatcher gave this request up")

    dispatcher: Any = CorkDispatcher(
        max_latency_in_ms=MAX_LATENCY_MS,
        max_batch_size=max_batch,
        fallback=fallback,
        get_batch_size=partial(AutoContainer.get_batch_size, batch_dim=0),
        batch_dim=(0, 0),
    )
    limiter = anyio.CapacityLimiter(1)

    async def infer(batches: Sequence[list[int]]) -> Sequence[list[int]]:
        batch, indices = AutoContainer.batches_to_batch(batches, 0)
        result = await anyio.to_thread.run_sync(model, batch, limiter=limiter)
        answers: Sequence[list[int]] = AutoContainer.batch_to_batches(result, indices, 0)
        return answers

    call = dispatcher(infer)

    async def submit(job: int) -> int:
        answer: list[int] = await call([job])
        return answer[0]

    try:
        yield submit
    finally:
        dispatcher.shutdown()


BATCHERS = {"ours": our_batcher, "BentoML": bentoml_batcher}


async def _timed(submit: Submit) -> float:
    started = time.perf_counter()
    await submit(1)
    return time.perf_counter() - started


async def _alone(submit: Submit, count: int, pause: float) -> list[float]:
    latencies = []
    for _ in range(count):
        await asyncio.sleep(pause)
        latencies.append(await _timed(submit))
    return latencies


async def _closed_loop(submit: Submit, callers: int, seconds: float) -> tuple[list[float], float]:
    """Return the latencies of all callers, and the seconds until the last of them."""
    started = time.perf_counter()
    latencies: list[float] = []

    async def caller() -> None:
        while time.perf_counter() - started < seconds:
            latencies.append(await _timed(submit))

    await asyncio.gather(*(caller() for _ in range(callers)))
    return latencies, time.perf_counter() - started


async def _warm_up(submit: Submit) -> None:
    # BentoML's dispatcher trains on its first dozen calls.
    await _alone(submit, 16, 0.002)


async def _measure(name: str, options: argparse.Namespace, figures: Figures) -> None:
    def model(jobs: Sequence[int]) -> Sequence[int]:
        time.sleep((options.fixed_ms + options.per_picture_ms * len(jobs)) / 1000)
        return list(jobs)

    def note(phase: str, **numbers: float) -> None:
        for figure, number in numbers.items():
            figures[phase, figure, name].append(number)

    batcher = partial(BATCHERS[name], model, options.max_batch)
    async with batcher() as submit:
        await _warm_up(submit)
        note("lone, fresh", p50=milliseconds(await _alone(submit, options.lone, options.pause / 10), 50))
    for callers in options.callers:
        async with batcher() as submit:
            await _warm_up(submit)
            cpu = time.process_time()
            latencies, wall = await _closed_loop(submit, callers, options.seconds)
            cpu = time.process_time() - cpu
            p50, p95 = milliseconds(latencies, 50), milliseconds(latencies, 95)
            note(f"{callers} callers", per_s=len(latencies) / wall, p50=p50, p95=p95, cpu=cpu / wall * 1000)
    async with batcher() as submit:
        await _warm_up(submit)
        await _closed_loop(submit, 16, options.saturate)
        alone = await _alone(submit, options.lone, options.pause)
        note("lone, after saturation", p50=milliseconds(alone, 50), worst=max(alone) * 1000)
        for number, latency in enumerate(alone, start=1):
            note("lone, after saturation", **{f"request {number}": latency * 1000})


def run(options: argparse.Namespace) -> list[Table]:
    figures: Figures = defaultdict(list)
    loop = uvloop.new_event_loop()  # what uvicorn runs the service on
    try:
        for number in range(options.rounds):
            for name in list(BATCHERS)[:: 1 if number % 2 == 0 else -1]:
                loop.run_until_complete(_measure(name, options, figures))
    finally:
        loop.close()
    medians = {key: statistics.median(values) for key, values in figures.items()}
    if options.plot:
        options.plot.write_text(_chart(medians, options), encoding="utf-8")
    return _tables(medians, options)


def _tables(medians: dict[tuple[str, ...], float], options: argparse.Namespace) -> list[Table]:
    def row(label: str, phase: str, figure: str) -> tuple[Cell, ...]:
        ours, theirs = medians[phase, figure, "ours"], medians[phase, figure, "BentoML"]
        return label, ours, theirs, theirs / ours if ours else float("nan")

    loads = [f"{callers} callers" for callers in options.callers]
    after = "lone, after saturation"
    model = (
        f"model: {options.fixed_ms:g} ms + {options.per_picture_ms:g} ms a picture, batches of at most "
        f"{options.max_batch}"
    )
    columns = ("ours", "BentoML", "BentoML / ours")
    return [
        Table(
            f"A request that is alone ({model})",
            ("latency, ms", *columns),
            (
                row("new batcher, warmed up, p50", "lone, fresh", "p50"),
                row(f"after {options.saturate:g} s of 16 callers, first", after, "request 1"),
                row(f"after {options.saturate:g} s of 16 callers, p50 of {options.lone}", after, "p50"),
                row(f"after {options.saturate:g} s of 16 callers, worst", after, "worst"),
            ),
            f"The model itself takes {options.fixed_ms + options.per_picture_ms:g} ms. Lone requests come "
            f"{options.pause:g} s apart.",
        ),
        Table(
            "Under load (closed loop)",
            ("", *columns),
            tuple(
                row(f"{load}, {label}", load, figure)
                for load in loads
                for label, figure in (
                    ("requests/s", "per_s"),
                    ("p50, ms", "p50"),
                    ("p95, ms", "p95"),
                    ("CPU, ms per s", "cpu"),
                )
            ),
            "CPU is that of the whole process: event loop, batcher and callers; the model only sleeps.",
        ),
    ]


def _chart(medians: dict[tuple[str, ...], float], options: argparse.Namespace) -> str:
    series = {
        name: [medians["lone, after saturation", f"request {number}", name] for number in range(1, options.lone + 1)]
        for name in BATCHERS
    }
    return bar_chart(
        f"A lone request after {options.saturate:g} s of 16 callers",
        f"latency in ms of the 1st to {options.lone}th request, {options.pause:g} s apart; "
        f"the model takes {options.fixed_ms + options.per_picture_ms:g} ms",
        series,
    )
