"""The scores of a reader's lines, held to those that are in the picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tools.bench.reading.drawings import Truth
from tools.harness.rendered import edit_distance

_COVERED, _FOUND = 0.8, 0.25
"""Least share of a line's ink that the boxes found there cover, and least intersection over union: detectors leave
white around a line, which of low figures is more than the ink.
"""

_ONE_CHARACTER = str.maketrans("￥", "¥")
"""TW-Kai draws both as wide, so that nobody can tell which is meant; search takes them for one character, too."""

_CHINESE, _LATIN = "[\u4e00-\u9fff]", "[0-9A-Za-z]"
_BORDER = re.compile(rf"(?<={_CHINESE})(\s*)(?={_LATIN})|(?<={_LATIN})(\s*)(?={_CHINESE})")

Box = NDArray[np.float64]
"""(4,): left, top, right, bottom in pixels."""


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of one picture."""

    characters: int
    """Of all lines, without blanks."""
    right: int
    """Characters less edit distance, of each line at least 0."""
    lines: int
    found: int
    """Lines whose box was found."""
    pairs: int
    """Neighbouring lines that were both read."""
    ordered: int
    """Of these, those that came in their order."""
    false_lines: int
    """Lines that were read where there is none."""
    blanks: int = 0
    """Blanks between Chinese and letters or digits, in lines whose characters were all read right."""
    blanks_read: int = 0
    joins: int = 0
    """Places in these lines where Chinese meets letters or digits without a blank."""
    blanks_added: int = 0
    """Of these, those where a blank was read."""


def score(lines: Sequence[Truth], read: Sequence[tuple[str, Sequence[Sequence[float]]]]) -> Score:
    """Return the score of what was ``read``: each line is given to the true one in which its middle lies."""
    boxes = [_box(np.asarray(corners, float)) for _, corners in read]
    truths = [_box(line.quad) for line in lines]
    parts: list[list[int]] = [[] for _ in lines]
    false_lines = 0
    for number, box in enumerate(boxes):
        holding = [place for place, truth in enumerate(truths) if _holds(truth, box)]
        if holding:
            parts[max(holding, key=lambda place: _overlap(truths[place], boxes[number]))].append(number)
        else:
            false_lines += 1
    characters = right = found = 0
    borders: list[tuple[bool, bool]] = []
    for line, truth, numbers in zip(lines, truths, parts, strict=True):
        text = " ".join(read[number][0] for number in numbers)
        wanted, got = ("".join(one.translate(_ONE_CHARACTER).split()) for one in (line.text, text))
        if got == wanted:
            borders += zip(_blanks(line.text), _blanks(text), strict=True)
        characters += len(wanted)
        right += max(0, len(wanted) - edit_distance(got, wanted))
        found += bool(numbers) and _is_found(truth, _around([boxes[number] for number in numbers]))
    pairs = [(one, other) for one, other in pairwise(parts) if one and other]
    ordered = sum(max(one) < min(other) for one, other in pairs)
    return Score(
        *(characters, right, len(lines), found, len(pairs), ordered, false_lines),
        blanks=sum(is_there for is_there, _ in borders),
        blanks_read=sum(is_there and is_read for is_there, is_read in borders),
        joins=sum(not is_there for is_there, _ in borders),
        blanks_added=sum(is_read and not is_there for is_there, is_read in borders),
    )


def mean(scores: Sequence[Score], part: str) -> float:
    """Return ``accuracy``, ``recall`` or ``order`` over all pictures, 0 to 1."""
    counted, of = {"accuracy": ("right", "characters"), "recall": ("found", "lines"), "order": ("ordered", "pairs")}[
        part
    ]
    return float(sum(getattr(one, counted) for one in scores) / max(1, sum(getattr(one, of) for one in scores)))


def _blanks(text: str) -> list[bool]:
    """Return for each place where Chinese meets letters or digits whether a blank stands there."""
    return [bool(found[0]) for found in _BORDER.finditer(text)]


def _box(corners: NDArray[np.float64]) -> Box:
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def _around(boxes: Sequence[Box]) -> Box:
    stacked = np.stack(boxes)
    return np.concatenate([stacked[:, :2].min(axis=0), stacked[:, 2:].max(axis=0)])


def _holds(truth: Box, box: Box) -> bool:
    middle = (box[:2] + box[2:]) / 2
    return bool((middle >= truth[:2]).all() and (middle <= truth[2:]).all())


def _is_found(truth: Box, box: Box) -> bool:
    return bool(_shared(truth, box) >= _COVERED * _area(truth) and _overlap(truth, box) >= _FOUND)


def _overlap(one: Box, other: Box) -> float:
    """Return the intersection over union."""
    shared = _shared(one, other)
    return shared / (_area(one) + _area(other) - shared)


def _shared(one: Box, other: Box) -> float:
    return float(np.prod((np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])).clip(0)))


def _area(box: Box) -> float:
    return float(np.prod(box[2:] - box[:2]))
