"""Costs of jobs, from the sizes of their pictures."""

from __future__ import annotations

import pytest

from runners.contract import OcrOptions
from runners.cost import clip_cost, faces_cost, ocr_cost, text_cost


def test_an_ordinary_picture_costs_one() -> None:
    assert ocr_cost(1440, 1080) == pytest.approx(1, abs=0.01)
    assert (clip_cost(1440, 1080), faces_cost(1440, 1080), text_cost()) == pytest.approx((1, 1, 1))


def test_what_takes_long_costs_much() -> None:
    assert ocr_cost(20_000, 50) > 3
    assert ocr_cost(600, 400, OcrOptions(0.5, 0.8, 10_000)) > 2
    assert ocr_cost(10_000, 10_000, OcrOptions(0.5, 0.8, 10_000)) > 20
    assert ocr_cost(10_000, 10_000) > 5
    assert faces_cost(10_000, 10_000) > 5
    assert clip_cost(10_000, 10_000) > 5


def test_no_picture_is_free_and_none_fails() -> None:
    for width, height in ((1, 1), (1, 100_000_000), (100_000_000, 1)):
        for cost in (ocr_cost, faces_cost, clip_cost):
            assert 0 < cost(width, height) < 1000
