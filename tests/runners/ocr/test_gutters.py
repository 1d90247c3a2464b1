"""Columns whose lines were detected as one, on pages of bars in place of words."""

from __future__ import annotations

import math
from random import Random

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from runners.contract import Float32
from runners.ocr.boxes import TextBoxes, text_boxes
from runners.ocr.gutters import divide_columns

Page = tuple[NDArray[np.uint8], list[Float32]]
"""Pixels, and the box of each line, grown on all sides as the detector's are."""

HEIGHT, PITCH, GROWN = 20, 30, 5


def justified(random: Random, width: int) -> list[tuple[int, int]]:
    """Return the begin and end of each word of a line that is ``width`` pixels wide."""
    words = [random.randint(12, 90)]
    while sum(words) + 7 * len(words) < width - 50:
        words.append(random.randint(12, 90))
    words[-1] = max(8, words[-1] - max(0, sum(words) + 7 * (len(words) - 1) - width))
    blank = (width - sum(words)) / max(1, len(words) - 1)
    starts = [round(sum(words[:number]) + blank * number) for number in range(len(words))]
    return [(start, start + word) for start, word in zip(starts, words, strict=True)]


def page(seed: int, *, columns: int = 2, gutter: int = 14, rows: int = 12, width: int = 330) -> Page:
    """Return a page of justified columns, its lines detected across all of them."""
    random = Random(seed)
    whole = columns * width + (columns - 1) * gutter
    pixels = np.full((rows * PITCH + 80, whole + 80, 3), 245, np.uint8)
    boxes = []
    for row in range(rows):
        top = 40 + row * PITCH
        for column in range(columns):
            for begin, end in justified(random, width):
                left = 40 + column * (width + gutter)
                pixels[top + 8 : top + HEIGHT, left + begin : left + end] = 30
        left, right, bottom = 40 - GROWN, 40 + whole + GROWN, top + HEIGHT + GROWN
        box = [(left, top - GROWN), (right, top - GROWN), (right, bottom), (left, bottom)]
        boxes.append(np.array(box, np.float32))
    return pixels, boxes


def divided(pixels: NDArray[np.uint8], boxes: list[Float32]) -> TextBoxes:
    return divide_columns(pixels, text_boxes(boxes, [0.9] * len(boxes), left_out=3))


def leaning(pixels: NDArray[np.uint8], boxes: list[Float32], degrees: float) -> Page:
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    turned = cv2.warpAffine(pixels, matrix, (width, height), borderValue=(245, 245, 245))
    return np.asarray(turned, np.uint8), [cv2.transform(box[np.newaxis], matrix)[0].astype(np.float32) for box in boxes]


def on_its_right_side(pixels: NDArray[np.uint8], boxes: list[Float32]) -> Page:
    """Turn a page by a quarter to the right; corners start at the top left of the box, as the detector's do."""
    height = pixels.shape[0]
    turned = [np.stack([height - 1 - box[:, 1], box[:, 0]], axis=1) for box in boxes]
    return np.ascontiguousarray(np.rot90(pixels, -1)), [np.roll(box, 1, axis=0).astype(np.float32) for box in turned]


@pytest.mark.parametrize("degrees", [-3.0, 0.0, 1.0])
@pytest.mark.parametrize("gutter", [12, 16, 28])
def test_lines_across_two_columns_are_divided_in_the_gutter(gutter: int, degrees: float) -> None:
    pixels, boxes = page(1, gutter=gutter)
    middle = 40 + 330 + gutter / 2
    found = divided(*leaning(pixels, boxes, degrees))
    assert len(found.boxes) == 2 * len(boxes)
    assert found.scores.tolist() == pytest.approx([0.9] * 24)
    assert found.left_out == 3
    back = cv2.getRotationMatrix2D((pixels.shape[1] / 2, pixels.shape[0] / 2), -degrees, 1)
    upright = cv2.transform(found.boxes, back)
    assert (np.abs(upright[0::2, [1, 2], 0] - middle) <= gutter / 2 + 2).all()
    assert (np.abs(upright[1::2, [0, 3], 0] - middle) <= gutter / 2 + 2).all()
    assert (upright[0::2, [1, 2], 0].max() < upright[1::2, [0, 3], 0].min()) or degrees


def test_three_columns_are_divided_twice() -> None:
    pixels, boxes = page(2, columns=3)
    assert len(divided(pixels, boxes).boxes) == 3 * len(boxes)


def test_columns_of_a_page_on_its_side_are_divided() -> None:
    pixels, boxes = page(3)
    found = divided(*on_its_right_side(pixels, boxes))
    assert len(found.boxes) == 2 * len(boxes)
    widths, heights = np.ptp(found.boxes[..., 0], axis=1), np.ptp(found.boxes[..., 1], axis=1)
    assert (heights > 10 * widths).all()
    assert (found.boxes[:, 0] == found.boxes.min(axis=1)).all()


def test_a_title_above_two_columns_stays_whole() -> None:
    pixels, boxes = page(4)
    pixels[48 : 40 + HEIGHT, 60:700] = 30
    found = divided(pixels, boxes)
    assert len(found.boxes) == 2 * len(boxes) - 1
    assert (found.boxes[0] == boxes[0]).all()


@pytest.mark.parametrize("seed", range(30))
def test_blanks_between_words_are_no_gutter(seed: int) -> None:
    pixels, boxes = page(seed, columns=1, rows=40, width=660)
    found = divided(pixels, boxes)
    assert (found.boxes == np.stack(boxes)).all()


def test_four_lines_are_too_few_for_columns() -> None:
    pixels, boxes = page(5, rows=4)
    assert len(divided(pixels, boxes).boxes) == 4


def test_boxes_that_reach_into_a_gutter_are_cut_at_it() -> None:
    pixels, boxes = page(6)
    left, right = (np.stack(boxes) for _ in range(2))
    left[:, [1, 2], 0], right[:, [0, 3], 0] = 40 + 330 + 10, 40 + 330 + 4
    found = divided(pixels, [*left, *right])
    assert len(found.boxes) == 24
    assert found.boxes[:12, :, 0].max() <= found.boxes[12:, :, 0].min()


def test_a_page_without_lines_has_none() -> None:
    assert len(divided(page(7)[0], []).boxes) == 0


def test_the_slope_of_a_leaning_line_is_kept() -> None:
    pixels, boxes = leaning(*page(8), 2.0)
    found = divided(pixels, boxes)
    along = found.boxes[:, 1] - found.boxes[:, 0]
    assert np.degrees(np.arctan2(along[:, 1], along[:, 0])) == pytest.approx([-2.0] * 24, abs=math.degrees(2 / 300))
