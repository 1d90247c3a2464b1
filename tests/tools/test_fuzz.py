"""What fuzzers have found, and what they begin with, is read or refused, in time and always alike."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tools.fuzz.__main__ import SEEDS, WATCHED
from tools.fuzz.targets import LONGEST, TARGETS, ReadOtherwise, Target, TooSlow, checked

ALL = sorted(path.relative_to(SEEDS) for path in SEEDS.glob("*/*"))


@pytest.mark.parametrize("seed", ALL, ids=str)
def test_it_is_read_or_refused(seed: Path) -> None:
    checked(TARGETS[seed.parts[0]], (SEEDS / seed).read_bytes())


def test_every_target_has_seeds() -> None:
    assert {seed.parts[0] for seed in ALL} == set(TARGETS) == set(WATCHED)


def test_what_is_slow_or_read_in_two_ways_is_found() -> None:
    def burn(data: bytes) -> None:
        until = time.thread_time() + LONGEST * 1.2
        while time.thread_time() < until:
            pass

    with pytest.raises(TooSlow, match="3 bytes took"):
        checked(Target(burn, 10), b"abc")

    def fail(data: bytes) -> None:
        raise ReadOtherwise("in two ways")

    with pytest.raises(ReadOtherwise):
        checked(Target(fail, 10), b"abc")
