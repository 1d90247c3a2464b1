"""Boxes of regions in a map of probabilities, held to RapidOCR's own."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rapidocr.ch_ppocr_det.utils import DBPostProcess

from runners.ocr.boxes import clockwise, find_boxes


def random_map(seed: int, size: tuple[int, int] = (480, 640)) -> NDArray[np.float32]:
    """Return blurred turned rectangles, as a detector answers to lines of text."""
    random = np.random.default_rng(seed)
    drawn = np.zeros(size, np.float32)
    for _ in range(random.integers(1, 12)):
        centre = random.uniform((0, 0), size[::-1])
        sides, angle = random.uniform((4, 3), (200, 24)), random.choice([0.0, random.uniform(-90, 90)])
        corners = cv2.boxPoints((centre.tolist(), sides.tolist(), float(angle)))
        cv2.fillPoly(drawn, [corners.round().astype(np.int32)], float(random.uniform(0.4, 1)))
    return np.asarray(cv2.GaussianBlur(drawn, (5, 5), 0.8), np.float32)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_boxes_are_those_of_rapidocr(seed: int, scale: float) -> None:
    probabilities = random_map(seed)
    height, width = round(probabilities.shape[0] * scale), round(probabilities.shape[1] * scale)
    theirs = DBPostProcess(
        thresh=0.3, box_thresh=0.5, max_candidates=1000, unclip_ratio=1.6, score_mode="fast", use_dilation=True
    )
    boxes, scores = theirs(probabilities[None, None], (height, width))
    found = find_boxes(probabilities, (width, height), 0.5, 1000)
    assert len(found.boxes) == len(boxes)
    np.testing.assert_allclose(found.scores, np.asarray(scores, np.float32).reshape(-1), atol=1e-6)
    for ours, reference in zip(found.boxes, np.asarray(boxes, np.float32).reshape(-1, 4, 2), strict=True):
        # Which corner comes first differs where a box leans.
        apart = np.abs(ours[:, None] - reference[None]).max(axis=2)
        assert apart.min(axis=0).max() <= 2 * scale
        assert apart.min(axis=1).max() <= 2 * scale


def test_an_empty_map_has_no_boxes() -> None:
    found = find_boxes(np.zeros((64, 96), np.float32), (96, 64), 0.5, 1000)
    assert found.boxes.shape == (0, 4, 2)
    assert found.scores.shape == (0,)


def many_regions() -> NDArray[np.float32]:
    """Return a map of 64 x 64 regions."""
    probabilities = np.zeros((960, 960), np.float32)
    for top in range(0, 960, 15):
        for left in range(0, 960, 15):
            probabilities[top : top + 8, left : left + 8] = 0.9
    return probabilities


def test_boxes_stay_inside_the_picture_and_are_bounded_in_number() -> None:
    found = find_boxes(many_regions(), (1920, 1920), 0.5, 1000)
    assert len(found.boxes) == 1000
    assert found.left_out == 64 * 64 - 1000
    assert found.boxes.min() >= 0
    assert found.boxes.max() <= 1919


def test_of_too_many_regions_some_are_looked_at_everywhere() -> None:
    found = find_boxes(many_regions(), (960, 960), 0.5, 1000)
    rows = np.histogram(found.boxes[:, 0, 1], bins=8, range=(0, 960))[0]
    columns = np.histogram(found.boxes[:, 0, 0], bins=8, range=(0, 960))[0]
    for counts in (rows, columns):
        assert counts.min() > 0.8 * 1000 / 8


def test_specks_do_not_count_among_too_many_regions() -> None:
    probabilities = np.zeros((960, 960), np.float32)
    probabilities[10:950:6, 500:950:6] = 0.9
    for top in range(0, 960, 30):
        probabilities[top : top + 10, 20:400] = 0.9
    found = find_boxes(probabilities, (960, 960), 0.5, 100)
    assert (len(found.boxes), found.left_out) == (32, 0)


@pytest.mark.parametrize("sides", [(300, 20), (20, 300), (60, 50)], ids=["lying", "upright", "nearly square"])
@pytest.mark.parametrize("angle", [-40, -3, -0.5, 0, 0.5, 3, 20, 40])
@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("sense", [1, -1])
def test_the_corners_of_a_leaning_box_begin_at_its_own_top_left(
    sides: tuple[int, int], angle: float, first: int, sense: int
) -> None:
    width, height = sides
    upright = np.array([[0, 0], [width, 0], [width, height], [0, height]]) - np.array(sides) / 2
    turn = np.radians(angle)
    leaning = upright @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + 500
    given = np.roll(leaning, first, axis=0)[::sense]
    np.testing.assert_allclose(clockwise(given), leaning)
