"""The soak: what it comes to, how it is drawn, and two minutes of it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tools.harness.hostile import HOSTILE
from tools.soak.__main__ import main
from tools.soak.chart import plot
from tools.soak.events import plans, schedule
from tools.soak.record import Event, Record, Request, Stage, longest_gap, summary, why_lost

KILLED = Event("gateway killed", at=100.0, until=103.0)
RUNNER = Event("runner killed", at=100.5, until=101.0)


def seen() -> Record:
    """Return 200 s: a gateway killed after 100, pings twice a second but for 3 s, and one request lost then."""
    return Record(
        requests=[
            Request("ocr", 10.0, 0.5),
            Request("ocr", 50.0, 1.5),
            Request("ocr", 99.8, 0.4, "ServerDisconnectedError()"),
            Request("clip", 150.0, 0.1),
        ],
        events=[KILLED, Event("runner killed", 20.0, 21.0)],
        stages=[Stage("nobody", 0, 90), Stage("strips", 90, 200)],
        pings=[(at / 2, 0.002) for at in range(400) if not 200 <= at <= 206] + [(101.0, 2.5)],
        memory=[(at, 400.0 + (at > 100) * 10, 50.0) for at in range(0, 200, 5)],
    )


def test_a_lost_request_is_told_with_what_was_done_meanwhile() -> None:
    during = Request("ocr", 99.8, 0.4, "lost")
    assert why_lost(during, [RUNNER, KILLED]) == "gateway killed"
    assert why_lost(during, [RUNNER]) == "runner killed"
    assert why_lost(Request("ocr", 90.0, 5.0, "lost"), [RUNNER, KILLED]) == "nothing"


def test_the_longest_time_without_a_ping_is_that_around_the_event() -> None:
    assert longest_gap(KILLED, seen().pings) == pytest.approx(4.0, abs=0.1)
    assert longest_gap(Event("runner killed", 20.0, 21.0), seen().pings) == pytest.approx(0.5)


def test_the_summary_leaves_pings_after_a_killed_gateway_out_of_its_percentiles() -> None:
    told = summary(seen(), "none")
    assert told["ping_ms"] == {"count": 373, "p50": 2.0, "p99": 2.0, "worst": 2.0}
    assert [one["during"] for one in told["lost"]] == ["gateway killed"]
    assert told["memory_mb"] == {"first": 400, "last": 410, "most": 410}
    assert told["stages"][0]["wait_s"]["ocr"] == {"count": 2, "p50": 1.0, "p99": 1.49, "worst": 1.5}
    assert told["stages"][0]["wait_s"]["clip"] == {}
    assert max(value for _, value in told["curves"]["ping"]) == 2500


def test_it_is_drawn_anew_from_what_was_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = summary(seen(), "none")
    (tmp_path / "soak.json").write_text(json.dumps(told))
    assert main(["--from", str(tmp_path / "soak.json"), "--plot", str(tmp_path / "soak.svg")]) == 0
    drawn = (tmp_path / "soak.svg").read_text()
    assert drawn == plot(told)
    ElementTree.fromstring(drawn)
    assert "strips" in drawn
    assert "4 good requests in 200 s, 1 lost" in capsys.readouterr().out


def test_everything_happens_in_a_soak_of_any_length_and_at_its_pace_in_one_of_an_hour() -> None:
    for seconds in (60, 120, 3600):
        assert {plan.what for _, plan in schedule(seconds, seconds / 12)} == {plan.what for plan in plans(seconds)}
    hour = [plan.what for _, plan in schedule(3600, 300)]
    counts = {what: hour.count(what) for what in set(hour)}
    assert counts == {"runner killed": 50, "gateway killed": 10, "database restarted": 5, "restart": 5}


def test_nothing_is_done_to_the_service_while_memory_is_measured() -> None:
    for seconds in (60, 120, 600, 3600):
        times = [at for at, _ in schedule(seconds, seconds / 12)]
        assert min(times) >= seconds / 12
        assert max(times) <= seconds * 11 / 12


@pytest.mark.slow
def test_two_minutes_of_it_lose_no_good_request(tmp_path: Path) -> None:
    kept = tmp_path / "soak.json"
    assert main(["--seconds", "120", "--json", str(kept)]) == 0
    told = json.loads(kept.read_text())
    assert {stage["hostile"] for stage in told["stages"]} == {"nobody", *HOSTILE}
    assert {event["what"] for event in told["events"]} == {plan.what for plan in plans(120)}
    assert told["requests"] > 50
