"""Boxes of regions in a map of probabilities, held to RapidOCR's own."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rapidocr.ch_ppocr_det.utils import DBPostProcess

from runners.ocr.boxes import MAX_BOXES, find_boxes


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
    found = find_boxes(probabilities, (width, height), 0.5)
    assert len(found.boxes) == len(boxes)
    np.testing.assert_allclose(found.scores, np.asarray(scores, np.float32).reshape(-1), atol=1e-6)
    for ours, reference in zip(found.boxes, np.asarray(boxes, np.float32).reshape(-1, 4, 2), strict=True):
        # Which corner of a steep box comes first turns on one pixel.
        assert min(np.abs(np.roll(ours, turn, axis=0) - reference).max() for turn in range(4)) <= 2 * scale


def test_an_empty_map_has_no_boxes() -> None:
    found = find_boxes(np.zeros((64, 96), np.float32), (96, 64), 0.5)
    assert found.boxes.shape == (0, 4, 2)
    assert found.scores.shape == (0,)


def test_boxes_stay_inside_the_picture_and_are_bounded_in_number() -> None:
    probabilities = np.zeros((960, 960), np.float32)
    for top in range(0, 960, 15):
        for left in range(0, 960, 15):
            probabilities[top : top + 8, left : left + 8] = 0.9
    found = find_boxes(probabilities, (1920, 1920), 0.5)
    assert len(found.boxes) == MAX_BOXES
    assert found.boxes.min() >= 0
    assert found.boxes.max() <= 1919
