"""The statistics of the comparison: figures, medians over rounds, ratios, growth, agreement, verdicts."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.bench.agreement import cosines, downwards, faces_alike, overlaps
from tools.bench.figures import Figures, figures, median, medians, ratios, system_share
from tools.bench.load import Load
from tools.bench.memory import growth
from tools.bench.overview import speed_verdicts
from tools.bench.processes import CpuTime
from tools.bench.verdicts import at_least, at_most, verdict_table

FIGURES = Figures(
    per_second=4, p50=200, p95=300, p99=400, requests=10, failures=1, cpu=50, system=2, pss=100, generator=1
)
SECOND = CpuTime(0.75, 0.25)
POSITIVE = st.floats(0.001, 1000)


@settings(max_examples=30)
@given(st.lists(POSITIVE, min_size=1, max_size=50), st.lists(POSITIVE, max_size=20), POSITIVE)
def test_figures_do_not_depend_on_which_caller_saw_which_latency(
    one: list[float], other: list[float], seconds: float
) -> None:
    split = figures(Load((tuple(one), tuple(other)), (), seconds), server_cpu=SECOND, generator_cpu=0.5, pss=7)
    joined = figures(Load((tuple(other + one),), (), seconds), server_cpu=SECOND, generator_cpu=0.5, pss=7)
    assert split == joined
    assert split.p50 <= split.p95 <= split.p99 <= max(one + other) * 1000 * (1 + 1e-9)
    assert split.requests == len(one) + len(other)
    assert split.per_second == pytest.approx(split.requests / seconds)
    assert split.cpu == pytest.approx(1000 / split.requests)
    assert split.system == pytest.approx(250 / split.requests)


def test_a_load_without_answers_has_no_latencies_and_no_cost_per_request() -> None:
    found = figures(Load(((),), ("it failed",), 2), server_cpu=SECOND, generator_cpu=0, pss=1)
    assert (found.per_second, found.requests, found.failures) == (0, 0, 1)
    assert all(map(math.isnan, (found.p50, found.p99, found.cpu, found.system)))


@settings(max_examples=30)
@given(st.lists(POSITIVE, min_size=1, max_size=9), st.randoms())
def test_medians_lie_between_the_rounds_in_any_order_and_counts_are_summed(rates: list[float], chance: Any) -> None:
    rounds = [replace(FIGURES, per_second=rate) for rate in rates]
    found = medians(rounds)
    chance.shuffle(rounds)
    assert medians(rounds) == found
    assert min(rates) <= found.per_second <= max(rates)
    assert found.per_second == statistics.median(rates)
    assert (found.requests, found.failures) == (10 * len(rates), len(rates))


@settings(max_examples=30)
@given(st.lists(POSITIVE, min_size=1, max_size=9), st.floats(0.1, 10), POSITIVE)
def test_a_slow_spell_that_meets_both_servers_alike_leaves_the_ratio_as_it_is(
    rates: list[float], factor: float, slow: float
) -> None:
    peer = [replace(FIGURES, per_second=rate) for rate in rates]
    ours = [replace(FIGURES, per_second=rate * factor) for rate in rates]
    peer[0], ours[0] = (replace(one, per_second=one.per_second * slow) for one in (peer[0], ours[0]))
    assert ratios(ours, peer, "per_second") == pytest.approx([factor] * len(rates))


def test_rounds_without_a_figure_are_left_out_of_medians_and_ratios() -> None:
    known, unknown = replace(FIGURES, cpu=20), replace(FIGURES, cpu=math.nan)
    assert medians([known, unknown, known]).cpu == 20
    assert math.isnan(medians([unknown]).cpu)
    assert ratios([known, known], [unknown, known], "cpu") == [1]
    assert ratios([known], [replace(FIGURES, cpu=0)], "cpu") == []
    assert math.isnan(median([]))
    assert system_share([known, unknown, replace(FIGURES, cpu=10)]) == pytest.approx(0.15)
    assert math.isnan(system_share([unknown, replace(FIGURES, cpu=0, system=0)]))


@settings(max_examples=30)
@given(st.lists(st.floats(10, 1000), min_size=1, max_size=60), st.floats(0.5, 2))
def test_growth_does_not_depend_on_the_unit(sizes: list[float], unit: float) -> None:
    first, last, peak, percent = growth(list(enumerate(sizes)))
    assert growth([(at, size * unit) for at, size in enumerate(sizes)])[3] == pytest.approx(percent, abs=1e-6)
    assert peak == max(sizes)
    assert last == pytest.approx(first * (1 + percent / 100))


def test_growth_is_from_the_first_tenth_to_the_last() -> None:
    assert growth([(at, 100 + at) for at in range(100)]) == pytest.approx((104.5, 194.5, 199, 86.12), abs=0.01)


BOX = st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(1, 50), st.floats(1, 50)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@settings(max_examples=40)
@given(st.lists(BOX, min_size=1, max_size=5), st.lists(BOX, min_size=1, max_size=5))
def test_overlaps_are_symmetric_from_0_to_1_and_1_of_a_box_with_itself(one: list[Any], other: list[Any]) -> None:
    a, b = np.array(one), np.array(other)
    found = overlaps(a, b)
    np.testing.assert_allclose(found, overlaps(b, a).T)
    assert (found >= 0).all()
    assert (found <= 1 + 1e-9).all()
    np.testing.assert_allclose(np.diag(overlaps(a, a)), 1)


def test_half_a_box_overlaps_by_a_half() -> None:
    assert overlaps(np.array([[0.0, 0, 10, 10]]), np.array([[0.0, 0, 5, 10], [20, 20, 30, 30]])).tolist() == [[0.5, 0]]


def face(box: tuple[float, float, float, float], embedding: list[float]) -> dict[str, Any]:
    return {
        "boundingBox": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
        "embedding": json.dumps(embedding),
        "score": 0.9,
    }


def test_faces_are_matched_by_overlap_and_compared_by_cosine() -> None:
    theirs = [face((0, 0, 100, 100), [1, 0]), face((200, 0, 300, 100), [0, 2])]
    mine = [face((200, 0, 300, 99), [0.6, 0.8]), face((0, 0, 60, 100), [1, 0]), face((500, 0, 600, 100), [1, 0])]
    found = faces_alike([{"facial-recognition": mine}], [{"facial-recognition": theirs}])
    assert (found.ours, found.theirs, found.matched) == (3, 2, 1)
    assert found.least_overlap == pytest.approx(0.99)
    assert found.least_cosine == pytest.approx(0.8)


def test_pictures_where_one_server_finds_no_face_count_as_not_matched() -> None:
    some: dict[str, Any] = {"facial-recognition": [face((0, 0, 9, 9), [1, 0])]}
    none: dict[str, Any] = {"facial-recognition": []}
    found = faces_alike([none, some], [some, none])
    assert (found.ours, found.theirs, found.matched) == (1, 1, 0)
    assert math.isnan(found.least_cosine)


def test_lines_of_a_page_are_compared_from_its_top_in_whatever_order_they_were_answered() -> None:
    low, high = [0.1, 0.5, 0.9, 0.5, 0.9, 0.6, 0.1, 0.6], [0.1, 0.2, 0.9, 0.1, 0.9, 0.3, 0.1, 0.4]
    assert downwards({"text": ["low", "high"], "box": [*low, *high]}) == ("high", "low")
    assert downwards({"text": [], "box": []}) == ()


def test_cosines_are_row_by_row() -> None:
    assert cosines(np.array([[1.0, 0], [1, 1]]), np.array([[2.0, 0], [0, 3]])) == pytest.approx([1, 0.5**0.5])


def test_a_target_is_met_at_its_limit_and_never_by_a_figure_that_is_not_known() -> None:
    assert at_least("a", 2, 2).met
    assert not at_least("a", 1.99, 2).met
    assert at_most("a", 2, 2).met
    assert not at_most("a", math.nan, 2).met
    assert not at_least("a", math.nan, 2).met
    assert verdict_table([at_most("m", 3, 2)]).rows == (("m", 3, "at most 2", "NO"),)


def test_the_targets_of_speed_are_judged_by_the_loads_that_they_are_about() -> None:
    peer = [FIGURES] * 3
    ours = [replace(FIGURES, per_second=8, p50=100)] * 3
    results = {
        (task, load): {"ours": ours, "peer": peer}
        for task in ("clip", "text", "face", "ocr")
        for load in ("1", "4", "16")
    }
    verdicts = speed_verdicts(results)
    assert [one.what for one in verdicts if not one.met] == [
        f"CLIP image, {load} callers: throughput / peer's" for load in ("4", "16")
    ]
    assert sum("p50" in one.what for one in verdicts) == 2
    assert sum("system time" in one.what for one in verdicts) == 12
    assert len(verdicts) == 20


def test_the_kernels_part_of_the_cpu_is_held_to_its_target() -> None:
    rounds = {"ours": [replace(FIGURES, cpu=100, system=6)], "peer": [FIGURES]}
    (found,) = [one for one in speed_verdicts({("face", "1"): rounds}) if "system time" in one.what]
    assert (found.target, found.met) == ("at most 0.05", False)
    assert found.value == pytest.approx(0.06)
