"""How fast search answers in a library of 1,000 to 1,000,000 pictures: time per query, index sizes, time to build.

A made-up library (bench/search/library.py) in an embedded database in a temporary folder. Queries go through `search.find`, as those over
HTTP do, highlighted lines and all, by eight callers at once; CLIP's text encoder is left out: vectors are made beforehand. Half of the
rows ask for everybody's pictures, half for those of one of four owners, who have 70, 25, 4 and 1 % and ask as often.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import psutil

from bench.report import Cell, Table, milliseconds
from bench.search import library
from bench.search.index import Built, Entry, build, temporary_database
from search.database import Database
from search.find import Found, Mode, SearchRequest, find
from search.records import Line, Vector
from settings import Settings

MODEL = "cn-clip-tiny"
_BOX = (0.1, 0.1, 0.9, 0.1, 0.9, 0.15, 0.1, 0.15)
_TARGETS_MS = {"ocr": 50, "hybrid": 80}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--assets", type=int, nargs="+", default=[1000, 10_000, 100_000], help="sizes of the library (1000 10000 100000)")
    parser.add_argument("--callers", type=int, default=8, help="at once (8)")
    parser.add_argument("--queries", type=int, default=800, help="of each kind (800)")


def run(options: argparse.Namespace) -> list[Table]:
    words = library.vocabulary()
    times: list[tuple[Cell, ...]] = []
    builds: list[tuple[Cell, ...]] = []
    for assets in options.assets:
        built, rows = asyncio.run(_measured(assets, words, options))
        times += rows
        mebibytes = [built.bytes[name] / 2**20 for name in ("words", "grams", "vectors", "database")]
        builds.append((assets, *(built.seconds[name] for name in ("rows", "words", "grams", "vectors")), *mebibytes))
    return [
        Table(
            f"Searches, {options.callers} callers at once",
            ("assets, kind", "queries", "per second", "p50, ms", "p95, ms", "p99, ms", "CPU per query, ms", "target, p95 in ms"),
            tuple(times),
            "Through search.find, with highlighted lines, without the text encoder. CPU: of the database's processes and this one.",
        ),
        Table(
            "Building",
            ("assets", "rows, s", "words, s", "grams, s", "vectors, s", "words, MiB", "grams, MiB", "vectors, MiB", "database, MiB"),
            tuple(builds),
        ),
    ]


async def _measured(assets: int, words: list[str], options: argparse.Namespace) -> tuple[Built, list[tuple[Cell, ...]]]:
    async with temporary_database() as database:
        entries = (
            Entry(picture.id, picture.owner, f"/photos/{picture.id}.jpg", [Line(text, _BOX, 0.9, 0.9) for text in picture.lines])
            for picture in library.pictures(assets, words)
        )
        built = await asyncio.to_thread(build, database.conninfo, entries, library.vectors(assets), MODEL)
        queries = library.queries(options.queries, words)
        vectors = library.query_vectors(options.queries)
        askers = library.askers(options.queries)
        rows = []
        for mode in (Mode.OCR, Mode.CLIP, Mode.HYBRID):
            for owners in (False, True):
                requests = [
                    (SearchRequest(query, mode, owner if owners else None), Vector(MODEL, vector))
                    for query, vector, owner in zip(queries, vectors, askers, strict=True)
                ]
                label = f"{assets:,} {mode.value}" + (", one owner's" if owners else "")
                rows.append(await _timed(label, database, requests, options.callers, _TARGETS_MS.get(mode.value)))
        return built, rows


async def _timed(
    label: str, database: Database, requests: list[tuple[SearchRequest, Vector]], callers: int, target: int | None
) -> tuple[Cell, ...]:
    config = Settings()

    async def ask(request: SearchRequest, vector: Vector) -> Found:
        return await find(database, request, _always(vector), config)

    waiting = iter(requests)
    latencies: list[float] = []

    async def caller() -> None:
        for request, vector in waiting:
            started = time.perf_counter()
            await ask(request, vector)
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(ask(*requests[at]) for at in range(min(callers, len(requests)))))  # connections, caches, plans
    before, started = _cpu_seconds(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    seconds, cpu = time.perf_counter() - started, _cpu_seconds() - before
    p50, p95, p99 = (milliseconds(latencies, percentile) for percentile in (50, 95, 99))
    met = "-" if target is None else f"{target}: {'yes' if p95 < target else 'NO'}"
    return label, len(latencies), len(latencies) / seconds, p50, p95, p99, cpu / len(latencies) * 1000, met


def _always(vector: Vector) -> Callable[[str], Awaitable[Vector]]:
    async def embed(text: str) -> Vector:
        return vector

    return embed


def _cpu_seconds() -> float:
    """Of this process and of the PostgreSQL that it started."""
    own = psutil.Process()
    total = sum(own.cpu_times()[:2])
    for process in psutil.process_iter(["name", "cpu_times", "cmdline"]):
        if process.info["name"] == "postgres" and process.info["cpu_times"] is not None:
            total += sum(process.info["cpu_times"][:2])
    return float(np.round(total, 3))
