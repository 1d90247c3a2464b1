"""Reading order of the lines of a picture, whichever way they run.

1. The page is turned so that most of its lines run to the right, or down, and then upright by their typical slope.
2. Neighbouring lines that run from top to bottom are one *block*, which takes part in the page as a single line would.
   Inside a block the lines are read from right to left, as vertical Chinese is; a page that lies on its right side is
   such a block too, whole: many of its lines are of letters or figures, which nobody writes from top to bottom.
3. What is upright now is ordered by rows and columns (``runners.ocr.columns``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runners.contract import Float32
from runners.ocr.columns import Line, order
from runners.ocr.recognition import is_upright

_MAX_SLOPE = math.radians(30)
_SIDE_BY_SIDE = 0.3
"""Share of the shorter line's height that two lines from top to bottom must have in common to be of one block."""
_LYING_PAGE = 0.25
"""Share of the length of lines from top to bottom that have no Chinese, from which on a page lies on its side."""
_ABOVE = 0.15
"""Part of a column's height, at both ends, in which a lying line is a title rather than between it and another."""
_CHINESE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

Boxes = NDArray[np.float64]
"""(n, 4, 2)."""
Indices = NDArray[np.intp]
"""(n,) numbers of boxes."""


def reading_order(boxes: Float32, texts: Sequence[str]) -> list[int]:
    """Return the indices of the lines in reading order.

    ``boxes``: (n, 4, 2), corners clockwise, y downwards, as of ``runners.contract.TextLines``. ``texts``: what each
    says (n); tells figures from words, and lines that run down from single characters. The result is a permutation of
    range(n); it depends on where the lines are, not on the order they come in.
    """
    if len(boxes) != len(texts):
        raise ValueError(f"{len(boxes)} boxes but {len(texts)} texts")
    placed = np.asarray(boxes, np.float64).reshape(-1, 4, 2)
    # A single character may be higher than wide, and runs nowhere.
    downwards = np.array([len(text) > 1 and is_upright(box) for box, text in zip(boxes, texts, strict=True)], bool)
    turned = _turn_upright(_turn_quarters(placed, downwards), downwards)
    lines, blocks = _lines(turned, texts), _blocks(turned, downwards, texts)
    members = {index: block for block in blocks for index in block}
    page = [line for line in lines if line.index not in members]
    page += [_enclosing([lines[index] for index in block], block[0]) for block in blocks]
    ordered: list[int] = []
    for line in order(page):
        ordered += _order_block(turned, texts, members[line.index]) if line.index in members else [line.index]
    return ordered


def _turn_quarters(boxes: Boxes, downwards: NDArray[np.bool_]) -> Boxes:
    """Turn the page so that most lines, by length, run to the right or down."""
    runs = np.where(downwards[:, np.newaxis], boxes[:, 3] - boxes[:, 0], boxes[:, 1] - boxes[:, 0])
    lengths = np.hypot(runs[:, 0], runs[:, 1])
    way = np.round(np.arctan2(runs[:, 1], runs[:, 0]) / (math.pi / 2)).astype(int) % 4
    right, down, left, up = (float(lengths[way == quarter].sum()) for quarter in range(4))
    if right + down >= left + up:
        return boxes
    # On its head, or on its left side.
    turn = [[-1, 0], [0, -1]] if left >= up else [[0, 1], [-1, 0]]
    return np.asarray(boxes @ np.array(turn, np.float64), np.float64)


def _turn_upright(boxes: Boxes, downwards: NDArray[np.bool_]) -> Boxes:
    """Turn the page by the median slope of its lines, weighted by length: of those that lie, else of those that run
    down.
    """
    along, down = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 0]
    lengths = np.hypot(along[:, 0], along[:, 1])
    slopes = np.arctan2(along[:, 1], along[:, 0])
    counted = (lengths > 2 * np.hypot(down[:, 0], down[:, 1])) & (np.abs(slopes) <= _MAX_SLOPE)
    if not counted.any():
        lengths, slopes = np.hypot(down[:, 0], down[:, 1]), np.arctan2(-down[:, 0], down[:, 1])
        counted = downwards & (np.abs(slopes) <= _MAX_SLOPE)
    if not counted.any():
        return boxes
    by_slope = np.argsort(slopes[counted], kind="stable")
    weight = np.cumsum(lengths[counted][by_slope])
    slope = float(slopes[counted][by_slope][np.searchsorted(weight, weight[-1] / 2)])
    cosine, sine = math.cos(slope), math.sin(slope)
    return np.asarray(boxes @ np.array([[cosine, -sine], [sine, cosine]]), np.float64)


