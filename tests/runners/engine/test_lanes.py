"""A small graph takes all threads while it is alone, and one while others compute."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from runners.engine import EnginePlan, open_session
from runners.engine.lanes import LANE_BYTES, MOST_LANES, LanedSession, lanes_of, working
from runners.engine.session import TensorSpec
from tests.runners.engine.graphs import FEATURES, linear_graph


class Recorder:
    """A session that says with how many threads it was opened, and how many of its kind run at once."""

    inputs = outputs = (TensorSpec("x", np.dtype(np.float32), (None,)),)
    metadata: Mapping[str, str] = {}

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.is_closed = False
        self.holds_memory = True

    def shrink(self, idle_for: float) -> bool:
        held, self.holds_memory = self.holds_memory, False
        return held

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        return [np.array([self.threads])]

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def opened() -> list[Recorder]:
    return []


def recorded(opened: list[Recorder], threads: int, lanes: int) -> LanedSession:
    """Return a session whose graphs are put into ``opened`` as they are opened."""

    def open_with(threads: int) -> Recorder:
        opened.append(Recorder(threads))
        return opened[-1]

    return LanedSession(open_with, threads, lanes)


@pytest.fixture
def session(opened: list[Recorder]) -> LanedSession:
    return recorded(opened, 3, 3)


def threads_of(session: LanedSession) -> int:
    return int(session.run({})[0][0])


def test_alone_it_takes_all_threads_and_beside_others_one(session: LanedSession, opened: list[Recorder]) -> None:
    assert threads_of(session) == 3
    with working():
        assert threads_of(session) == 3
        with working():
            assert threads_of(session) == 1
        assert threads_of(session) == 3
    assert [one.threads for one in opened] == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("threads", "memory", "lanes"),
    [
        (1, 64 * LANE_BYTES, 1),
        (2, 64 * LANE_BYTES, 2),
        (16, 64 * LANE_BYTES, MOST_LANES),
        (4, 3 * LANE_BYTES, 3),
        (4, 2 * LANE_BYTES - 1, 1),
        (4, 512 * 2**20, 1),
    ],
)
def test_there_are_as_many_lanes_as_threads_and_memory_allow(threads: int, memory: int, lanes: int) -> None:
    assert lanes_of(threads, memory) == lanes


def test_with_little_memory_a_graph_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    plan = EnginePlan("cpu", 4, engine="openvino")
    path = linear_graph(tmp_path / "model.onnx")
    for memory, kind in ((2 * LANE_BYTES - 1, False), (2 * LANE_BYTES, True)):
        monkeypatch.setattr("runners.engine.lanes.usable_memory", lambda memory=memory: memory)  # a container's limit
        session = open_session(path, plan, laned=True)
        assert isinstance(session, LanedSession) is kind
        session.close()


def test_lanes_are_opened_when_two_first_meet_and_all_are_closed(session: LanedSession, opened: list[Recorder]) -> None:
    threads_of(session)
    assert len(opened) == 1
    with working(), working():
        for _ in range(5):
            threads_of(session)
    session.close()
    assert [one.is_closed for one in opened] == [True] * 4


def test_copies_do_not_grow_with_the_cores(opened: list[Recorder]) -> None:
    session = recorded(opened, 16, lanes_of(16, 64 * LANE_BYTES))
    with working(), working():
        threads_of(session)
    assert [one.threads for one in opened] == [16, 1, 1, 1, 1]


def test_lanes_that_nobody_uses_are_closed_and_opened_again(session: LanedSession, opened: list[Recorder]) -> None:
    assert not session.trim(0)
    with working(), working():
        threads_of(session)
        session.trim(60)
        assert not any(one.is_closed for one in opened)
        assert session.trim(0)
        assert [one.is_closed for one in opened] == [False, True, True, True]
        assert threads_of(session) == 1
    assert [one.is_closed for one in opened[4:]] == [False] * 3


def test_the_graph_for_all_threads_is_shrunk_while_lanes_work(session: LanedSession, opened: list[Recorder]) -> None:
    assert not session.trim(60)
    assert opened[0].holds_memory, "it works alone"
    with working(), working():
        threads_of(session)
    assert session.trim(60)
    assert [one.holds_memory for one in opened] == [False, True, True, True]
    assert not session.trim(60)
    assert [one.is_closed for one in opened] == [False] * 4


def test_who_waits_for_a_lane_is_told_of_its_end_and_gets_one_that_was_opened_anew(opened: list[Recorder]) -> None:
    session = recorded(opened, 2, 2)
    lanes = [session._take_lane() for _ in range(2)]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(session._take_lane)
        while not session._changed._waiters:  # type: ignore[attr-defined]
            time.sleep(0.001)
        with session._changed:  # as if the lanes came back and rested before the waiting thread ran
            session._free.extend(lanes)
            session._changed.notify()
            session._close_lanes()
        assert waiting.result(10) is opened[-1]
        two_more = threads.submit(lambda: [session._take_lane() for _ in range(2)])
        session.close()
        with pytest.raises(RuntimeError, match="closed"):
            two_more.result(10)


def test_many_at_once_all_get_their_answer(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = linear_graph(tmp_path / "model.onnx")
    session = open_session(path, EnginePlan("cpu", 2, engine="openvino"), laned=True)
    assert isinstance(session, LanedSession)
    alone = session.run({"x": np.ones((1, FEATURES), np.float32)})[0]
    start = threading.Barrier(4)

    def ask(number: int) -> NDArray[Any]:
        start.wait(10)
        with working():
            return session.run({"x": np.full((1, FEATURES), number, np.float32)})[0]

    with ThreadPoolExecutor(4) as threads:
        for number, answer in enumerate(threads.map(ask, range(4))):
            np.testing.assert_allclose(answer, alone * number, rtol=1e-3, atol=1e-3)
    session.close()


def test_one_thread_has_no_lanes(tmp_path: Path) -> None:
    path = linear_graph(tmp_path / "model.onnx")
    session = open_session(path, EnginePlan("cpu", 1, engine="openvino"), laned=True)
    assert not isinstance(session, LanedSession)
    session.close()
