"""CPU time by part: what is measured within a part is taken out of it, and functions are put back as they were."""

from __future__ import annotations

import math
import time

import pytest

from tools.bench.stopwatch import Stopwatch


def burn(seconds: float) -> None:
    """Compute for as long, in CPU time of this process."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_part_within_a_part_is_taken_out_of_it() -> None:
    watch = Stopwatch()
    with watch.measuring("outer"):
        burn(0.03)
        for _ in range(2):
            with watch.measuring("inner"):
                burn(0.05)
    assert watch.seconds["inner"] == pytest.approx(0.1, abs=0.02)
    assert watch.seconds["outer"] == pytest.approx(0.03, abs=0.02)


def test_waiting_is_not_counted() -> None:
    watch = Stopwatch()
    with watch.measuring("waiting"):
        time.sleep(0.2)
    assert watch.seconds["waiting"] < 0.1


def test_functions_are_measured_while_they_are_watched_and_answer_as_ever() -> None:
    watch, sqrt = Stopwatch(), math.sqrt
    with watch.watching({"root": [(math, "sqrt")]}):
        assert math.sqrt(9) == 3
        assert math.sqrt is not sqrt
    assert math.sqrt is sqrt
    assert watch.seconds.keys() == {"root"}


def test_a_name_that_is_gone_is_an_error_and_leaves_nothing_replaced() -> None:
    watch, sqrt = Stopwatch(), math.sqrt
    with pytest.raises(AttributeError), watch.watching({"root": [(math, "sqrt"), (math, "no_such_function")]}):
        pass
    assert math.sqrt is sqrt


def test_an_error_passes_through_and_its_time_counts() -> None:
    watch = Stopwatch()
    with pytest.raises(ValueError, match="math domain"), watch.watching({"root": [(math, "sqrt")]}):
        math.sqrt(-1)
    assert "root" in watch.seconds
