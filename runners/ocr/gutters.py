"""Gutters between columns whose lines were detected as one.

The detector joins words that stand a character or two apart, and so it joins the lines of justified columns with as
narrow a gutter. What tells such a gutter from blanks between words is that many lines below each other are blank at the
same place, which these almost never are. Lines are divided there, and boxes that reach into the gutter, since they are
grown on all sides, are cut at it.

Only pictures with several lines as long as two columns, or with as many pairs, are looked at; others cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from runners.contract import Float32
from runners.ocr.boxes import TextBoxes, text_boxes
from runners.ocr.recognition import is_upright

_COLUMN = 7.0
"""Least width of a column, in heights of a line's box."""
_LYING = 2.0
"""Width of a box, in its heights, from which on it is looked at."""
_LEAST = 0.2
"""Least width of a gutter, in heights."""
_ROWS_OF_COLUMNS = 5
"""Rows that a gutter goes through, at least."""
_CHANCE = 1e-5
"""Number of such gutters to be expected in the same rows if words stood anywhere, at most."""
_BELOW = 3.0
"""Distance of two lines that are below each other, in heights, at most."""
_BESIDE = 0.4
"""Distance across the lines of two that are beside each other, in heights, at most."""
_NARROW = 2.0
"""Width of a gutter, in heights, beyond which grown boxes do not reach over it."""
_LINE_HEIGHT, _EDGE = 24, 4
"""Pixels to which a line is scaled in height, and those at its top and bottom that others may reach into."""
_MAX_PATCH_SIDE = 32_000
"""Pixels: OpenCV's warp refuses pictures with a side of 32,767 and more."""
_BLANK = 0.35
"""Contrast of a pixel's column, in contrasts of most, below which it is blank."""

Interval = tuple[float, float]
"""Begin and end, in pixels along the lines."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A line in the directions of the page."""

    index: int
    start: float
    end: float
    """Along the lines, in pixels."""
    place: float
    """Of its middle, across the lines, in pixels."""
    height: float
    blanks: tuple[Interval, ...]
    """Intervals in which it is blank, before its start and after its end too."""

    def is_crossed(self, gutter: Interval) -> bool:
        """Return whether there is a column on both sides of ``gutter``."""
        least = _COLUMN * self.height
        return gutter[0] - self.start >= least and self.end - gutter[1] >= least


def divide_columns(pixels: NDArray[np.uint8], found: TextBoxes) -> TextBoxes:
    """Return ``found`` with the boxes that reach over a gutter divided, of a picture (h, w, 3) uint8 RGB."""
    lying = [not is_upright(box) for box in found.boxes]
    # A page on its side: its lines run down or up, and a gutter is one either way.
    turn = sum(lying) * 2 < len(lying)
    boxes = np.roll(found.boxes, -1, axis=1) if turn else found.boxes
    lines = _lines(pixels, boxes)
    cuts: dict[int, list[Interval]] = {}
    for run, gutters in _runs(lines):
        for line in run:
            cuts.setdefault(line.index, []).extend(gutters)
    if not cuts:
        return found
    starts = {line.index: (line.start, line.end) for line in lines}
    divided: list[Float32] = []
    scores: list[float] = []
    for index, (box, score) in enumerate(zip(boxes, found.scores.tolist(), strict=True)):
        parts = _parts(box, *starts[index], cuts[index]) if index in cuts else [box]
        divided += parts
        scores += [score] * len(parts)
    result = text_boxes(divided, scores, found.left_out)
    return text_boxes(list(np.roll(result.boxes, 1, axis=1)), scores, found.left_out) if turn else result


def _lines(pixels: NDArray[np.uint8], boxes: Float32) -> list[_Line]:
    """Return the lines that lie, in the order in which they are below each other; none where there are no columns."""
    along, down = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 0]
    widths, heights = np.hypot(along[:, 0], along[:, 1]), np.maximum(np.hypot(down[:, 0], down[:, 1]), 1)
    is_column, is_joined = (widths >= least * _COLUMN * heights for least in (1, 2))
    if is_joined.sum() < _ROWS_OF_COLUMNS and is_column.sum() < 2 * _ROWS_OF_COLUMNS:
        return []
    turned = np.arctan2(along[:, 1], along[:, 0])[is_column]
    slope = float(np.median((turned + math.pi / 4) % math.pi - math.pi / 4))
    run = np.array([math.cos(slope), math.sin(slope)])
    lines = []
    for index in np.flatnonzero(widths >= _LYING * heights):
        box = boxes[index].astype(np.float64)
        start, end = float((box[[0, 3]] @ run).mean()), float((box[[1, 2]] @ run).mean())
        height = float(heights[index])
        place = float(box.mean(axis=0) @ (-run[1], run[0]))
        if end > start:
            inner = [(start + left, start + right) for left, right in _blanks(pixels, box, height)]
            blanks = tuple(_joined([(-math.inf, start), *inner, (end, math.inf)]))
            lines.append(_Line(int(index), start, end, place, height, blanks))
    return sorted(lines, key=lambda line: (line.place, line.start))


