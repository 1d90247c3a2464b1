"""Files of models are fetched beside the event loop, once for all who ask; jobs are told where they are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from errors import ErrorCode, ModelUnavailable
from models.catalog import ModelKind
from models.progress import Progress
from runners import arrivals as module
from runners.arrivals import Arrivals, Source
from runners.contract import Ask, Failure, ModelState, PictureJob
from runners.runner import Runner, run_picture
from tests.runners.test_runner import Loader, runner

PATIENCE = 20.0


class Hub:
    """Fetches once it is ``open``; fails as long as there are ``errors``."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.open = threading.Event()
        self.open.set()
        self.fetched: list[str] = []

    def fetch(self, name: str) -> None:
        self.fetched.append(name)
        assert self.open.wait(PATIENCE)
        if self.errors:
            raise self.errors.pop(0)

    def progress(self, name: str) -> Progress | None:
        if self.open.is_set():
            return None
        return Progress(ModelKind.OCR, name, "downloading", "det.onnx", bytes=34, total=100, rate=10.0)

    def arrivals(self, *, retry_after: float = 30.0) -> Arrivals:
        return Arrivals("ocr", Source(self.fetch, self.progress), retry_after=retry_after)


@pytest.fixture(autouse=True)
def _short_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOMENT", 0.5)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def code(lack: Failure | None) -> ErrorCode | None:
    return lack.code if lack is not None else None


def test_what_is_here_is_looked_at_once_for_all_who_ask() -> None:
    async def scenario() -> None:
        hub = Hub()
        arrivals = hub.arrivals()
        assert await asyncio.gather(*(arrivals.lack("m") for _ in range(5))) == [None] * 5
        assert await arrivals.lack("m") is None
        assert hub.fetched == ["m"]
        assert arrivals.states() == [ModelState("ocr", "m", "here", named=False)]

    run(scenario)


def test_what_is_on_its_way_is_told_with_how_far_it_is_and_fetched_once() -> None:
    async def scenario() -> None:
        hub = Hub()
        hub.open.clear()
        arrivals = hub.arrivals()
        lacks = await asyncio.gather(*(arrivals.lack("m") for _ in range(5)))
        assert {code(lack) for lack in lacks} == {ErrorCode.MODEL_ON_ITS_WAY}
        assert "34 %" in str(lacks[0])
        (state,) = arrivals.states()
        assert (state.state, state.percent, state.named) == ("on its way", 34, False)
        hub.open.set()
        while await arrivals.lack("m") is not None:
            pass
        assert hub.fetched == ["m"]
        assert arrivals.states()[0].state == "here"

    run(scenario)


def test_what_cannot_be_had_is_told_for_a_while_and_then_tried_again() -> None:
    async def scenario() -> None:
        hub = Hub(ModelUnavailable("OFFLINE is set."))
        arrivals = hub.arrivals(retry_after=0.5)
        for _ in range(3):
            lack = await arrivals.lack("m")
            assert code(lack) is ErrorCode.MODEL_UNAVAILABLE
            assert "OFFLINE is set." in str(lack)
        assert hub.fetched == ["m"]
        assert arrivals.states()[0].state == "unavailable"
        await asyncio.sleep(0.6)
        assert await arrivals.lack("m") is None

    run(scenario)


