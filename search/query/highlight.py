"""The lines of a hit that match, and the characters of them to mark."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from search.query.answers import FoundLine
from search.query.folding import fold, fold_with_origins, occurrences
from search.query.forms import forms, typed_forms
from search.query.nearness import near
from search.query.parse import ParsedQuery
from search.query.syllables import is_syllable
from search.query.words import words_with_parts


@dataclass(slots=True)
class _Line:
    """A line as the database gives it: n, text, box, box_score, text_score, across."""

    row: Sequence[Any]
    folded: str
    across: Sequence[tuple[int, int, int]]
    """The number of a needle (from 1), and where its part starts and ends in the folded line."""


@dataclass(frozen=True)
class _Sought:
    """The needles of a query: the things looked for, and their parts."""

    levels: tuple[tuple[tuple[str, ...], ...], ...]
    """For each thing: itself, its words, and the parts of those."""
    numbers: Mapping[str, int]
    """Each needle of all levels, with its number from 1."""


def needles_of(parsed: ParsedQuery) -> tuple[str, ...]:
    """Return everything, folded, that may be marked in a hit of this query."""
    return tuple(_sought(parsed).numbers)


def matching_lines(
    rows: Iterable[Sequence[Any]], parsed: ParsedQuery, close_words: Collection[str] = ()
) -> tuple[FoundLine, ...]:
    """Return the lines among ``rows`` that match, with what to mark in them.

    ``rows``: n, text, box, box_score, text_score, and across where ``immich_ai.highlighted_across`` gives them. Of each
    thing looked for, the whole is marked where it stands anywhere in these lines; else its words; else their parts;
    else the same number in another form, or what is almost it (``close_words``: words of texts that are).
    """
    lines = [_Line(row, fold(row[1]), _across(row)) for row in rows]
    sought = _sought(parsed)
    marked: list[set[tuple[int, int]]] = [set() for _ in lines]
    for levels in sought.levels:
        level = _finest(levels, lines, sought.numbers)
        spans = [_spans(line, level, sought.numbers) for line in lines]
        if level != levels[0] and any(same := _same_number(lines, levels[0][0])):
            spans = same
        elif not any(spans):
            spans = _almost(lines, levels[0][0], close_words)
        for line_marked, line_spans in zip(marked, spans, strict=True):
            line_marked.update(line_spans)
    found = []
    for line, line_marked in zip(lines, marked, strict=True):
        if not line_marked:
            continue  # where its characters come from need not be worked out
        if spans_here := fold_with_origins(line.row[1]).spans_of(line_marked):
            n, text, box, box_score, text_score = line.row[:5]
            shown = None if None in box else tuple(box)
            found.append(
                FoundLine(n=n, text=text, box=shown, box_score=box_score, text_score=text_score, spans=spans_here)
            )
    return tuple(found)


def explains(lines: Sequence[FoundLine], parsed: ParsedQuery) -> bool:
    """Return whether ``lines`` have everything that was typed, letter by letter."""
    text = "\n".join(fold(line.text) for line in lines)
    return any(all(needle in text for needle in alternative.wanted) for alternative in parsed.alternatives)


@lru_cache(maxsize=32)
def _sought(parsed: ParsedQuery) -> _Sought:
    """Return what ``parsed`` looks for: worked out once for all hits of a page."""
    levels: list[tuple[tuple[str, ...], ...]] = []
    for needle in dict.fromkeys(needle for alternative in parsed.alternatives for needle in alternative.wanted):
        words = words_with_parts(needle)
        levels.append(
            ((needle,), tuple(word for word, _ in words), tuple(part for _, parts in words for part in parts))
        )
    needles = dict.fromkeys(needle for one in levels for level in one for needle in level)
    return _Sought(tuple(levels), {needle: number for number, needle in enumerate(needles, start=1)})


def _across(row: Sequence[Any]) -> Sequence[tuple[int, int, int]]:
    given = row[5] if len(row) > 5 and row[5] else ()
    return [(given[at], given[at + 1], given[at + 2]) for at in range(0, len(given), 3)]


def _finest(levels: tuple[tuple[str, ...], ...], lines: Sequence[_Line], numbers: Mapping[str, int]) -> tuple[str, ...]:
    for level in levels:
        for needle in level:
            for line in lines:
                if needle in line.folded or any(number == numbers[needle] for number, _, _ in line.across):
                    return level
    return ()


def _spans(line: _Line, needles: Sequence[str], numbers: Mapping[str, int]) -> set[tuple[int, int]]:
    """Return where ``needles`` stand in a folded line, and their parts that go over its end."""
    spans = set(occurrences(line.folded, needles))
    if line.across:
        wanted = {numbers[needle] for needle in needles}
        spans.update((start, end) for number, start, end in line.across if number in wanted)
    return spans


def _same_number(lines: Sequence[_Line], needle: str) -> list[set[tuple[int, int]]]:
    """Return where in each folded line a number or date stands that is the typed one in another form."""
    typed = typed_forms(needle)
    words = {*typed.same, *typed.near}
    if not words:
        return []
    return [{(form.start, form.end) for form in forms(line.folded) if form.word in words} for line in lines]


def _almost(lines: Sequence[_Line], needle: str, close_words: Collection[str]) -> list[set[tuple[int, int]]]:
    """Return where in each folded line what is almost ``needle`` stands."""
    found = near(needle)
    if found is None and not is_syllable(needle):
        return [set() for _ in lines]
    if found is not None and found.pattern is not None:
        return [{match.span() for match in re.finditer(found.pattern, line.folded)} for line in lines]
    chinese = [word for word in close_words if not word.isascii()]
    return [
        {match.span() for match in _WORDS.finditer(line.folded) if match[0] in close_words}
        | set(occurrences(line.folded, chinese))
        for line in lines
    ]


_WORDS = re.compile(r"[^\W\d_]+")
