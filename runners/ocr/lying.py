"""Lines of figures that run down or up, of which the detector finds the figures one by one.

It joins lying Chinese, but of an amount on a picture turned by a quarter it often makes a stack of single figures,
which are then read as they lie. So a picture whose text is all in one such stack is looked at once more, turned.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from runners.contract import Float32, TextLines
from runners.ocr.direction import SURE

_MOST = 24
"""Boxes of a stack; a picture with more is a page."""
_WIDEST = 2.0
"""Width of a box, in its heights, above which it is a line that lies; a lying figure one has 1.8."""
_APART = 1.0
"""Distance between two boxes, in widths of the widest, above which they are not of one line."""


def is_stack(boxes: Float32) -> bool:
    """Return whether ``boxes``, (n, 4, 2) corners in pixels, may be parts of one line that runs down or up."""
    if not 2 <= len(boxes) <= _MOST:
        return False
    (left, top), (right, bottom) = boxes.min(axis=1).T, boxes.max(axis=1).T
    order = np.argsort(top)
    gaps = top[order][1:] - bottom[order][:-1]
    is_narrow = (right - left <= _WIDEST * (bottom - top)).all()
    return bool(is_narrow and left.max() < right.min() and gaps.max() <= _APART * (right - left).max())


def reads_better(turned: TextLines, first: TextLines) -> bool:
    """Return whether the turned picture was read without doubt, with as many characters in fewer lines.

    There may be one fewer, since a figure may have been found twice: by itself, and in its line.
    """
    return (
        0 < len(turned.texts) < max(2, len(first.texts))
        and float(turned.text_scores.min()) >= SURE
        and _characters(turned) >= max(2, _characters(first) - 1)
    )


def turned_back(lines: TextLines, width: int) -> TextLines:
    """Return ``lines`` of a picture turned to the left by a quarter in pixels of the picture, ``width`` wide.

    A text that runs down has the top left corner of its box first, and one that runs up its own, as ``TextLines`` has.
    """
    boxes = np.stack([width - 1 - lines.boxes[..., 1], lines.boxes[..., 0]], axis=-1)
    runs_down = boxes[:, 1, 1] > boxes[:, 0, 1]
    boxes[runs_down] = np.roll(boxes[runs_down], 1, axis=1)
    return replace(lines, boxes=boxes.astype(np.float32))


def _characters(lines: TextLines) -> int:
    return sum(len("".join(text.split())) for text in lines.texts)