def test_a_fault_of_ours_is_told_as_one(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        assert code(await Hub(ZeroDivisionError()).arrivals().lack("m")) is ErrorCode.INTERNAL

    run(scenario)
    assert "ZeroDivisionError" in caplog.text


def test_a_named_model_is_tried_again_until_it_is_here(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_SHORTEST_PAUSE", 0.01)

    async def scenario() -> None:
        hub = Hub(ModelUnavailable("no network"), ModelUnavailable("no network"))
        arrivals = hub.arrivals(retry_after=0)
        await arrivals.bring("m")
        assert hub.fetched == ["m"] * 3
        assert arrivals.states() == [ModelState("ocr", "m", "here", named=True)]

    run(scenario)
    assert caplog.text.count("no network") == 1
    assert caplog.text.count("For the same reason as before.") == 1


@pytest.mark.parametrize("named", [True, False])
def test_the_details_are_in_the_log_once_and_in_no_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, named: bool
) -> None:
    monkeypatch.setattr(module, "_SHORTEST_PAUSE", 0.01)

    async def scenario() -> None:
        arrivals = Hub(*(ModelUnavailable("no network", details="Looked at: a, b, c.") for _ in range(3))).arrivals(
            retry_after=0
        )
        if named:
            await arrivals.bring("m")
            return
        for _ in range(3):
            lack = await arrivals.lack("m")
            assert lack is not None
            assert lack.message == "no network"

    run(scenario)
    assert caplog.text.count("no network Looked at: a, b, c.") == 1


def test_why_a_model_is_not_here_is_told_once_by_all_processes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_SHORTEST_PAUSE", 0.01)
    noted: list[float] = []

    def waits(name: str, at: float) -> float | None:
        noted.append(at)
        return 1.7e9 if len(noted) > 1 else None

    async def scenario() -> None:
        hub = Hub(ModelUnavailable("no network"), ModelUnavailable("no network, and other words"))
        await Arrivals("ocr", Source(hub.fetch, hub.progress, waits), retry_after=0).bring("m")

    run(scenario)
    assert caplog.text.count("no network") == 1
    assert caplog.text.count("Why was told at ") == 1
    assert noted == sorted(noted)


def test_what_waits_for_hubs_says_so_beside_why_it_cannot_be_had() -> None:
    async def scenario() -> None:
        hub = Hub(ModelUnavailable("no network at a.secret.host"))
        waiting = Progress(ModelKind.OCR, "m", "waiting", "Hugging Face", since=1.7e9, again=1.7e9 + 30)
        arrivals = Arrivals("ocr", Source(hub.fetch, lambda name: waiting), retry_after=30)
        await arrivals.lack("m")
        (state,) = arrivals.states()
        assert (state.state, state.detail) == ("unavailable", "no network at a.secret.host")
        assert state.waiting.startswith("m (ocr): waiting for a hub that gives it since ")
        assert state.percent is None

    run(scenario)


def test_a_model_is_here_while_it_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRUST", 0.0)

    async def scenario() -> None:
        hub = Hub()
        arrivals = hub.arrivals()
        await arrivals.lack("m")
        hub.open.clear()
        looking = asyncio.ensure_future(arrivals.lack("m"))
        await asyncio.sleep(0.05)
        assert arrivals.states()[0].state == "here"
        hub.open.set()
        assert await looking is None
        assert hub.fetched == ["m", "m"]

    run(scenario)


def test_a_thread_that_fetches_does_not_keep_the_process() -> None:
    async def scenario() -> None:
        hub = Hub()
        hub.open.clear()
        await hub.arrivals().lack("m")
        (thread,) = [one for one in threading.enumerate() if one.name == "fetch-ocr-m"]
        assert thread.daemon
        hub.open.set()

    run(scenario)


def test_a_picture_is_computed_for_no_task_while_the_model_of_one_is_on_its_way() -> None:
    async def scenario() -> None:
        hub, load = Hub(), Loader()
        hub.open.clear()
        limits = runner(load)._limits
        waiting: Runner[Any, Any] = Runner("ocr", load, limits, arrivals=hub.arrivals())
        ready: Runner[Any, Any] = Runner("faces", load, limits)
        job = PictureJob(b"picture", (Ask("faces", "f"), Ask("ocr", "m")))
        found = await run_picture({"faces": ready, "ocr": waiting}, job)
        assert {task: code(failure) for task, failure in found.items()} == {"ocr": ErrorCode.MODEL_ON_ITS_WAY}
        assert not load.models
        hub.open.set()
        waiting.close()
        ready.close()

    run(scenario)


def test_a_model_in_memory_is_not_looked_for() -> None:
    async def scenario() -> None:
        hub = Hub()
        echo: Runner[Any, Any] = Runner("ocr", Loader(), runner(Loader())._limits, arrivals=hub.arrivals())
        await echo.preload("m")
        hub.open.clear()
        assert await echo.lack("m") is None
        assert hub.fetched == ["m"]
        echo.close()

    run(scenario)
