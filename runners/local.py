"""The runners of one process, without BentoML: what a runner service has inside, and what indexing on Ray asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from errors import ErrorCode
from models.catalog import load_catalog
from runners.allocator import configure_allocator
from runners.arrivals import Arrivals
from runners.contract import Failure, PictureJob, Result
from runners.engine import EnginePlan, plan_engine
from runners.engine.lanes import lanes_of
from runners.engine.threads import available_cores, keep_opencv_to_the_calling_thread
from runners.runner import Model, Runner, RunnerLimits, run_picture
from runners.task import Loading, Task
from runners.turns import CoreTurns
from settings import Settings


def make_runners(tasks: Iterable[Task[Any]], using: Loading) -> dict[str, Runner[Any, Any]]:
    """Return a runner for each of ``tasks``, by name. They take turns at the cores; nothing is loaded yet."""
    config = using.settings
    limits = RunnerLimits(
        max_batch=config.max_batch,
        model_ttl=config.model_ttl,
        retry_after=config.model_retry_after,
        turns=CoreTurns(config.request_threads or available_cores()),
    )
    return {
        task.name: Runner(
            task.name,
            partial(_load, task, using),
            limits,
            lanes=_lanes(task, using.plan),
            decodes_whole=task.decodes_whole,
            arrivals=_arrivals(task, using),
        )
        for task in tasks
    }


def _load(task: Task[Any], using: Loading, name: str) -> Model[Any, Any]:
    return task.load(name, using)


def _lanes(task: Task[Any], plan: EnginePlan) -> int:
    return lanes_of(plan.threads) if task.laned and plan.device == "cpu" else 1


def _arrivals(task: Task[Any], using: Loading) -> Arrivals | None:
    source = task.source(using)
    return Arrivals(task.name, source, retry_after=using.settings.model_retry_after) if source is not None else None


class LocalRunners:
    """Tasks on pictures, computed in this process. Belongs to one event loop."""

    def __init__(self, tasks: Iterable[Task[Any]], config: Settings) -> None:
        """Set the process up for ``tasks``. Raises ``DeviceUnusable`` where DEVICE names what does not work here."""
        configure_allocator()
        keep_opencv_to_the_calling_thread()
        self._using = Loading(load_catalog(config.model_catalog), config, plan_engine(config))
        self._runners = make_runners(tasks, self._using)

    async def picture(self, job: PictureJob) -> Mapping[str, Result | Failure]:
        """Run all tasks of ``job``, once the files of their models are here. Returns what became of each, by name."""
        while True:
            results = await run_picture(self._runners, job)
            codes = {result.code for result in results.values() if isinstance(result, Failure)}
            if ErrorCode.MODEL_ON_ITS_WAY not in codes:
                return results
            # Each try waits for the files itself, a moment.
