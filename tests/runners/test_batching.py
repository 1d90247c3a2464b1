"""The batcher: who is batched with whom, who waits, and who fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.batching import Batcher, Unfinished


class Model:
    """Doubles its numbers; remembers its batches; fails on negative numbers; may be held."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.running = 0
        self.most_running = 0

    def run(self, jobs: Sequence[int]) -> Sequence[int]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            self.batches.append(list(jobs))
            assert self.gate.wait(10)
            if any(job < 0 for job in jobs):
                raise ValueError(f"negative among {list(jobs)}")
            return [job * 2 for job in jobs]
        finally:
            self.running -= 1


def test_a_job_whose_caller_has_gone_is_forgotten_at_once_and_never_run() -> None:
    async def scenario() -> None:
        model = Model()
        model.gate.clear()
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(model.run, max_batch=4, executor=thread)
            first = asyncio.create_task(batcher.submit(1))
            while not model.batches:
                await asyncio.sleep(0.001)
            gone, stays = (asyncio.create_task(batcher.submit(n)) for n in (2, 3))
            await asyncio.sleep(0)
            assert batcher.waiting == 2
            gone.cancel()
            await asyncio.wait([gone])
            assert batcher.waiting == 1
            model.gate.set()
            assert list(await asyncio.gather(first, stays)) == [2, 6]
            assert model.batches == [[1], [3]]

    asyncio.run(scenario())


def test_a_lone_job_starts_at_once_and_what_arrives_meanwhile_is_one_batch() -> None:
    async def scenario() -> None:
        model = Model()
        model.gate.clear()
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(model.run, max_batch=4, executor=thread)
            first = asyncio.create_task(batcher.submit(1))
            while not model.batches:
                await asyncio.sleep(0.001)
            rest = [asyncio.create_task(batcher.submit(n)) for n in range(2, 8)]
            await asyncio.sleep(0.01)
            assert model.batches == [[1]]
            model.gate.set()
            assert await asyncio.gather(first, *rest) == [n * 2 for n in range(1, 8)]
            assert model.batches == [[1], [2, 3, 4, 5], [6, 7]]
            assert model.most_running == 1

    asyncio.run(scenario())


def test_a_lone_job_after_a_busy_time_does_not_wait_for_company() -> None:
    async def scenario() -> None:
        model = Model()
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(model.run, max_batch=2, executor=thread)
            await asyncio.gather(*(batcher.submit(n) for n in range(50)))
            before = len(model.batches)
            assert await batcher.submit(100) == 200
            assert model.batches[before:] == [[100]]

    asyncio.run(scenario())


def test_two_lanes_work_at_once_and_share_what_waits() -> None:
    async def scenario() -> None:
        model = Model()
        model.gate.clear()
        with ThreadPoolExecutor(2) as threads:
            batcher = Batcher(model.run, max_batch=8, executor=threads, lanes=2)
            first = [asyncio.create_task(batcher.submit(n)) for n in (1, 2)]
            while len(model.batches) < 2:
                await asyncio.sleep(0.001)
            rest = [asyncio.create_task(batcher.submit(n)) for n in range(3, 9)]
            await asyncio.sleep(0.01)
            model.gate.set()
            assert await asyncio.gather(*first, *rest) == [n * 2 for n in range(1, 9)]
            assert sorted(model.batches[:2]) == [[1], [2]]
            assert [3, 4, 5] in model.batches  # half of the six; which of two threads begins first is not said
            assert model.most_running == 2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("costs", "batches"),
    [
        ([1, 1, 1, 1, 1], [[0, 1, 2, 3], [4]]),
        ([0.1] * 5, [[0, 1, 2, 3], [4]]),
        ([9, 1, 1], [[0], [1, 2]]),
        ([1, 9, 1], [[0], [1], [2]]),
        ([2, 2, 2, 1, 1], [[0, 1], [2, 3, 4]]),
        ([9, 9], [[0], [1]]),
    ],
)
def test_batches_are_cut_by_cost(costs: list[float], batches: list[list[int]]) -> None:
    async def scenario() -> None:
        model = Model()
        model.gate.clear()
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(model.run, max_batch=4, executor=thread, cost=lambda job: costs[job] if job < 99 else 1.0)
            first = asyncio.create_task(batcher.submit(99))
            while not model.batches:
                await asyncio.sleep(0.001)
            rest = [asyncio.create_task(batcher.submit(number)) for number in range(len(costs))]
            await asyncio.sleep(0.01)
            model.gate.set()
            await asyncio.gather(first, *rest)
            assert model.batches == [[99], *batches]

    asyncio.run(scenario())


def test_callers_who_come_back_together_stay_together() -> None:
    """Four callers, of whom the first came alone: without a moment's patience he would go alone for ever."""

    async def scenario() -> None:
        sizes: list[int] = []

        def run(jobs: Sequence[int]) -> Sequence[int]:
            sizes.append(len(jobs))
            time.sleep(0.25)
            return jobs

        with ThreadPoolExecutor(1) as thread:
            batcher: Batcher[int, int] = Batcher(run, max_batch=8, executor=thread)

            async def caller(number: int) -> None:
                await asyncio.sleep(0.05 if number else 0)
                for _ in range(4):
                    await batcher.submit(number)

            await asyncio.gather(*(caller(number) for number in range(4)))
        assert sizes[0] == 1
        assert 4 in sizes
        assert sum(sizes) == 16

    asyncio.run(scenario())


