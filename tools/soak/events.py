"""The events of a soak: workers killed, the database and the service restarted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tools.bench.processes import ProcessTree, sum_of_pss
from tools.harness.server import Server
from tools.soak.record import Event


@dataclass(frozen=True, slots=True)
class Service:
    """The service of a soak and its database."""

    server: Server
    database: Path
    """PostgreSQL's folder."""

    def postmaster(self) -> psutil.Process | None:
        """Return PostgreSQL's first process, or None while there is none."""
        try:
            return psutil.Process(int((self.database / "postmaster.pid").read_text().split()[0]))
        except (OSError, ValueError, IndexError, psutil.Error):
            return None

    def memory(self) -> tuple[float, float]:
        """Return MB of PSS of the service, and of its database."""
        postmaster = self.postmaster()
        database = ProcessTree(postmaster.pid).processes() if postmaster is not None else []
        others = {process.pid for process in database}
        own = [process for process in self.server.processes() if process.pid not in others]
        return sum_of_pss(own), sum_of_pss(database)


def kill_runner(service: Service) -> None:
    """Kill the runner of pictures."""
    _kill(service, "PictureRunner")


def kill_gateway(service: Service) -> None:
    """Kill the process that speaks HTTP."""
    _kill(service, "immich_bento")


def _kill(service: Service, name: str) -> None:
    for process in service.server.workers(name):
        with contextlib.suppress(psutil.Error):
            process.kill()


def restart_database(service: Service) -> None:
    """Stop PostgreSQL as its administrator would; the service starts it again."""
    postmaster = service.postmaster()
    if postmaster is not None:
        with contextlib.suppress(psutil.Error):
            os.kill(postmaster.pid, signal.SIGINT)
            postmaster.wait(60)


def restart(service: Service) -> None:
    """End the service by SIGTERM, and start it again."""
    server = service.server
    assert server.process is not None
    server.terminate()
    server.process.wait(60)
    server.spawn()


def is_whole(service: Service, key: str) -> bool:
    """Return whether all processes answer, and search too."""
    url = service.server.url
    try:
        # Not /readyz, which stays 200 while a process takes another's place: the page tells the device if all answer.
        page = httpx.get(url, headers={"accept": "text/html"}, timeout=10).text
        search = httpx.get(url + "/stats", headers={"api-key": key}, timeout=10).status_code
    except httpx.HTTPError:
        return False
    return "<dt>Device</dt>" in page and search == 200


@dataclass(frozen=True, slots=True)
class Plan:
    """Something that is done every so many seconds."""

    what: str
    every: float
    act: Callable[[Service], None]


def plans(seconds: float) -> tuple[Plan, ...]:
    """Return what is done in a soak of ``seconds``: at the pace of an hour's, or as often as to happen in any."""
    return (
        Plan("runner killed", min(60.0, seconds / 4), kill_runner),
        Plan("gateway killed", min(300.0, seconds / 3), kill_gateway),
        Plan("database restarted", min(600.0, seconds / 2), restart_database),
        Plan("restart", min(600.0, seconds / 2), restart),
    )


def schedule(seconds: float, calm: float) -> list[tuple[float, Plan]]:
    """Return when each plan is due in a soak of ``seconds``, in order. They begin apart, so that none coincide.

    ``calm``: seconds at the beginning and at the end in which nothing is due, since memory is compared there.
    """
    times = (
        (at, plan) for place, plan in enumerate(plans(seconds)) for at in _times(plan.every, place, seconds - calm)
    )
    return sorted(((at, plan) for at, plan in times if at >= calm), key=lambda due: due[0])


def _times(every: float, place: int, until: float) -> Iterator[float]:
    at = every * (0.4 + 0.1 * place)
    while at < until:
        yield at
        at += every


async def carry_out(
    service: Service,
    key: str,
    due_times: Sequence[tuple[float, Plan]],
    record: Callable[[Event], object],
    now: Callable[[], float],
) -> None:
    """Do to ``service`` what is due (``schedule``); ``record`` is called with each once all answers again.

    Raises ``AssertionError`` where the service has not come back within two minutes.
    """
    for due, plan in due_times:
        await asyncio.sleep(max(0.0, due - now()))
        at = now()
        await asyncio.to_thread(plan.act, service)
        while not await asyncio.to_thread(is_whole, service, key):
            assert now() - at < 120, f"The service has not come back: {plan.what}.\n{service.server.log[-3000:]}"
            await asyncio.sleep(0.1)
        record(Event(plan.what, at, now()))
