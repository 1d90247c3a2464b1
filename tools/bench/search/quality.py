"""The recall of search: 120 queries with known answers over 300 documents read by the real OCR, and hybrid search.

Text search (``ocr:``) stands beside plain ILIKE and beside Immich's own matching (pairs of characters, strict word
similarity above 0.5, unranked), worked out here in Python. The mixed set adds OpenMoji's emoji, found by their names
with cn-clip-tiny; npm fetches them on the first run. Reading takes minutes on the first run, and is kept in
~/.cache/immich-bento/search-quality.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal
from uuid import UUID

from runners.contract import Float32
from search.query.answers import Mode, SearchRequest
from search.query.find import find
from search.store.database import Database
from search.store.records import Line, Vector
from settings import Settings
from tools.bench.report import Cell, Table
from tools.bench.search.documents import COUNT, Document, documents
from tools.bench.search.index import Entry, build, temporary_database
from tools.bench.search.peers import by_ilike, by_strict_word_similarity
from tools.bench.search.questions import KINDS, Question, questions
from tools.bench.search.reading import CACHE, CLIP_MODEL, embed_pictures, embed_texts, read

EMOJI_QUERIES = 120
_SEED = 20260304


@dataclass(frozen=True, slots=True)
class Score:
    """Means over queries, 0 to 1."""

    recall_at_10: float
    """Of the right answers, or of ten where there are more, the share among the first ten."""
    mrr: float
    """Of 1 / the place of the first right answer; 0 where there is none among the first hundred."""


def scored(rankings: Sequence[Sequence[int]], asked: Sequence[Question]) -> Score:
    """Return the mean scores; ``rankings``: for each query the numbers of the pictures found, best first."""
    recalls, reciprocals = [], []
    for ranking, question in zip(rankings, asked, strict=True):
        right = question.answers
        recalls.append(len(right.intersection(ranking[:10])) / min(10, len(right)))
        reciprocals.append(
            next((1 / place for place, number in enumerate(ranking[:100], start=1) if number in right), 0.0)
        )
    return Score(sum(recalls) / len(recalls), sum(reciprocals) / len(reciprocals))


def entries(made: Sequence[Document], lines: Sequence[Sequence[Line]], others: int = 0) -> Iterator[Entry]:
    """Return the documents, and after them ``others`` pictures without text. A picture's id is its number."""
    for number in range(len(made) + others):
        is_document = number < len(made)
        name = made[number].name if is_document else f"emoji-{number - len(made):04}"
        yield Entry(UUID(int=number), "", f"/{name}.jpg", lines[number] if is_document else ())


async def ranked(
    database: Database,
    asked: Sequence[Question],
    mode: Mode,
    vectors: Mapping[str, Float32],
    fusion: Literal["rrf", "weighted"] = "rrf",
) -> list[list[int]]:
    """Return the first hundred of each query. ``vectors``: of the queries, by text; not needed for text search."""

    async def embed(text: str) -> Vector:
        return Vector(CLIP_MODEL, vectors[text])

    config = Settings(search_fusion=fusion)
    found = [await find(database, SearchRequest(q=one.query, mode=mode, limit=100), embed, config) for one in asked]
    return [[hit.id.int for hit in page.hits] for page in found]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--documents", type=int, default=COUNT, help=f"how many (at most {COUNT}, the default)")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"what was read ({CACHE})")
    parser.add_argument("--no-emoji", action="store_true", help="leave the mixed set out: no npm")


def run(options: argparse.Namespace) -> list[Table]:
    made = documents(options.documents)
    return asyncio.run(_tables(made, read(made, options.cache), not options.no_emoji))


