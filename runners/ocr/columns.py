"""Rows and columns of the lines of an upright page, after Nagy and Seth's XY-cut (1984), on boxes of whole lines.

1. Lines that share a height form a *row*.
2. A run of rows with a white gutter through all of them is two *columns*, if both sides look like running text. Each
   side is ordered on its own, so that three columns work too. Any other row is read from left to right.

A gutter that few rows share is as wide as lines are high; one through many rows may be narrow, as in newspapers, since
blanks between words do not stand below each other for long.

Sides look like running text where their lines do not share rows. Where they do, it may be a table or a receipt, to be
read row by row: it counts as one if a side consists of short lines or mostly of figures (amounts, dates), or if the
left side mostly ends in colons.

Limits: a table of long words without figures is read by columns, a two-column list of very short words by rows. Text
that flows around a picture counts as a column only while it has a gutter.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

_SAME_ROW = 0.4
"""Share of the taller line's height that two lines must have in common to stand on one row."""
_BESIDE = 0.5
"""Share of the shorter column's lines that must have any of the other column beside them, or they are one column with
indents.
"""
_ALIGNED = 0.5
"""Share of the shorter column's lines that stand on a row with the other column, from which on it may be a table."""
_LONG = 3.0
"""Width of a line of running text, in heights of its box (about four Chinese characters)."""
_GUTTER, _NARROW_GUTTER = 1.0, 0.15
"""Least width of a gutter, in typical heights of boxes, which are grown on all sides: through any rows, and through
``_MANY_ROWS``."""
_MANY_ROWS = 5


@dataclass(frozen=True, slots=True)
class Line:
    """The box of a line on an upright page, y downwards, and what it says."""

    index: int
    left: float
    top: float
    right: float
    bottom: float
    text: str

    @property
    def height(self) -> float:
        """Return the height of the box."""
        return self.bottom - self.top

    @property
    def centre(self) -> float:
        """Return the height at which its middle is."""
        return (self.top + self.bottom) / 2


def order(lines: list[Line]) -> list[Line]:
    """Return ``lines`` as they are read: top to bottom, left to right, column by column."""
    rows = _rows(lines)
    typical = median(line.height for line in lines) if lines else 0.0
    ordered: list[Line] = []
    start = 0
    while start < len(rows):
        end, gutter = _columns(rows, start, typical)
        run = [line for row in rows[start:end] for line in row]
        left, right = _sides(run, gutter)
        ordered += order(left) + order(right) if left and right else run
        start = end
    return ordered


def _columns(rows: Sequence[Sequence[Line]], start: int, typical: float) -> tuple[int, float]:
    """Return the end of the run of rows from ``start`` on that are two columns, and the left edge of their gutter.

    Where there are no columns the edge is infinite, and the rows are read from left to right.
    """
    for least in (_NARROW_GUTTER, _GUTTER):
        end, gutter = _longest_run(rows, start, typical, least * typical)
        left, right = _sides([line for row in rows[start:end] for line in row], gutter)
        if left and right and (least == _GUTTER or end - start >= _MANY_ROWS) and _are_columns(left, right):
            return end, gutter
    return end, math.inf


def _sides(lines: Sequence[Line], gutter: float) -> tuple[list[Line], list[Line]]:
    return [line for line in lines if line.right <= gutter], [line for line in lines if line.right > gutter]


def _rows(lines: Sequence[Line]) -> list[list[Line]]:
    """Return the rows from top to bottom, each from left to right."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: (line.centre, line.left, line.top, line.right, line.text)):
        if rows and _same_row(rows[-1][-1], line) and _same_row(rows[-1][0], line):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: (line.left, line.centre, line.right, line.text)) for row in rows]


def _same_row(one: Line, other: Line) -> bool:
    return _shared(one, other) > _SAME_ROW * max(one.height, other.height)


def _shared(one: Line, other: Line) -> float:
    """Return the height that two lines have in common; negative where one is below the other."""
    return min(one.bottom, other.bottom) - max(one.top, other.top)


def _longest_run(rows: Sequence[Sequence[Line]], start: int, typical: float, least: float) -> tuple[int, float]:
    """Return the end of the longest run of rows from ``start`` on with a common gutter, and the gutter's left edge.

    ``typical``: height of a line. A gutter is at least ``least`` wide; where several remain, it is the widest. Where
    there is none the run is one row, and the edge is infinite.
    """
    inked: list[tuple[float, float]] = []
    end, gutter = start + 1, math.inf
    for place in range(start, len(rows)):
        inked = _merge([*inked, *((line.left, line.right) for line in rows[place])])
        gaps = [(after[0] - before[1], before[1]) for before, after in pairwise(inked)]
        wide = [gap for gap in gaps if gap[0] >= least]
        if wide:
            end, gutter = place + 1, max(wide)[1]
        elif place > start or start + 1 == len(rows) or rows[start + 1][0].centre - rows[start][0].centre >= typical:
            # A first row without a gutter may still be the first line of the higher column, if the next is too near to
            # be below it.
            break
    return end, gutter


def _merge(intervals: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for left, right in sorted(intervals):
        if merged and left <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], right))
        else:
            merged.append((left, right))
    return merged


def _are_columns(left: Sequence[Line], right: Sequence[Line]) -> bool:
    fewer, more = sorted((left, right), key=len)
    neighbours = _Neighbours(more)
    beside = sum(any(_shared(line, other) > 0 for other in neighbours.of(line)) for line in fewer) / len(fewer)
    if beside < _BESIDE:
        return False
    aligned = sum(any(_same_row(line, other) for other in neighbours.of(line)) for line in fewer) / len(fewer)
    if aligned < _ALIGNED:
        return len(fewer) >= 2
    is_table = any(_is_short(side) or _is_figures(side) for side in (left, right)) or _is_labels(left)
    return len(fewer) >= 3 and not is_table


class _Neighbours:
    """Lines by their tops, so that those beside a line are found among thousands."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = sorted(lines, key=lambda line: line.top)
        self._tops = [line.top for line in self._lines]
        self._highest = max(line.height for line in lines)

    def of(self, line: Line) -> Sequence[Line]:
        """Return all lines that share some height with ``line``, and some that do not."""
        first = bisect_left(self._tops, line.top - self._highest)
        return self._lines[first : bisect_right(self._tops, line.bottom)]


def _is_short(side: Sequence[Line]) -> bool:
    return median((line.right - line.left) / max(line.height, 1e-9) for line in side) < _LONG


def _is_figures(side: Sequence[Line]) -> bool:
    figures = sum(sum(map(str.isalpha, line.text)) * 2 < len(line.text.replace(" ", "")) for line in side)
    return figures * 2 >= len(side)


def _is_labels(side: Sequence[Line]) -> bool:
    return sum(line.text.endswith((":", "：")) for line in side) * 2 >= len(side)
