"""The slowest searches: a common word for an owner of one picture in a thousand, and 32 ``or``.

A made-up library as of ``search-speed``, of 200,000 pictures, by text alone; by eight callers at once.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace

from search.query.answers import Mode, SearchRequest
from search.query.parse import MOST_ALTERNATIVES
from search.store.records import Vector
from tools.bench.report import Cell, Table
from tools.bench.search import library
from tools.bench.search.index import build, temporary_database
from tools.bench.search.speed import COLUMNS, MODEL, entry_of, timed

_TARGET_MS = 200
_COMMON = 20
"""The commonest words of the library: the first is in every tenth text."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--assets", type=int, default=200_000, help="size of the library (200000)")
    parser.add_argument("--callers", type=int, default=8, help="at once (8)")
    parser.add_argument("--queries", type=int, default=200, help="of each kind (200)")


def run(options: argparse.Namespace) -> list[Table]:
    rows = asyncio.run(_measured(options))
    return [Table(f"Slow searches, {options.callers} callers at once", COLUMNS, tuple(rows))]


async def _measured(options: argparse.Namespace) -> list[tuple[Cell, ...]]:
    words = library.vocabulary()
    entries = (
        entry_of(replace(picture, owner="eve") if number % 1000 == 0 else picture)
        for number, picture in enumerate(library.pictures(options.assets, words))
    )
    vector = Vector(MODEL, library.query_vectors(1)[0])
    kinds = {
        "a common word, an owner of 0.1 %": ([words[at % _COMMON] for at in range(options.queries)], "eve"),
        f"{MOST_ALTERNATIVES} or": (
            [
                " or ".join(words[(at + other) % (2 * MOST_ALTERNATIVES)] for other in range(MOST_ALTERNATIVES))
                for at in range(options.queries)
            ],
            None,
        ),
    }
    async with temporary_database() as database:
        short = (block[:, :8] for block in library.vectors(options.assets))  # no search of these uses them
        await asyncio.to_thread(build, database.conninfo, entries, short, MODEL)
        rows = []
        for label, (queries, owner) in kinds.items():
            requests = [(SearchRequest(q=query, mode=Mode.OCR, owner=owner), vector) for query in queries]
            rows.append(await timed(f"{options.assets:,}: {label}", database, requests, options.callers, _TARGET_MS))
        return rows
