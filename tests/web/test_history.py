"""The last hour's figures, from counters that only grow."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import values

import metrics
from web.history import STEP, STEPS, History, Look, look_now

INF = float("inf")


def course(*looks: Look) -> History:
    """Return the history after these looks."""
    following = iter(looks)
    history = History(lambda: next(following))

    async def note() -> None:
        for _ in looks:
            await history.note()

    asyncio.run(note())
    return history


def look(requests: float, errors: float = 0, **took: float) -> Look:
    """Return counters: ``within_1``: answers within a second."""
    return Look(requests, errors, {1.0: took.get("within_1", 0), 2.0: requests, INF: requests}, 0, 0)


def test_without_two_looks_nothing_is_known() -> None:
    for history in (course(), course(look(100))):
        assert history.course().requests == [None] * STEPS
        assert history.course().errors == 0


def test_requests_errors_and_times_are_those_between_two_looks() -> None:
    told = course(look(100, within_1=100), look(160, 3, within_1=130), look(160, 3, within_1=130)).course()
    assert told.requests[-2:] == [60 / STEP, 0]
    assert told.errors == 3
    assert told.median[-2:] == [1.0, None]
    assert told.p95[-2] == pytest.approx(1.9)
    assert len(told.requests) == len(told.median) == len(told.p95) == STEPS


def test_counters_that_begin_anew_are_no_negative_figures() -> None:
    told = course(look(100, 5), look(2)).course()
    assert (told.requests[-1], told.errors) == (0, 0)


def test_an_hour_is_kept_and_no_more() -> None:
    assert None not in course(*(look(number) for number in range(STEPS + 50))).course().requests


def test_the_page_does_not_count_itself() -> None:
    before = look_now()
    metrics.REQUESTS.labels("page.system", "200").inc(7)
    metrics.REQUESTS.labels("clip", "200").inc()
    metrics.REQUESTS.labels("clip", "503").inc()
    metrics.LATENCY.labels("clip").observe(0.02)
    after = look_now()
    assert (after.requests - before.requests, after.errors - before.errors) == (2, 1)
    assert after.buckets[0.025] - before.buckets.get(0.025, 0) == 1


def test_a_file_of_counters_that_is_only_just_made_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that starts makes its file, and gives it a size a moment later."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    made = tmp_path / "counter_1.db"
    made.touch()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        name = "immich_bento_requests_total"
        value = values.MultiProcessValue(lambda: 1)  # type: ignore[no-untyped-call]
        value("counter", name, name, ("task", "status"), ("clip", "200"), "").inc(3)

    monkeypatch.setattr("web.history.time.sleep", pause)
    assert look_now().requests == 3
    assert len(pauses) == 1