def test_who_is_waited_for_in_vain_is_not_waited_for_again() -> None:
    async def scenario() -> None:
        model = Model()
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(model.run, max_batch=4, executor=thread)
            await asyncio.gather(*(batcher.submit(n) for n in range(3)))
            await asyncio.sleep(0.1)
            assert batcher._in_vain == 8
            await asyncio.gather(*(batcher.submit(n) for n in range(3)))
            await asyncio.sleep(0.01)
            assert batcher._in_vain == 7

    asyncio.run(scenario())


def test_only_the_job_at_fault_fails() -> None:
    async def scenario() -> None:
        model = Model()
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(model.run, max_batch=8, executor=thread)
            results = await asyncio.gather(*(batcher.submit(n) for n in (1, -2, 3)), return_exceptions=True)
            assert results[0] == 2
            assert results[2] == 6
            assert isinstance(results[1], ValueError)
            assert str(results[1]) == "negative among [-2]"

    asyncio.run(scenario())


def test_a_function_that_loses_results_is_an_error_for_each_job() -> None:
    async def scenario() -> None:
        with ThreadPoolExecutor(1) as thread:
            batcher: Batcher[int, int] = Batcher(lambda jobs: [], max_batch=8, executor=thread)
            with pytest.raises(RuntimeError, match="0 results for 1 jobs"):
                await batcher.submit(1)

    asyncio.run(scenario())


def test_a_job_whose_caller_is_gone_before_its_turn_is_never_run() -> None:
    async def scenario() -> None:
        model = Model()
        model.gate.clear()
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(model.run, max_batch=4, executor=thread)
            first = asyncio.create_task(batcher.submit(1))
            while not model.batches:
                await asyncio.sleep(0.001)
            gone, stays = asyncio.create_task(batcher.submit(2)), asyncio.create_task(batcher.submit(3))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.sleep(0)
            model.gate.set()
            assert await first == 2
            assert await stays == 6
            assert model.batches == [[1], [3]]

    asyncio.run(scenario())


@settings(deadline=None)
@given(st.lists(st.integers(-3, 1000), max_size=60), st.integers(1, 9), st.integers(1, 3))
def test_every_job_gets_its_own_answer_whatever_the_batches(jobs: list[int], max_batch: int, lanes: int) -> None:
    async def scenario() -> None:
        model = Model()
        with ThreadPoolExecutor(lanes) as thread:
            batcher = Batcher(model.run, max_batch=max_batch, executor=thread, lanes=lanes)
            results = await asyncio.gather(*(batcher.submit(job) for job in jobs), return_exceptions=True)
            for job, result in zip(jobs, results, strict=True):
                assert isinstance(result, ValueError) if job < 0 else result == job * 2
            assert all(len(batch) <= max_batch for batch in model.batches)
            assert model.most_running <= lanes

    asyncio.run(scenario())


def _counting_down(calls: list[list[int]]) -> Callable[[Sequence[int]], Sequence[int | Unfinished[int]]]:
    """Jobs of n take n turns, and are answered 0."""

    def run(jobs: Sequence[int]) -> Sequence[int | Unfinished[int]]:
        calls.append(list(jobs))
        time.sleep(0.01)
        return [Unfinished(job - 1) if job > 1 else 0 for job in jobs]

    return run


def test_what_is_left_of_a_long_job_takes_turns_with_new_jobs() -> None:
    async def scenario() -> None:
        calls: list[list[int]] = []
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(_counting_down(calls), max_batch=1, executor=thread)
            long = asyncio.create_task(batcher.submit(4))
            await asyncio.sleep(0)
            short = [asyncio.create_task(batcher.submit(1)) for _ in range(2)]
            assert await asyncio.gather(long, *short) == [0, 0, 0]
        assert calls == [[4], [3], [1], [2], [1], [1]]
        assert batcher.waiting == 0

    asyncio.run(scenario())


def test_several_long_jobs_take_turns_with_each_other_alone() -> None:
    async def scenario() -> None:
        calls: list[list[int]] = []
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(_counting_down(calls), max_batch=8, executor=thread)
            first = asyncio.create_task(batcher.submit(1))
            await asyncio.sleep(0)
            both = [asyncio.create_task(batcher.submit(number)) for number in (3, 30)]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            assert (both[0].done(), both[1].done()) == (True, False)
            assert await asyncio.gather(first, *both) == [0, 0, 0]
        assert calls[:6] == [[1], [3, 30], [2], [29], [1], [28]]

    asyncio.run(scenario())


def test_a_long_job_whose_caller_has_gone_has_no_further_turn() -> None:
    async def scenario() -> None:
        calls: list[list[int]] = []
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(_counting_down(calls), max_batch=1, executor=thread)
            gone = asyncio.create_task(batcher.submit(1000))
            await asyncio.sleep(0.05)
            gone.cancel()
            await asyncio.wait([gone])
            seen = len(calls)
            assert await batcher.submit(1) == 0
        assert len(calls) <= seen + 2  # the turn that was on its way, and the other job's
        assert batcher.waiting == 0

    asyncio.run(scenario())
