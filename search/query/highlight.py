"""The lines of a hit that match, and the characters of them to mark."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from search.query.answers import FoundLine
from search.query.folding import fold, fold_with_origins, occurrences
from search.query.forms import Form, forms, typed_forms
from search.query.nearness import near
from search.query.parse import ParsedQuery
from search.query.words import words_with_parts


@dataclass(frozen=True)
class _Line:
    """A line as the database gives it: n, text, box, box_score, text_score, across."""

    row: Sequence[Any]
    folded: str

    @cached_property
    def across(self) -> list[tuple[int, int, int]]:
        """Return the number of a needle (from 1), and where its part starts and ends in the folded line."""
        given = self.row[5] if len(self.row) > 5 and self.row[5] else ()
        return [(given[at], given[at + 1], given[at + 2]) for at in range(0, len(given), 3)]

    @cached_property
    def forms(self) -> tuple[Form, ...]:
        """Return the numbers and dates in the folded line."""
        return tuple(forms(self.folded))


def needles_of(parsed: ParsedQuery) -> tuple[str, ...]:
    """Return everything, folded, that may be marked in a hit of this query."""
    return _all_needles(_levels(parsed))


def matching_lines(
    rows: Iterable[Sequence[Any]], parsed: ParsedQuery, close_words: Collection[str] = ()
) -> tuple[FoundLine, ...]:
    """Return the lines among ``rows`` that match, with what to mark in them.

    ``rows``: n, text, box, box_score, text_score, and across where ``immich_ai.highlighted_across`` gives them. Of each
    thing looked for, the whole is marked where it stands anywhere in these lines; else its words; else their parts;
    else the same number in another form, or what is almost it (``close_words``: words of texts that are).
    """
    lines = [_Line(row, fold(row[1])) for row in rows]
    wanted = _levels(parsed)
    numbers = {needle: number for number, needle in enumerate(_all_needles(wanted), start=1)}
    marked: list[set[tuple[int, int]]] = [set() for _ in lines]
    for levels in wanted:
        level = _finest(levels, lines, numbers)
        spans = [_spans(line, level, numbers) for line in lines]
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
            shown = None if None in box else box
            found.append(
                FoundLine(n=n, text=text, box=shown, box_score=box_score, text_score=text_score, spans=spans_here)
            )
    return tuple(found)


def explains(lines: Sequence[FoundLine], parsed: ParsedQuery) -> bool:
    """Return whether ``lines`` have everything that was typed, letter by letter."""
    text = "\n".join(fold(line.text) for line in lines)
    return any(all(needle in text for needle in alternative.wanted) for alternative in parsed.alternatives)


def _all_needles(wanted: Iterable[tuple[tuple[str, ...], ...]]) -> tuple[str, ...]:
    """Return the needles of all levels, each once."""
    return tuple(dict.fromkeys(needle for levels in wanted for level in levels for needle in level))


def _levels(parsed: ParsedQuery) -> list[tuple[tuple[str, ...], ...]]:
    """Return for each thing looked for: itself, its words, and the parts of those."""
    levels: list[tuple[tuple[str, ...], ...]] = []
    for needle in dict.fromkeys(needle for alternative in parsed.alternatives for needle in alternative.wanted):
        words = words_with_parts(needle)
        levels.append(
            ((needle,), tuple(word for word, _ in words), tuple(part for _, parts in words for part in parts))
        )
    return levels


def _finest(levels: tuple[tuple[str, ...], ...], lines: Sequence[_Line], numbers: dict[str, int]) -> tuple[str, ...]:
    across = {number for line in lines for number, _, _ in line.across}
    return next(
        (
            level
            for level in levels
            if any(numbers[needle] in across or any(needle in line.folded for line in lines) for needle in level)
        ),
        (),
    )


def _spans(line: _Line, needles: Sequence[str], numbers: dict[str, int]) -> set[tuple[int, int]]:
    """Return where ``needles`` stand in a folded line, and their parts that go over its end."""
    wanted = {numbers[needle] for needle in needles}
    across = {(start, end) for number, start, end in line.across if number in wanted}
    return across | set(occurrences(line.folded, needles))


def _same_number(lines: Sequence[_Line], needle: str) -> list[set[tuple[int, int]]]:
    """Return where in each folded line a number or date stands that is the typed one in another form."""
    typed = typed_forms(needle)
    words = {*typed.same, *typed.near}
    if not words:
        return []
    return [{(form.start, form.end) for form in line.forms if form.word in words} for line in lines]


def _almost(lines: Sequence[_Line], needle: str, close_words: Collection[str]) -> list[set[tuple[int, int]]]:
    """Return where in each folded line what is almost ``needle`` stands."""
    found = near(needle)
    if found is None:
        return [set() for _ in lines]
    if found.pattern is not None:
        return [{match.span() for match in re.finditer(found.pattern, line.folded)} for line in lines]
    chinese = [word for word in close_words if not word.isascii()]
    return [
        {match.span() for match in _WORDS.finditer(line.folded) if match[0] in close_words}
        | set(occurrences(line.folded, chinese))
        for line in lines
    ]


_WORDS = re.compile(r"[^\W\d_]+")