def _blanks(pixels: NDArray[np.uint8], box: NDArray[np.float64], height: float) -> list[Interval]:
    """Return where the line in ``box``, (4, 2), is blank, in pixels from its start."""
    left, top = np.maximum(np.floor(box.min(axis=0)).astype(int), 0)
    right, bottom = np.ceil(box.max(axis=0)).astype(int) + 1
    patch = pixels[top:bottom, left:right]
    if max(patch.shape) > _MAX_PATCH_SIDE:
        return []
    scale = _LINE_HEIGHT / height
    width = max(1, round(float(np.linalg.norm(box[1] - box[0])) * scale))
    corners = (box[[0, 1, 3]] - (left, top)).astype(np.float32)
    matrix = cv2.getAffineTransform(corners, np.array([[0, 0], [width, 0], [0, _LINE_HEIGHT]], np.float32))
    line = cv2.warpAffine(patch, matrix, (width, _LINE_HEIGHT), borderMode=cv2.BORDER_REPLICATE)[_EDGE:-_EDGE, :, 1]
    contrast = line.max(axis=0).astype(np.int16) - line.min(axis=0)
    most = np.partition(contrast, width * 4 // 5)[width * 4 // 5]
    is_blank = contrast <= _BLANK * most
    edges = np.flatnonzero(np.diff(is_blank, prepend=False, append=False)).reshape(-1, 2)
    # Narrow ones count at the ends alone, where there is more white.
    is_wide = (edges[:, 1] - edges[:, 0] >= _LEAST * _LINE_HEIGHT) | (edges[:, 0] == 0) | (edges[:, 1] == width)
    return [(begin, end) for begin, end in (edges[is_wide] / scale).tolist()]


def _joined(intervals: Sequence[Interval]) -> Iterator[Interval]:
    """Yield ``intervals``, which come in order, with those joined that touch."""
    begin, end = intervals[0]
    for other in intervals[1:]:
        if other[0] > end:
            yield begin, end
            begin = other[0]
        end = max(end, other[1])
    yield begin, end


def _runs(lines: Sequence[_Line]) -> Iterator[tuple[Sequence[_Line], list[Interval]]]:
    """Yield the runs of lines below each other with gutters through all of them, and these."""
    place = done = 0
    while place < len(lines):
        gutters = [blank for blank in lines[place].blanks if lines[place].is_crossed(blank)]
        gutters = gutters or list(_between(*lines[place : place + 2]))
        end, gutters = _extended(lines, place, len(lines), gutters)
        start, gutters = _extended(lines, place, done - 1, gutters)
        run = lines[start + 1 : end]
        chosen = [gutter for gutter in gutters if _is_gutter(run, gutter)]
        if chosen:
            yield run, chosen
            done = end
        place = end if chosen else place + 1


def _between(one: _Line, other: _Line | None = None) -> Iterator[Interval]:
    """Yield the narrow gutter between two lines that were not joined, if they stand beside each other as columns do."""
    if other is None or abs(other.place - one.place) > _BESIDE * one.height:
        return
    left, right = sorted((one, other), key=lambda line: line.start)
    gutter = left.blanks[-1][0], right.blanks[0][1]
    is_narrow = _LEAST * one.height <= gutter[1] - gutter[0] <= _NARROW * one.height
    if is_narrow and min(gutter[0] - left.start, right.end - gutter[1]) >= _COLUMN * one.height:
        yield gutter


def _extended(lines: Sequence[_Line], place: int, bound: int, gutters: list[Interval]) -> tuple[int, list[Interval]]:
    """Return the first line from ``place`` on towards ``bound`` that none of ``gutters`` goes through, and what is left
    of these before it.
    """
    first, step = lines[place], 1 if bound > place else -1
    place += step
    while gutters and place != bound and abs(lines[place].place - lines[place - step].place) <= _BELOW * first.height:
        narrower = list(_common(gutters, lines[place], _LEAST * first.height))
        if not narrower:
            break
        gutters, place = narrower, place + step
    return place, gutters


def _common(gutters: Sequence[Interval], line: _Line, least: float) -> Iterator[Interval]:
    """Yield the parts of ``gutters`` at which ``line`` is blank too, if at least ``least`` wide."""
    for begin, end in gutters:
        for left, right in line.blanks:
            if min(end, right) - max(begin, left) >= least:
                yield max(begin, left), min(end, right)


def _is_gutter(run: Sequence[_Line], gutter: Interval) -> bool:
    """Return whether ``gutter`` is no accident: so many rows would not be blank there by chance.

    A row is a line that was detected as one, or a pair of lines that were not.
    """
    width, length = gutter[1] - gutter[0], sum(line.end - line.start for line in run)
    crossed = sum(line.is_crossed(gutter) for line in run)
    rows = crossed + min(sum(line.end <= gutter[1] for line in run), sum(line.start >= gutter[0] for line in run))
    blanks = (end - begin for line in run for begin, end in line.blanks if line.start < begin and end < line.end)
    # That a line is blank at a place so wide, or nearly.
    chance = sum(max(0.0, blank - width + _LEAST * run[0].height) for blank in blanks) / length
    return rows >= _ROWS_OF_COLUMNS and chance**rows * length / len(run) / width <= _CHANCE


def _parts(box: Float32, start: float, end: float, gutters: Sequence[Interval]) -> list[Float32]:
    """Return what of ``box``, (4, 2), is between ``gutters``. ``start`` and ``end``: of the line, as of ``_Line``."""
    parts = []
    begin = start
    for left, right in (*sorted(gutters), (math.inf, math.inf)):
        if min(left, end) > begin:
            shares = [(place - start) / (end - start) for place in (begin, min(left, end))]
            top = [box[0] + share * (box[1] - box[0]) for share in shares]
            bottom = [box[3] + share * (box[2] - box[3]) for share in shares]
            parts.append(np.round([*top, *bottom[::-1]]).astype(np.float32))
        begin = max(begin, right)
    return parts or [box]
