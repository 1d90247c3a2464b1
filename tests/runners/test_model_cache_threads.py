"""What many threads see of one model cache: one load, no wait for another's, and never a closed model."""

from __future__ import annotations

import inspect
import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from errors import ModelUnavailable
from runners import model_cache
from runners.model_cache import ModelCache
from tests.runners.model_cache_depot import PATIENCE, RETRY_AFTER, TTL, Depot, use


@pytest.fixture
def depot() -> Depot:
    return Depot()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def wait_until_behind_a_lock(count: int) -> None:
    """Return once that many threads stand before the lock of a model that is being loaded or closed.

    Asked of the interpreter, not of the clock: they have reached that line, so all they do before it is done.
    """
    lines, start = inspect.getsourcelines(ModelCache._model)
    line = start + next(number for number, text in enumerate(lines) if "with slot.lock" in text)
    pause = threading.Event()
    while True:
        frames = sys._current_frames().values()
        if sum(frame.f_code is ModelCache._model.__code__ and frame.f_lineno == line for frame in frames) == count:
            return
        pause.wait(0.001)


def test_many_who_ask_at_once_share_one_load(depot: Depot, threads: ThreadPoolExecutor) -> None:
    cache = depot.cache()
    go = threading.Event()
    depot.while_loading = lambda name: go.wait(PATIENCE)
    asked = [threads.submit(use, cache, "a") for _ in range(16)]
    wait_until_behind_a_lock(15)
    go.set()
    assert len({future.result(PATIENCE) for future in asked}) == 1
    assert depot.tried == ["a"]


def test_loading_one_model_blocks_neither_loading_nor_using_nor_unloading_another(
    depot: Depot, threads: ThreadPoolExecutor
) -> None:
    cache = depot.cache()
    use(cache, "idle")
    depot.now = TTL
    started, go = threading.Event(), threading.Event()

    def slow(name: str) -> None:
        if name == "slow":
            started.set()
            go.wait(PATIENCE)

    depot.while_loading = slow
    loading = threads.submit(use, cache, "slow")
    assert started.wait(PATIENCE)
    assert threads.submit(use, cache, "quick").result(PATIENCE).is_open
    assert threads.submit(cache.unload_idle).result(PATIENCE) == ["idle"]
    assert threads.submit(cache.loaded).result(PATIENCE) == ("quick",)
    assert threads.submit(cache.unload_all).result(PATIENCE) == ["quick"]
    assert not loading.done()
    go.set()
    loading.result(PATIENCE)
    assert cache.loaded() == (), "slow was asked to go while it was being loaded"


def test_closing_one_model_blocks_no_other_and_its_own_next_load_waits(
    depot: Depot, threads: ThreadPoolExecutor
) -> None:
    cache = depot.cache()
    old = use(cache, "a")
    started, go = threading.Event(), threading.Event()

    def slow(name: str) -> None:
        started.set()
        go.wait(PATIENCE)

    depot.while_closing = slow
    unloading = threads.submit(cache.unload_all)
    assert started.wait(PATIENCE)
    assert cache.loaded() == ()
    assert threads.submit(use, cache, "b").result(PATIENCE).is_open
    again = threads.submit(use, cache, "a")
    wait_until_behind_a_lock(1)
    assert depot.tried == ["a", "b"]
    go.set()
    assert unloading.result(PATIENCE) == ["a"]
    assert again.result(PATIENCE) is not old


@pytest.mark.parametrize("retry_after", [0.0, RETRY_AFTER])
def test_those_who_waited_for_a_load_that_fails_fail_with_it(
    depot: Depot, threads: ThreadPoolExecutor, retry_after: float
) -> None:
    cache = depot.cache(retry_after=retry_after)
    depot.broken["a"] = ModelUnavailable("No network.")
    go = threading.Event()
    depot.while_loading = lambda name: go.wait(PATIENCE)
    asked = [threads.submit(use, cache, "a") for _ in range(16)]
    wait_until_behind_a_lock(15)
    go.set()
    errors = [future.exception(PATIENCE) for future in asked]
    assert depot.tried == ["a"]
    assert {type(error) for error in errors} == {ModelUnavailable}
    assert len({id(error) for error in errors}) == 16, "one exception in two threads would mix their tracebacks"
    assert sum("(Tried 0 s ago" in str(error) for error in errors) == 15
    assert cache.loaded() == ()


def test_after_a_failure_with_no_time_to_wait_the_next_one_tries(depot: Depot) -> None:
    cache = depot.cache(retry_after=0)
    depot.broken["a"] = ModelUnavailable("no network")
    for tries in (1, 2):
        with pytest.raises(ModelUnavailable):
            use(cache, "a")
        assert len(depot.tried) == tries


def test_a_model_in_use_by_any_thread_is_not_unloaded(depot: Depot, threads: ThreadPoolExecutor) -> None:
    cache = depot.cache()
    inside, go = threading.Barrier(9), threading.Event()

    def hold(last: bool) -> bool:
        with cache.lease("a") as model:
            inside.wait(PATIENCE)
            if last:
                go.wait(PATIENCE)
            return model.is_open

    held = [threads.submit(hold, number == 7) for number in range(8)]
    inside.wait(PATIENCE)
    assert all(future.result(PATIENCE) for future in held[:7])
    depot.now = 1e9
    assert cache.unload_idle() == []
    assert cache.unload_all() == []
    go.set()
    assert held[7].result(PATIENCE)
    assert depot.closed == ["a"]


def test_a_model_taken_just_before_it_would_be_unloaded_stays(depot: Depot) -> None:
    cache = depot.cache()
    use(cache, "a")
    with ExitStack() as leases:

        class TakenFirst:
            """A lock that somebody slips in before: after the look at who uses the model, before it is closed."""

            def __enter__(self) -> None:
                leases.enter_context(cache.lease("a"))

            def __exit__(self, *error: object) -> None: ...

        cache._slots["a"].lock = TakenFirst()  # type: ignore[assignment]
        assert cache.unload_all() == []
        assert depot.open
        cache._slots["a"].lock = threading.Lock()


def test_a_storm_of_leases_unloads_and_failures_never_shows_a_closed_model(
    depot: Depot, threads: ThreadPoolExecutor
) -> None:
    # ``Depot`` asserts that no model is loaded twice or closed twice; ``use`` that a leased model is open.
    names = ["a", "b", "c"]
    cache = depot.cache(ttl=1, retry_after=1)
    failed = 0

    def flaky(name: str) -> None:
        if name == "c" and len(depot.tried) % 3 == 0:
            raise ModelUnavailable("now and then")

    depot.while_loading = flaky

    def worker(seed: int) -> int:
        choice, failures = random.Random(seed), 0
        for _ in range(400):
            match choice.randrange(6):
                case 0:
                    depot.now += 1
                    cache.unload_idle()
                case 1 if choice.random() < 0.3:
                    cache.unload_all()
                case _:
                    try:
                        with cache.lease(choice.choice(names)) as outer:
                            assert use(cache, choice.choice("ab")).name in "ab"
                            assert outer.is_open
                    except ModelUnavailable:
                        failures += 1
        return failures

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                model_cache, "give_memory_back", lambda: None
            )  # gc.collect() would be all that this test does
            results: list[Future[int]] = [threads.submit(worker, seed) for seed in range(8)]
            failed = sum(result.result(PATIENCE) for result in results)
    finally:
        sys.setswitchinterval(interval)
    assert failed > 0
    assert len(depot.closed) > 10
    cache.unload_all()
    assert depot.open == {}
    assert all(slot.users == 0 and not slot.retired for slot in cache._slots.values())
