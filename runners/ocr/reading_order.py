"""Reading order of the lines of a page: top to bottom, left to right, column by column.

A recursive cut of the page into rows and columns after Nagy and Seth's XY-cut (1984), on boxes of whole lines rather
than on pixels:

1. The page is turned upright by the typical slope of its lines.
2. Lines that share a height form a *row*.
3. A run of rows with a white gutter through all of them is two *columns*, if both sides look like running text. Each
   side is ordered on its own, so that three columns work too. Any other row is read from left to right.

Sides look like running text where their lines do not share rows. Where they do, it may be a table or a receipt, to be
read row by row: it counts as one if a side consists of short lines or mostly of figures (amounts, dates), or if the
left side mostly ends in colons.

Limits: a table of long words without figures is read by columns, a two-column list of very short words by rows.
Vertical Chinese is ordered from left to right, as everything else. Text that flows around a picture counts as a column
only while it has a gutter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray

from runners.contract import Float32

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
_MAX_SLOPE = math.radians(30)


@dataclass(frozen=True, slots=True)
class _Line:
    index: int
    left: float
    top: float
    right: float
    bottom: float
    text: str

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def centre(self) -> float:
        return (self.top + self.bottom) / 2


def reading_order(boxes: Float32, texts: Sequence[str]) -> list[int]:
    """Return the indices of the lines in reading order.

    ``boxes``: (n, 4, 2), corners clockwise from the top left of each text, y downwards. ``texts``: what each says (n);
    tells figures from words. The result is a permutation of range(n); it depends on where the lines are, not on the
    order they come in.
    """
    if len(boxes) != len(texts):
        raise ValueError(f"{len(boxes)} boxes but {len(texts)} texts")
    upright = _turn_upright(np.asarray(boxes, np.float64).reshape(-1, 4, 2))
    low, high = upright.min(axis=1), upright.max(axis=1)
    corners = np.hstack([low, high]).tolist()
    lines = [
        _Line(index, left, top, right, bottom, text)
        for index, ((left, top, right, bottom), text) in enumerate(zip(corners, texts, strict=True))
    ]
    return [line.index for line in _order(lines)]


def _turn_upright(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn the page by the median slope of its lines, weighted by length; upright lines are not counted."""
    along, down = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 0]
    lengths = np.hypot(along[:, 0], along[:, 1])
    slopes = np.arctan2(along[:, 1], along[:, 0])
    lying = (lengths > 2 * np.hypot(down[:, 0], down[:, 1])) & (np.abs(slopes) <= _MAX_SLOPE)
    if not lying.any():
        return boxes
    order = np.argsort(slopes[lying], kind="stable")
    weight = np.cumsum(lengths[lying][order])
    slope = float(slopes[lying][order][np.searchsorted(weight, weight[-1] / 2)])
    cosine, sine = math.cos(slope), math.sin(slope)
    return np.asarray(boxes @ np.array([[cosine, -sine], [sine, cosine]]), np.float64)


def _order(lines: list[_Line]) -> list[_Line]:
    rows = _rows(lines)
    typical = median(line.height for line in lines) if lines else 0.0
    ordered: list[_Line] = []
    start = 0
    while start < len(rows):
        end, gutter = _longest_run(rows, start, typical)
        run = [line for row in rows[start:end] for line in row]
        left = [line for line in run if line.right <= gutter]
        right = [line for line in run if line.right > gutter]
        if left and right and _are_columns(left, right):
            ordered += _order(left) + _order(right)
        else:
            ordered += run
        start = end
    return ordered


def _rows(lines: Sequence[_Line]) -> list[list[_Line]]:
    """Return the rows from top to bottom, each from left to right."""
    rows: list[list[_Line]] = []
    for line in sorted(lines, key=lambda line: (line.centre, line.left, line.top, line.right, line.text)):
        if rows and _same_row(rows[-1][-1], line) and _same_row(rows[-1][0], line):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: (line.left, line.centre, line.right, line.text)) for row in rows]


def _same_row(one: _Line, other: _Line) -> bool:
    return _shared(one, other) > _SAME_ROW * max(one.height, other.height)


def _shared(one: _Line, other: _Line) -> float:
    """Return the height that two lines have in common; negative where one is below the other."""
    return min(one.bottom, other.bottom) - max(one.top, other.top)


def _longest_run(rows: Sequence[Sequence[_Line]], start: int, typical: float) -> tuple[int, float]:
    """Return the end of the longest run of rows from ``start`` on with a common gutter, and the gutter's left edge.

    A gutter is at least as wide as lines are high (``typical``); where several remain, it is the widest. Where there is
    none the run is one row, and the edge is infinite.
    """
    inked: list[tuple[float, float]] = []
    end, gutter = start + 1, math.inf
    for place in range(start, len(rows)):
        inked = _merge([*inked, *((line.left, line.right) for line in rows[place])])
        gaps = [(after[0] - before[1], before[1]) for before, after in pairwise(inked)]
        wide = [gap for gap in gaps if gap[0] >= typical]
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


def _are_columns(left: Sequence[_Line], right: Sequence[_Line]) -> bool:
    fewer, more = sorted((left, right), key=len)
    beside = sum(any(_shared(line, other) > 0 for other in more) for line in fewer) / len(fewer)
    if beside < _BESIDE:
        return False
    aligned = sum(any(_same_row(line, other) for other in more) for line in fewer) / len(fewer)
    if aligned < _ALIGNED:
        return len(fewer) >= 2
    is_table = any(_is_short(side) or _is_figures(side) for side in (left, right)) or _is_labels(left)
    return len(fewer) >= 3 and not is_table


def _is_short(side: Sequence[_Line]) -> bool:
    return median((line.right - line.left) / max(line.height, 1e-9) for line in side) < _LONG


def _is_figures(side: Sequence[_Line]) -> bool:
    figures = sum(sum(map(str.isalpha, line.text)) * 2 < len(line.text.replace(" ", "")) for line in side)
    return figures * 2 >= len(side)


def _is_labels(side: Sequence[_Line]) -> bool:
    return sum(line.text.endswith((":", "：")) for line in side) * 2 >= len(side)
