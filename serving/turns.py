"""Turns of clients at the runners, so that nobody's work, however much or costly, makes others wait long.

A runner takes jobs in the order in which they come. So no more are sent to it than keep it busy; the rest waits here,
and the next is chosen by *start-time fair queueing* (Goyal, Vin and Cheng, 1996): each client has a clock that its jobs
advance by their cost, and the job of the client whose clock is furthest behind goes first. A client that was idle
begins at the present; it saves up no claims.

A job says what it costs each runner that it asks. For each runner:

- jobs are sent while their costs fit into its places;
- a *costly* job, of more than half of them, counts as half, and there is one such job at a time: the other half serves
  everybody else meanwhile;
- a client has no more than half of the places while another waits for that runner.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from runners.tasks import tasks_by_name
from settings import Settings

Costs: TypeAlias = Mapping[str, float]
"""Runner -> cost of a job there; 1 is that of an ordinary picture."""
HEADERS = "headers"
"""Name of the thread that reads headers of pictures, as a runner: one header at a time, of each client in turn."""
_LOOKED_AT = 16
"""Jobs of one client that are looked at for one that can be sent: those of one runner hold up no other's for long."""


def open_turns(settings: Settings) -> ClientTurns:
    """Return the turns at the runners of all tasks, and at the thread that reads headers of pictures."""
    tasks = tasks_by_name(settings.extra_tasks).values()
    return ClientTurns({HEADERS: 1.0, **{task.name: task.places(settings) for task in tasks}})


@dataclass(slots=True, eq=False)
class _Job:
    client: str
    costs: Costs
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True)
class _Runner:
    """The jobs that are sent to a runner and not answered yet."""

    places: float
    taken: float = 0.0
    costly: int = 0
    taken_by: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    waiting: Counter[str] = field(default_factory=Counter)
    """Jobs that wait, by client."""

    def weight(self, cost: float) -> float:
        """Return how many places a job of ``cost`` takes."""
        return min(cost, self.places / 2)

    def has_room(self, client: str, cost: float) -> bool:
        weight = self.weight(cost)
        if self.taken == 0:
            return True
        if cost > self.places / 2 and self.costly:
            return False
        others_wait = any(other != client for other in self.waiting)
        has = self.taken_by.get(client, 0.0)
        if others_wait and has and has + weight > self.places / 2:
            return False
        return self.taken + weight <= self.places

    def change(self, client: str, cost: float, sign: int) -> None:
        """Count a job as sent (``sign`` 1) or as answered (-1)."""
        weight = self.weight(cost) * sign
        self.taken = max(0.0, self.taken + weight)
        self.costly += sign * (cost > self.places / 2)
        self.taken_by[client] += weight
        if sign < 0 and self.taken_by[client] < 1e-9:
            del self.taken_by[client]
        if not self.taken_by:
            self.taken = 0.0  # no rounding error outlives a quiet moment


class ClientTurns:
    """Decides whose job is sent to the runners next. Belongs to one event loop."""

    def __init__(self, places: Mapping[str, float]) -> None:
        """``places``: runner -> the cost of the jobs that it is sent at the same time."""
        self._runners = {name: _Runner(number) for name, number in places.items()}
        self._line: dict[str, deque[_Job]] = defaultdict(deque)
        self._clocks: dict[str, float] = {}
        """Of the clients who have jobs waiting or sent."""
        self._jobs: Counter[str] = Counter()
        self._now = 0.0

    @property
    def waiting(self) -> int:
        """Return the number of jobs that wait for their turn."""
        return sum(map(len, self._line.values()))

    @asynccontextmanager
    async def turn(self, client: str, costs: Costs) -> AsyncIterator[None]:
        """Wait until a job of ``client`` may be sent to the runners in ``costs``; it is answered at the end of the
        block.

        Raises ``KeyError`` where a runner is not known.
        """
        job = _Job(client, costs)
        self._begin(job)
        try:
            self._serve()
            await job.turn
            yield
        finally:
            self._end(job)
            self._serve()

    def _begin(self, job: _Job) -> None:
        for runner in [self._runners[name] for name in job.costs]:
            runner.waiting[job.client] += 1
        self._line[job.client].append(job)
        self._jobs[job.client] += 1
        self._clocks[job.client] = max(self._clocks.get(job.client, 0.0), self._now)

    def _end(self, job: _Job) -> None:
        if job in self._line.get(job.client, ()):
            self._leave_line(job)
        else:
            for name, cost in job.costs.items():
                self._runners[name].change(job.client, cost, -1)
        self._jobs[job.client] -= 1
        if not self._jobs[job.client]:
            del self._jobs[job.client]
            if self._clocks[job.client] <= self._now:
                del self._clocks[job.client]
        if not self._jobs:
            self._clocks.clear()
            self._now = 0.0

    def _leave_line(self, job: _Job) -> None:
        for name in job.costs:
            waiting = self._runners[name].waiting
            waiting[job.client] -= 1
            if not waiting[job.client]:
                del waiting[job.client]
        line = self._line[job.client]
        line.remove(job)
        if not line:
            del self._line[job.client]

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            self._leave_line(job)
            for name, cost in job.costs.items():
                self._runners[name].change(job.client, cost, 1)
            self._now = max(self._now, self._clocks[job.client])
            self._clocks[job.client] += sum(job.costs.values())
            if not job.turn.done():
                job.turn.set_result(None)

    def _next(self) -> _Job | None:
        for client in sorted(self._line, key=self._clocks.__getitem__):
            for job, _ in zip(self._line[client], range(_LOOKED_AT), strict=False):
                if all(self._runners[name].has_room(client, cost) for name, cost in job.costs.items()):
                    return job
        return None
