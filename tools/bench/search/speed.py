"""The speed of search in a library of 1,000 to 1,000,000 pictures: time per query, index sizes, time to build.

A made-up library (``tools/bench/search/library.py``) in an embedded database in a temporary folder. Queries go through
``search.query.find``, as those over HTTP do, highlighted lines and all, by eight callers at once; CLIP's text encoder
is left out: vectors are made beforehand. A third of the rows ask for everybody's pictures, a third for those of one of
four owners, who have 70, 25, 4 and 1 % and ask as often, and a third for those of an owner of 0.1 %.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import psutil

from search.query.answers import Mode, SearchAnswer, SearchRequest
from search.query.find import find
from search.store.database import Database
from search.store.records import Line, Vector
from settings import Settings
from tools.bench.report import Cell, Table, milliseconds
from tools.bench.search import library
from tools.bench.search.index import Built, Entry, build, temporary_database
from tools.bench.search.recall import recall

MODEL = "cn-clip-tiny"
_RECALL_QUERIES = 50
COLUMNS = (
    *("assets, kind", "queries", "per second", "p50, ms", "p95, ms", "p99, ms", "CPU per query, ms"),
    "target, p95 in ms",
)
_TARGETS_MS = {"ocr": 50, "clip": 100, "hybrid": 80}
"""Of the p95 in up to 100,000 pictures."""
_TARGET_ABOVE_MS = 200


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--assets",
        type=int,
        nargs="+",
        default=[1000, 10_000, 100_000],
        help="sizes of the library (1000 10000 100000)",
    )
    parser.add_argument("--callers", type=int, default=8, help="at once (8)")
    parser.add_argument("--queries", type=int, default=800, help="of each kind (800)")


def run(options: argparse.Namespace) -> list[Table]:
    words = library.vocabulary()
    times: list[tuple[Cell, ...]] = []
    builds: list[tuple[Cell, ...]] = []
    recalls: list[tuple[Cell, ...]] = []
    for assets in options.assets:
        built, found, rows = asyncio.run(_measured(assets, words, options))
        times += rows
        recalls.append((assets, *found.values()))
        mebibytes = [built.bytes[name] / 2**20 for name in ("words", "grams", "vectors", "database")]
        builds.append((assets, *(built.seconds[name] for name in ("rows", "words", "grams", "vectors")), *mebibytes))
    return [
        Table(
            f"Searches, {options.callers} callers at once",
            COLUMNS,
            tuple(times),
            "Through search.query.find, with highlighted lines, without the text encoder. CPU: of the database's "
            "processes and this one.",
        ),
        Table(
            "Recall of searching by meaning",
            (
                *("assets", "everybody"),
                *(f"{owner} ({share:.0%})" for owner, share in library.OWNERS.items()),
                f"{library.FEW} (0.1%)",
            ),
            tuple(recalls),
            f"Of the ten nearest, the share found among the first ten: the mean of {_RECALL_QUERIES} queries.",
        ),
        Table(
            "Building",
            (
                "assets",
                "rows, s",
                "words, s",
                "grams, s",
                "vectors, s",
                "words, MiB",
                "grams, MiB",
                "vectors, MiB",
                "database, MiB",
            ),
            tuple(builds),
        ),
    ]


async def _measured(
    assets: int, words: list[str], options: argparse.Namespace
) -> tuple[Built, dict[str, float], list[tuple[Cell, ...]]]:
    async with temporary_database() as database:
        entries = map(entry_of, library.pictures(assets, words))
        built = await asyncio.to_thread(build, database.conninfo, entries, library.vectors(assets), MODEL)
        queries = library.queries(options.queries, words)
        vectors = library.query_vectors(options.queries)
        everybody: list[str | None] = [None] * options.queries
        whose: dict[str, Sequence[str | None]] = {
            "": everybody,
            ", one owner's": library.askers(options.queries),
            ", an owner of 0.1 %": [library.FEW] * options.queries,
        }
        rows = []
        for mode in (Mode.OCR, Mode.CLIP, Mode.HYBRID):
            for label, owners in whose.items():
                requests = [
                    (SearchRequest(q=query, mode=mode, owner=owner), Vector(MODEL, vector))
                    for query, vector, owner in zip(queries, vectors, owners, strict=True)
                ]
                target = _TARGETS_MS[mode.value] if assets <= 100_000 else _TARGET_ABOVE_MS
                rows.append(await timed(f"{assets:,} {mode.value}{label}", database, requests, options.callers, target))
        found = await asyncio.to_thread(recall, database.conninfo, vectors[:_RECALL_QUERIES], MODEL)
        return built, found, rows


def entry_of(picture: library.Picture) -> Entry:
    """Return the entry of ``picture``: its lines stand in a column, with scores of 0.9."""
    lines = [Line(text, line_box(number, text), 0.9, 0.9) for number, text in enumerate(picture.lines)]
    return Entry(picture.id, picture.owner, f"/photos/{picture.id}.jpg", lines)


def line_box(number: int, text: str) -> tuple[float, ...]:
    """Return the corners of a line in a column of text: below the one before, as wide as its characters."""
    top, width = 0.02 * number, 0.02 * sum(0.55 if character.isascii() else 1.0 for character in text)
    return (0.1, top, 0.1 + width, top, 0.1 + width, top + 0.015, 0.1, top + 0.015)


async def timed(
    label: str, database: Database, requests: list[tuple[SearchRequest, Vector]], callers: int, target: int
) -> tuple[Cell, ...]:
    """Ask ``requests`` by ``callers`` at once and return a row of ``COLUMNS``. ``target``: of the p95, in ms."""
    config = Settings()

    async def ask(request: SearchRequest, vector: Vector) -> SearchAnswer:
        return await find(database, request, _always(vector), config)

    postmaster = await _postmaster(database)
    waiting = iter(requests)
    latencies: list[float] = []

    async def caller() -> None:
        for request, vector in waiting:
            started = time.perf_counter()
            await ask(request, vector)
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(
        *(ask(*requests[at]) for at in range(min(callers, len(requests))))
    )  # connections, caches, plans
    before, started = _cpu_seconds(postmaster), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    seconds, cpu = time.perf_counter() - started, _cpu_seconds(postmaster) - before
    p50, p95, p99 = (milliseconds(latencies, percentile) for percentile in (50, 95, 99))
    met = f"{target}: {'yes' if p95 < target else 'NO'}"
    return label, len(latencies), len(latencies) / seconds, p50, p95, p99, cpu / len(latencies) * 1000, met


def _always(vector: Vector) -> Callable[[str], Awaitable[Vector]]:
    async def embed(text: str) -> Vector:
        return vector

    return embed


def _cpu_seconds(postmaster: psutil.Process) -> float:
    """Return the CPU seconds of this process and of the PostgreSQL that it started, and of no other PostgreSQL."""
    total = sum(psutil.Process().cpu_times()[:2])
    for process in postmaster.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return float(total)


async def _postmaster(database: Database) -> psutil.Process:
    """Return the process of the PostgreSQL behind ``database``."""
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT current_setting('data_directory') AS folder")
        (row,) = await cursor.fetchall()
    return psutil.Process(int(Path(row["folder"], "postmaster.pid").read_text().split()[0]))