def _lines(boxes: Boxes, texts: Sequence[str]) -> list[Line]:
    corners = np.hstack([boxes.min(axis=1), boxes.max(axis=1)]).tolist()
    return [
        Line(index, left, top, right, bottom, text)
        for index, ((left, top, right, bottom), text) in enumerate(zip(corners, texts, strict=True))
    ]


def _blocks(boxes: Boxes, downwards: NDArray[np.bool_], texts: Sequence[str]) -> list[list[int]]:
    """Return the blocks of lines that run down: of lines side by side with no lying line between them.

    Where the page lies on its side, lines below each other are of one block too.
    """
    (left, top), (right, bottom) = boxes.min(axis=1).T, boxes.max(axis=1).T
    lying = ~downwards & (right - left > bottom - top)
    least = _SIDE_BY_SIDE
    if (bottom - top)[downwards].sum() > (right - left)[lying].sum():
        foreign = downwards & np.array([_CHINESE.search(text) is None for text in texts])
        if (bottom - top)[foreign].sum() >= _LYING_PAGE * (bottom - top)[downwards].sum():
            least = -math.inf
        downwards = ~lying  # most of the page runs down, so what is neither high nor wide, a short line, does too
    waiting = np.flatnonzero(downwards)
    waiting = waiting[np.lexsort((bottom[waiting], right[waiting], top[waiting], left[waiting]))]
    blocks: list[list[int]] = []
    while len(waiting):
        block, found = [], [int(waiting[0])]
        waiting = waiting[1:]
        while found:
            one = found.pop()
            block.append(one)
            shared = np.minimum(bottom[one], bottom[waiting]) - np.maximum(top[one], top[waiting])
            heights = np.minimum(bottom[one] - top[one], bottom[waiting] - top[waiting])
            first, last = _free_width(one, np.flatnonzero(lying), (left, top, right, bottom))
            centres = (left[waiting] + right[waiting]) / 2
            near = (shared >= least * heights) & (centres > first) & (centres < last)
            found += waiting[near].tolist()
            waiting = waiting[~near]
        blocks.append(block)
    return blocks


def _free_width(one: int, lying: Indices, sides: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Return where the nearest lying lines beside the line ``one`` begin, to its left and to its right.

    ``sides``: left, top, right and bottom of all lines.
    """
    left, top, right, bottom = (side[lying] for side in sides)
    here = [float(side[one]) for side in sides]
    centres = (top + bottom) / 2
    margin = _ABOVE * (here[3] - here[1])
    beside = (centres > here[1] + margin) & (centres < here[3] - margin)
    middle = (here[0] + here[2]) / 2
    before, after = right[beside & (right <= middle)], left[beside & (left >= middle)]
    return float(before.max(initial=-math.inf)), float(after.min(initial=math.inf))


def _enclosing(lines: Sequence[Line], index: int) -> Line:
    """Return the box around ``lines`` as a line of its own, numbered ``index``."""
    left, top = min(line.left for line in lines), min(line.top for line in lines)
    right, bottom = max(line.right for line in lines), max(line.bottom for line in lines)
    return Line(index, left, top, right, bottom, "".join(sorted(line.text for line in lines)))


def _order_block(boxes: Boxes, texts: Sequence[str], block: Sequence[int]) -> list[int]:
    """Return the indices of the lines of a block as they are read: turned to the left, they are a page like another."""
    turned = boxes[block] @ np.array([[0, -1], [1, 0]], np.float64)
    return [block[line.index] for line in order(_lines(turned, [texts[index] for index in block]))]