async def _tables(made: Sequence[Document], lines: Sequence[Sequence[Line]], with_emoji: bool) -> list[Table]:
    asked = questions(made)
    emoji, emoji_asked = _emoji(len(made)) if with_emoji else ((), [])
    vectors = embed_pictures([*(document.jpeg() for document in made), *emoji])
    mixed = [*asked, *emoji_asked]
    meanings = {text: text for one in mixed for text in [_meaning(one.query)]}
    query_vectors = dict(zip(meanings, embed_texts(list(meanings)), strict=True))
    async with temporary_database() as database:
        await asyncio.to_thread(build, database.conninfo, entries(made, lines, len(emoji)), [vectors], CLIP_MODEL)
        tables = [await _text_table(database, made, lines, asked)]
        if emoji:
            tables.append(await _hybrid_table(database, asked, emoji_asked, query_vectors))
    return tables


async def _text_table(
    database: Database, made: Sequence[Document], lines: Sequence[Sequence[Line]], asked: Sequence[Question]
) -> Table:
    texts = ["\n".join(line.text for line in one) for one in lines]
    systems: list[tuple[str, list[list[int]]]] = [
        ("ocr:", await ranked(database, asked, Mode.OCR, {})),
        ("ILIKE", [by_ilike(one.query, texts) for one in asked]),
        ("Immich's pairs, %>>", [by_strict_word_similarity(one.query, texts) for one in asked]),
    ]
    rows: list[tuple[Cell, ...]] = []
    for kind in (*KINDS, "all"):
        at = [number for number, one in enumerate(asked) if kind in (one.kind, "all")]
        cells: list[Cell] = [kind, len(at)]
        for _, rankings in systems:
            score = scored([rankings[number] for number in at], [asked[number] for number in at])
            cells += [f"{score.recall_at_10:.3f}", f"{score.mrr:.3f}"]
        rows.append(tuple(cells))
    columns = ("query", "queries", *(f"{name} {figure}" for name, _ in systems for figure in ("R@10", "MRR")))
    return Table(
        f"Text in {len(made)} documents",
        columns,
        tuple(rows),
        "ILIKE and Immich's do not rank: the order is the documents'.",
    )


async def _hybrid_table(
    database: Database, texts: Sequence[Question], emoji: Sequence[Question], vectors: Mapping[str, Float32]
) -> Table:
    by_query = {one.query: vectors[_meaning(one.query)] for one in (*texts, *emoji)}
    vectors = {_meaning(query): vector for query, vector in by_query.items()}
    rows: list[tuple[Cell, ...]] = []
    for label, mode, fusion in (
        ("text alone", Mode.OCR, "rrf"),
        ("meaning alone", Mode.CLIP, "rrf"),
        ("hybrid, rrf", Mode.HYBRID, "rrf"),
        ("hybrid, weighted", Mode.HYBRID, "weighted"),
    ):
        of_texts = await ranked(database, texts, mode, vectors, fusion)  # type: ignore[arg-type]
        of_emoji = await ranked(database, emoji, mode, vectors, fusion)  # type: ignore[arg-type]
        scores = [scored(of_texts, texts), scored(of_emoji, emoji), scored([*of_texts, *of_emoji], [*texts, *emoji])]
        rows.append((label, *(f"{figure:.3f}" for score in scores for figure in (score.mrr, score.recall_at_10))))
    return Table(
        f"Hybrid search: {len(texts)} queries for texts and {len(emoji)} for emoji, over all pictures",
        ("", "texts MRR", "texts R@10", "emoji MRR", "emoji R@10", "all MRR", "all R@10"),
        tuple(rows),
    )


def _emoji(after: int) -> tuple[Sequence[bytes], list[Question]]:
    """Return OpenMoji's pictures, and queries for some of them by their names, Chinese and English in turns."""
    from tools.tiny.evaluate import read_held_out  # needs npm and resvg
    from tools.tiny.train import DEFAULT_CACHE

    held_out = read_held_out(DEFAULT_CACHE)
    chosen = Random(_SEED).sample(range(len(held_out.emoji)), EMOJI_QUERIES)
    asked = []
    for at, number in enumerate(chosen):
        language = ("zh", "en")[at % 2]
        asked.append(Question(f"emoji, {language}", held_out.names[language][number], frozenset([after + number])))
    return held_out.pictures, asked


def _meaning(query: str) -> str:
    from search.query.parse import parse

    return parse(query).meaning
