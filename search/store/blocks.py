"""Lines that go on in the next one: which lines of a picture are neighbours in one block of text.

A line goes on in the line below where that begins at the same edge, is as large and as near as lines of one paragraph
are, and where its first word would not have fitted behind the line before: the break was forced. Cells of a table,
which have others in their row, and lines of other columns never go on in each other.

Corners are fractions of width and height, so that lengths across and along cannot be compared. Everything is measured
in a line's own frame instead, from its first corner along its text and across it: that holds for any aspect ratio and
angle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from search.query.folding import CJK

Box: TypeAlias = Sequence["float | None"]
"""x1, y1 … x4, y4: clockwise from the top left of the text; None where the source keeps none."""
_Points: TypeAlias = NDArray[np.float64]

_NARROW = 0.55
"""Width of a letter or digit, in those of a Chinese character."""
_NEAREST, _FARTHEST = 0.55, 2.0
"""From the middle of a line to that of the next, in heights of its box."""
_SMALLEST, _LARGEST = 0.65, 1.5
"""Height of the next line's box, in heights of this one's."""
_INDENT, _OUTDENT = 4.5, 1.5
"""Distance at which the first line of a paragraph may begin inside of the next, or outside, in characters."""
_SHORT_CELL = 9.0
"""Characters of a line that may be a cell of a table."""
_ROOM = 1.0
"""Characters that a justified line may lack."""
_LOOK_AHEAD = 160
"""Lines, sorted downwards, among which the next one is looked for: a row of a large table has as many cells."""
_VERTICAL = 1.5
"""Height of the box of a vertical line over its width, in fractions of the picture, at least."""

_WORD = re.compile(rf"{CJK}|(?:(?!{CJK})\S)+")
_WIDE = re.compile(CJK)


def blocks(texts: Sequence[str], boxes: Sequence[Box]) -> list[list[int]]:
    """Return the numbers of lines that go on in each other, in order; only blocks of two lines and more.

    ``boxes``: (n, 8) corners. Where any is missing (None), no line goes on.
    """
    if len(texts) < 2 or len(boxes) != len(texts) or any(None in box for box in boxes):
        return []
    corners = _upright(texts, np.array(boxes, np.float64).reshape(-1, 4, 2))
    following = _following(texts, corners)
    preceded = set(following.values())
    found = []
    for first in sorted(set(following) - preceded):
        block = [first]
        while block[-1] in following:
            block.append(following[block[-1]])
        found.append(block)
    return found


def _upright(texts: Sequence[str], corners: _Points) -> _Points:
    """Return corners (n, 4, 2) that begin where the text does: those of vertical lines at the top right."""
    along, across = (np.linalg.norm(corners[:, end] - corners[:, 0], axis=1) for end in (1, 3))
    long = np.array([len(text.strip()) > 1 and _WIDE.search(text) is not None for text in texts])
    vertical = long & (across > _VERTICAL * along)
    turned: _Points = corners.copy()
    turned[vertical] = np.roll(corners[vertical], -1, axis=1)
    return turned


def _following(texts: Sequence[str], corners: _Points) -> dict[int, int]:
    """Return for each line that goes on the number of the one that it goes on in."""
    along, across = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
    heads, tails = (corners[:, 0] + corners[:, 3]) / 2, (corners[:, 1] + corners[:, 2]) / 2
    determinants = along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]
    units = np.array([_width(text) for text in texts])
    direction = np.median(across, axis=0)
    order = np.argsort(heads @ direction, kind="stable")
    following: dict[int, int] = {}
    taken: set[int] = set()
    reach: dict[int, _Points] = {}
    for place, line in enumerate(order.tolist()):
        if abs(determinants[line]) < 1e-12 or units[line] == 0:
            continue
        others = order[max(0, place - _LOOK_AHEAD) : place + _LOOK_AHEAD]
        others = others[others != line]

        def framed(points: _Points, line: int = line) -> _Points:
            """Return (n, 2): along the line in its characters, across it in its heights."""
            from_start = points - corners[line, 0]
            x = (from_start[:, 0] * across[line, 1] - from_start[:, 1] * across[line, 0]) / determinants[line]
            y = (from_start[:, 1] * along[line, 0] - from_start[:, 0] * along[line, 1]) / determinants[line]
            framed_points: _Points = np.stack([x * units[line], y], axis=1)
            return framed_points

        starts, ends = framed(heads[others]), framed(tails[others])
        heights = framed(corners[others, 3])[:, 1] - framed(corners[others, 0])[:, 1]
        distance = starts[:, 1] - 0.5
        in_row = (np.abs(distance) < 0.5) & ((starts[:, 0] > units[line]) | (ends[:, 0] < 0))
        near = (distance > _NEAREST) & (distance < _FARTHEST) & (heights > _SMALLEST) & (heights < _LARGEST)
        near &= (starts[:, 0] > -_INDENT) & (starts[:, 0] < _OUTDENT) & (ends[:, 0] > starts[:, 0])
        edge = framed(reach[line][None])[0, 0] if line in reach else 0.0
        for at in np.flatnonzero(near)[np.argsort(distance[near])][:1].tolist():
            other = int(others[at])
            end = max(edge, float(ends[at, 0]), float(units[line]))
            forced = end - units[line] < _first_word(texts[other]) + _ROOM
            cell = (
                units[line] < _SHORT_CELL and bool(in_row.any()) and _in_a_row(other, others, starts, ends, at, units)
            )
            if other not in taken and forced and not cell:
                following[line] = other
                taken.add(other)
                reach[other] = max(
                    (reach.get(line, tails[line]), tails[line], tails[other]), key=lambda p: framed(p[None])[0, 0]
                )
    return following


def _in_a_row(other: int, others: NDArray[np.intp], starts: _Points, ends: _Points, at: int, units: _Points) -> bool:
    """Return whether the line ``others[at]`` has a line beside it, in the frame of the line above."""
    beside = (np.abs(starts[:, 1] - starts[at, 1]) < 0.5) & (others != other)
    return bool((beside & ((starts[:, 0] > ends[at, 0]) | (ends[:, 0] < starts[at, 0]))).any())


def _width(text: str) -> float:
    wide = len(_WIDE.findall(text))
    return wide + (len(text.strip()) - wide) * _NARROW


def _first_word(text: str) -> float:
    word = _WORD.search(text)
    return _width(word[0]) if word else 0.0
