"""The slowest searches: the commonest character, a common word for an owner of few pictures, 32 ``or``, 40 words.

A made-up library as of ``search-speed``, of 200,000 pictures, by text alone; by eight callers at once.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

from search.query.answers import Mode, SearchRequest
from search.query.parse import MOST_ALTERNATIVES
from search.store.records import Vector
from tools.bench.report import Cell, Table
from tools.bench.search import library
from tools.bench.search.index import Entry, build, temporary_database
from tools.bench.search.speed import COLUMNS, MODEL, entry_of, timed

_TARGET_MS = 200
_COMMON = 20
"""The commonest words of the library: the first is in every tenth text."""
_CHARACTER = "的"
_WORDS = 40
"""Words in a long query."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--assets", type=int, default=200_000, help="size of the library (200000)")
    parser.add_argument("--callers", type=int, default=8, help="at once (8)")
    parser.add_argument("--queries", type=int, default=200, help="of each kind (200)")


def run(options: argparse.Namespace) -> list[Table]:
    rows = asyncio.run(_measured(options))
    return [Table(f"Slow searches, {options.callers} callers at once", COLUMNS, tuple(rows))]


async def _measured(options: argparse.Namespace) -> list[tuple[Cell, ...]]:
    words = library.vocabulary()
    vector = Vector(MODEL, library.query_vectors(1)[0])
    async with temporary_database() as database:
        short = (block[:, :8] for block in library.vectors(options.assets))  # no search of these uses them
        await asyncio.to_thread(build, database.conninfo, _entries(options.assets, words), short, MODEL)
        rows = []
        for label, (queries, owner) in _kinds(words, options.queries).items():
            requests = [(SearchRequest(q=query, mode=Mode.OCR, owner=owner), vector) for query in queries]
            rows.append(await timed(f"{options.assets:,}: {label}", database, requests, options.callers, _TARGET_MS))
        return rows


def _entries(count: int, words: Sequence[str]) -> Iterator[Entry]:
    """Yield the library with the character in three of five texts."""
    for number, picture in enumerate(library.pictures(count, words)):
        if number % 5 < 3 and picture.lines:
            picture = replace(picture, lines=(picture.lines[0] + _CHARACTER, *picture.lines[1:]))
        yield entry_of(picture)


def _kinds(words: Sequence[str], count: int) -> dict[str, tuple[list[str], str | None]]:
    """Return ``count`` queries of each kind, and whose pictures they ask for; None: everybody's."""
    characters = [_CHARACTER] * count
    alternatives = [
        " or ".join(words[(at + other) % (2 * MOST_ALTERNATIVES)] for other in range(MOST_ALTERNATIVES))
        for at in range(count)
    ]
    common = [" ".join(words[(at + other) % (2 * _WORDS)] for other in range(_WORDS)) for at in range(count)]
    rare = [" ".join(words[(at * _WORDS + other) % len(words)] for other in range(_WORDS)) for at in range(count)]
    return {
        "a common word, an owner of 0.1 %": ([words[at % _COMMON] for at in range(count)], library.FEW),
        f"{MOST_ALTERNATIVES} or": (alternatives, None),
        f"{_CHARACTER}, in three of five texts": (characters, None),
        f"{_CHARACTER}, an owner of a quarter": (characters, "bob"),
        f"{_CHARACTER}, an owner of 0.1 %": (characters, library.FEW),
        f"{_WORDS} common words": (common, None),
        f"{_WORDS} words of all": (rare, None),
        f"{_WORDS} words of all, an owner of a quarter": (rare, "bob"),
    }
