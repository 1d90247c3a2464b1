"""A runner of fake models: what fails, fails for its own job; what loads holds up no other; what is idle goes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

import metrics
from errors import ErrorCode, ModelUnavailable, ServiceError
from runners.contract import Failure, TextJob
from runners.runner import Runner, RunnerLimits
from runners.turns import CoreTurns

PATIENCE = 60.0


@dataclass
class EchoModel:
    """Answers each text in capitals; ``before`` is called with each batch."""

    name: str
    before: Callable[[Sequence[TextJob]], object] = lambda jobs: None
    batches: list[int] = field(default_factory=list)
    closed: bool = False

    def run(self, jobs: Sequence[TextJob]) -> Sequence[str | Failure]:
        assert not self.closed
        self.batches.append(len(jobs))
        self.before(jobs)
        return [
            Failure(ErrorCode.UNREADABLE_PICTURE, job.text) if job.text.startswith("bad") else job.text.upper()
            for job in jobs
        ]

    def close(self) -> None:
        self.closed = True


@dataclass
class Loader:
    """Loads ``EchoModel``s, after ``before``, which may raise or wait."""

    before: Callable[[str], object] = lambda name: None
    before_run: Callable[[Sequence[TextJob]], object] = lambda jobs: None
    tried: list[str] = field(default_factory=list)
    models: list[EchoModel] = field(default_factory=list)

    def __call__(self, name: str) -> EchoModel:
        self.tried.append(name)
        self.before(name)
        self.models.append(EchoModel(name, self.before_run))
        return self.models[-1]


EchoRunner = Runner[TextJob, str]


def runner(load: Loader, *, name: str = "echo", **changes: object) -> EchoRunner:
    limits = {"max_batch": 8, "model_ttl": 300.0, "retry_after": 30.0, "turns": CoreTurns(4), **changes}
    return Runner(name, load, RunnerLimits(**limits))  # type: ignore[arg-type]


def ask(echo: EchoRunner, *texts: str, model: str = "m") -> list[str | Failure]:
    async def together() -> list[str | Failure]:
        return list(await asyncio.gather(*(echo.submit(TextJob(text, model)) for text in texts)))

    return asyncio.run(asyncio.wait_for(together(), PATIENCE))


def models_loaded(name: str) -> float:
    value: float = metrics.MODELS_LOADED.labels(name)._value.get()
    return value


def test_jobs_of_many_callers_are_answered_in_batches_each_by_its_own() -> None:
    load = Loader()
    texts = [f"{'bad' if number % 5 == 0 else 'good'} {number}" for number in range(50)]
    answers = ask(runner(load), *texts)
    for text, answer in zip(texts, answers, strict=True):
        assert answer == (Failure(ErrorCode.UNREADABLE_PICTURE, text) if text.startswith("bad") else text.upper())
    assert load.tried == ["m"]
    assert sum(load.models[0].batches) == 50
    assert max(load.models[0].batches) == 8


def test_a_model_that_cannot_be_had_is_a_failure_of_each_of_its_jobs_after_one_try() -> None:
    def unavailable(name: str) -> None:
        raise ModelUnavailable("no network")

    load = Loader(unavailable)
    answers = ask(runner(load), *"abcdefghijkl")
    for answer in answers:
        assert isinstance(answer, Failure)
        assert answer.code is ErrorCode.MODEL_UNAVAILABLE
        assert answer.message.startswith("no network")
    assert load.tried == ["m"]


def test_an_unknown_model_keeps_its_code() -> None:
    def unknown(name: str) -> None:
        raise ServiceError(ErrorCode.UNKNOWN_MODEL, f"no model {name}")

    assert ask(runner(Loader(unknown)), "a") == [Failure(ErrorCode.UNKNOWN_MODEL, "no model m")]


def test_a_load_that_failed_is_tried_again_after_a_while() -> None:
    broken = True

    def unavailable(name: str) -> None:
        if broken:
            raise ModelUnavailable("no network")

    load = Loader(unavailable)
    echo = runner(load, retry_after=0.05)
    assert isinstance(ask(echo, "a")[0], Failure)
    broken = False
    time.sleep(0.06)
    assert ask(echo, "a") == ["A"]
    assert load.tried == ["m", "m"]


def test_a_load_that_breaks_unexpectedly_is_an_internal_failure_and_tried_again() -> None:
    broken = True

    def break_(name: str) -> None:
        if broken:
            raise KeyError("secret detail")

    echo = runner(Loader(break_))
    (answer,) = ask(echo, "a")
    assert isinstance(answer, Failure)
    assert answer.code is ErrorCode.INTERNAL
    assert "secret detail" not in answer.message
    broken = False
    assert ask(echo, "a") == ["A"]


def raise_for_poison(error: Exception) -> Callable[[Sequence[TextJob]], None]:
    def check(jobs: Sequence[TextJob]) -> None:
        if any(job.text == "poison" for job in jobs):
            raise error

    return check


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (IndexError("a fault of ours"), ErrorCode.INTERNAL),
        (ServiceError(ErrorCode.PICTURE_TOO_LARGE, "too large"), ErrorCode.PICTURE_TOO_LARGE),
    ],
)
def test_what_a_model_raises_fails_only_the_job_at_fault(error: Exception, code: ErrorCode) -> None:
    echo = runner(Loader(before_run=raise_for_poison(error)))
    texts = ["a", "b", "poison", "c", "d"]
    answers = ask(echo, "first", *texts)[1:]
    assert [answer for answer in answers if isinstance(answer, str)] == ["A", "B", "C", "D"]
    failure = answers[2]
    assert isinstance(failure, Failure)
    assert failure.code is code


def test_a_model_that_loads_holds_up_no_other() -> None:
    slow_may_go_on = threading.Event()

    def load_slowly(name: str) -> None:
        if name == "slow":
            assert slow_may_go_on.wait(PATIENCE)

    echo = runner(Loader(load_slowly))

    async def scenario() -> tuple[str | Failure, str | Failure]:
        waiting = asyncio.create_task(echo.submit(TextJob("s", "slow")))
        quick = await asyncio.wait_for(echo.submit(TextJob("q", "quick")), PATIENCE)
        assert not waiting.done()
        slow_may_go_on.set()
        return quick, await asyncio.wait_for(waiting, PATIENCE)

    assert asyncio.run(scenario()) == ("Q", "S")


def test_the_runners_of_a_process_take_turns() -> None:
    guard, running, most = threading.Lock(), 0, 0

    def work(jobs: Sequence[TextJob]) -> None:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with guard:
            running -= 1

    turns = CoreTurns(2)
    runners = [runner(Loader(before_run=work), name=f"echo{number}", turns=turns) for number in range(3)]

    async def scenario() -> None:
        jobs = [echo.submit(TextJob("t", model)) for echo in runners for model in ("a", "b") for _ in range(4)]
        await asyncio.wait_for(asyncio.gather(*jobs), PATIENCE)

    asyncio.run(scenario())
    assert most == 2


def test_idle_models_are_unloaded_and_counted_and_come_back() -> None:
    load = Loader()
    echo = runner(load, name="idle", model_ttl=0.05)
    ask(echo, "a", model="one")
    ask(echo, "a", model="two")
    assert echo.loaded() == ("one", "two")
    assert models_loaded("idle") == 2
    assert echo.unload_idle() == []
    time.sleep(0.06)
    assert sorted(echo.unload_idle()) == ["one", "two"]
    assert all(model.closed for model in load.models)
    assert models_loaded("idle") == 0
    assert ask(echo, "a", model="one") == ["A"]
    assert models_loaded("idle") == 1


def test_a_preloaded_model_is_there_at_once_and_stays() -> None:
    load = Loader()
    echo = runner(load, name="preload", model_ttl=0.01)
    asyncio.run(echo.preload("m"))
    assert echo.loaded() == ("m",)
    assert models_loaded("preload") == 1
    time.sleep(0.02)
    assert echo.unload_idle() == []
    assert echo.unload_all() == ["m"]
    assert models_loaded("preload") == 0


@pytest.mark.parametrize("error", [ModelUnavailable("no network"), RuntimeError("a fault of ours")])
def test_a_preload_that_fails_is_logged_and_ends_nothing(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    broken = True

    def break_(name: str) -> None:
        if broken:
            raise error

    echo = runner(Loader(break_), name="hasty", retry_after=0)
    asyncio.run(echo.preload("m"))
    assert "hasty: m could not be loaded at start" in caplog.text
    assert str(error) in caplog.text
    broken = False
    assert ask(echo, "a") == ["A"]


def test_closing_waits_for_what_runs_and_frees_the_models() -> None:
    started, may_go_on = threading.Event(), threading.Event()

    def wait(jobs: Sequence[TextJob]) -> None:
        started.set()
        assert may_go_on.wait(PATIENCE)

    load = Loader(before_run=wait)
    echo = runner(load, name="closing")

    async def scenario() -> str | Failure:
        job = asyncio.create_task(echo.submit(TextJob("last", "m")))
        await asyncio.to_thread(started.wait, PATIENCE)
        closing = asyncio.create_task(asyncio.to_thread(echo.close))
        await asyncio.sleep(0.05)
        assert not closing.done()
        may_go_on.set()
        await asyncio.wait_for(closing, PATIENCE)
        return await asyncio.wait_for(job, PATIENCE)

    assert asyncio.run(scenario()) == "LAST"
    assert load.models[0].closed
    assert models_loaded("closing") == 0
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("closing-")] == []


def test_closing_answers_those_who_still_wait() -> None:
    started, may_go_on = threading.Event(), threading.Event()

    def wait(jobs: Sequence[TextJob]) -> None:
        started.set()
        assert may_go_on.wait(PATIENCE)

    echo = runner(Loader(before_run=wait), max_batch=1)

    async def scenario() -> list[str | Failure]:
        jobs = [asyncio.create_task(echo.submit(TextJob(text, "m"))) for text in ("runs", "waits", "waits too")]
        await asyncio.to_thread(started.wait, PATIENCE)
        closing = asyncio.create_task(asyncio.to_thread(echo.close))
        await asyncio.sleep(0.02)
        may_go_on.set()
        await closing
        return list(await asyncio.wait_for(asyncio.gather(*jobs), PATIENCE))

    first, *others = asyncio.run(scenario())
    assert first == "RUNS"
    assert all(isinstance(answer, Failure) for answer in others)


def test_batches_are_counted_by_runner() -> None:
    ask(runner(Loader(), name="counted"), "a", "b", "c")
    samples = {sample.labels.get("runner") for metric in metrics.BATCH_SIZE.collect() for sample in metric.samples}
    assert "counted" in samples
