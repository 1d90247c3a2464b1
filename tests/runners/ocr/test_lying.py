"""Stacks of figures that may be one line that runs down or up, on boxes alone."""

from __future__ import annotations

import numpy as np
import pytest

from runners.contract import Float32, TextLines
from runners.ocr.lying import is_stack, reads_better, turned_back

Sides = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def boxes_of(*sides: Sides) -> Float32:
    corners = [[(x1, y1), (x2, y1), (x2, y2), (x1, y2)] for x1, y1, x2, y2 in sides]
    return np.array(corners, np.float32).reshape(-1, 4, 2)


def lines(*texts: str, score: float = 0.95, box: Sides = (0, 0, 1, 1)) -> TextLines:
    scores = np.full(len(texts), score, np.float32)
    return TextLines(texts, boxes_of(*[box] * len(texts)), scores, scores)


def test_figures_below_each_other_are_a_stack_in_whichever_order_they_come() -> None:
    assert is_stack(boxes_of((10, 120, 80, 170), (12, 10, 82, 60), (60, 65, 84, 92)))


@pytest.mark.parametrize(
    "sides",
    [
        [],
        [(10, 10, 80, 60)],
        [(10, 10, 210, 60), (10, 65, 210, 115)],
        [(10, 10, 80, 60), (90, 10, 160, 60)],
        [(10, 10, 80, 60), (10, 200, 80, 250)],
        [(10, 60 * row, 80, 60 * row + 50) for row in range(25)],
    ],
    ids=["nothing", "one", "lines", "beside each other", "far from each other", "a whole page"],
)
def test_other_boxes_are_no_stack(sides: list[Sides]) -> None:
    assert not is_stack(boxes_of(*sides))


def test_a_turned_reading_counts_if_it_is_sure_and_whole() -> None:
    first = lines("3", "8", "3")
    assert reads_better(lines("3,883"), first)
    assert reads_better(lines("38"), lines())
    assert not reads_better(lines("3,883", score=0.89), first)
    assert reads_better(lines("9,425"), lines("6", "9,425"))
    assert not reads_better(lines("3"), first)
    assert not reads_better(lines("3", "8", "8"), first)
    assert not reads_better(lines("8"), lines())
    assert not reads_better(lines(), first)


def test_boxes_are_turned_back_with_the_corner_that_is_first() -> None:
    """A picture 100 wide and 60 high, turned to the left: 60 wide and 100 high."""
    down = turned_back(lines("12", box=(10, 70, 50, 90)), 100)
    np.testing.assert_array_equal(down.boxes[0], [(9, 10), (29, 10), (29, 50), (9, 50)])
    own = lines("12", box=(10, 70, 50, 90))
    on_its_head = TextLines(own.texts, np.roll(own.boxes, 2, axis=1), own.box_scores, own.text_scores)
    up = turned_back(on_its_head, 100)
    np.testing.assert_array_equal(up.boxes[0], [(9, 50), (9, 10), (29, 10), (29, 50)])
