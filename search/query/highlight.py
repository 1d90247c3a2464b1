"""Which lines of a hit match, and which characters of them to mark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from search.query.answers import FoundLine
from search.query.folding import Folded, fold_with_origins
from search.query.parse import ParsedQuery
from search.query.words import words_with_parts


def needles_of(parsed: ParsedQuery) -> tuple[str, ...]:
    """Return everything, folded, that may be marked in a hit of this query."""
    return tuple(dict.fromkeys(needle for levels in _levels(parsed) for level in levels for needle in level))


def matching_lines(rows: Iterable[Sequence[Any]], parsed: ParsedQuery) -> tuple[FoundLine, ...]:
    """Return the lines among ``rows`` that match, with what to mark in them.

    ``rows``: n, text, box, box_score, text_score, as ``immich_ai.highlighted`` gives. Of each thing looked for, the
    whole is marked where it stands anywhere in these lines; else its words; else their parts.
    """
    rows = list(rows)
    folded = [fold_with_origins(row[1]) for row in rows]
    needles = {needle for levels in _levels(parsed) for needle in _finest(levels, folded)}
    lines = []
    for (n, text, box, box_score, text_score), line in zip(rows, folded, strict=True):
        if spans := line.spans(needles):
            lines.append(
                FoundLine(
                    n=n,
                    text=text,
                    box=None if None in box else box,
                    box_score=box_score,
                    text_score=text_score,
                    spans=spans,
                )
            )
    return tuple(lines)


def _levels(parsed: ParsedQuery) -> list[tuple[tuple[str, ...], ...]]:
    """Return for each thing looked for: itself, its words, and the parts of those."""
    levels: list[tuple[tuple[str, ...], ...]] = []
    for needle in dict.fromkeys(needle for alternative in parsed.alternatives for needle in alternative.wanted):
        words = words_with_parts(needle)
        levels.append(
            ((needle,), tuple(word for word, _ in words), tuple(part for _, parts in words for part in parts))
        )
    return levels


def _finest(levels: tuple[tuple[str, ...], ...], lines: Sequence[Folded]) -> tuple[str, ...]:
    return next((level for level in levels if any(needle in line.text for needle in level for line in lines)), ())
