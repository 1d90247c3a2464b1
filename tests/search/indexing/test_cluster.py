"""Files of processes that end: done by another one, tried alone, and at last told as at fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from search.indexing import cluster
from search.indexing.cluster import ActorEnded, ClusterWorkers
from search.indexing.formats import Kind
from search.indexing.places import Entry
from search.indexing.plan import Need, Options, Step
from search.indexing.predictor import CannotGoOn
from search.indexing.worker import Done
from search.store.records import Problem

COMPUTED = Done(computed=True)


def step(name: str) -> Step:
    entry = Entry(f"/photos/{name}", Kind.IMAGE, 1, datetime(2026, 1, 1, tzinfo=timezone.utc))
    return Step(entry, None, Need.READ, frozenset({"clip"}))


class FakeActor:
    """Does files as ``answer`` says: it returns, raises, or ends."""

    def __init__(self, answer: Callable[[Step], Done] = lambda step: COMPUTED, *, returns: bool = True) -> None:
        self.answer, self.returns = answer, returns
        self.done: list[str] = []
        self.at_once = self.most_at_once = 0

    async def do(self, step: Step) -> Done:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        result = self.answer(step)
        self.done.append(step.entry.uri.rpartition("/")[2])
        return result

    async def is_ready(self) -> bool:
        return self.returns


class FakeDatabase:
    """Keeps the problems that are noted."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str, Problem]] = []

    async def run(self, work: Any, owner: str, uri: str, problem: Problem) -> None:
        self.noted.append((owner, uri, problem))


def workers(*actors: FakeActor, spare: FakeActor | None = None, jobs: int = 2) -> tuple[ClusterWorkers, FakeDatabase]:
    database = FakeDatabase()
    return ClusterWorkers(actors, spare or FakeActor(), database, Options("ann", jobs)), database  # type: ignore[arg-type]


def ends(step: Step) -> Done:
    raise ActorEnded("killed")


def ends_at(name: str) -> Callable[[Step], Done]:
    return lambda step: ends(step) if step.entry.uri.endswith(name) else COMPUTED


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_LOOK_EVERY", 0.01)


async def all_done(cluster: ClusterWorkers, names: list[str]) -> list[Done]:
    try:
        return await asyncio.gather(*(cluster.do(step(name)) for name in names))
    finally:
        await cluster.close()


def test_files_are_spread_and_no_actor_has_more_than_its_share() -> None:
    one, other = FakeActor(), FakeActor()
    cluster, _ = workers(one, other, jobs=3)
    names = [f"{number}.jpg" for number in range(40)]
    assert asyncio.run(all_done(cluster, names)) == [COMPUTED] * 40
    assert sorted(one.done + other.done) == sorted(names)
    assert one.done
    assert other.done
    assert max(one.most_at_once, other.most_at_once) <= 3


def test_another_actor_does_what_one_that_is_gone_for_good_left() -> None:
    gone, other = FakeActor(ends, returns=False), FakeActor()
    cluster, database = workers(gone, other)
    names = [f"{number}.jpg" for number in range(20)]
    assert asyncio.run(all_done(cluster, names)) == [COMPUTED] * 20
    assert sorted(other.done) == sorted(names)
    assert not database.noted


def test_an_actor_that_is_back_does_files_again() -> None:
    ended: list[str] = []

    def once(step: Step) -> Done:
        if not ended:
            ended.append(step.entry.uri)
            raise ActorEnded("killed")
        return COMPUTED

    only = FakeActor(once)
    cluster, _ = workers(only, jobs=1)
    assert asyncio.run(all_done(cluster, ["a.jpg", "b.jpg"])) == [COMPUTED] * 2
    assert sorted(only.done) == ["a.jpg", "b.jpg"]


def test_a_file_that_ends_others_is_done_alone() -> None:
    spare = FakeActor()
    cluster, database = workers(FakeActor(ends_at("bad.jpg")), FakeActor(ends_at("bad.jpg")), spare=spare)
    assert asyncio.run(all_done(cluster, ["a.jpg", "bad.jpg", "b.jpg"])) == [COMPUTED] * 3
    assert spare.done == ["bad.jpg"]
    assert not database.noted


def test_a_file_that_ends_every_process_is_noted_and_the_others_are_done() -> None:
    bad = ends_at("bad.jpg")
    cluster, database = workers(FakeActor(bad), FakeActor(bad), spare=FakeActor(bad))
    first, second, third = asyncio.run(all_done(cluster, ["a.jpg", "bad.jpg", "b.jpg"]))
    assert first == third == COMPUTED
    [problem] = second.problems
    assert problem.task == "read"
    assert problem.code == "internal"
    assert "4 processes" in problem.message
    assert "killed" in problem.message
    assert database.noted == [("ann", "/photos/bad.jpg", problem)]


def test_what_an_actor_raises_passes_and_it_goes_on() -> None:
    def refuse(step: Step) -> Done:
        if step.entry.uri.endswith("a.jpg"):
            raise CannotGoOn("There is no such model.")
        return COMPUTED

    cluster, _ = workers(FakeActor(refuse), jobs=1)

    async def inside() -> Done:
        with pytest.raises(CannotGoOn, match="no such model"):
            await cluster.do(step("a.jpg"))
        return await cluster.do(step("b.jpg"))

    assert asyncio.run(inside()) == COMPUTED


def test_a_cluster_without_actors_is_told_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "GIVE_UP_AFTER", 0.05)
    lost, _ = workers(FakeActor(ends, returns=False), jobs=1)

    async def inside() -> str:
        assert lost.waiting == ""
        with pytest.raises(CannotGoOn, match="No actor of the cluster has run"):
            await lost.do(step("a.jpg"))
        told = lost.waiting
        await lost.close()
        return told

    assert asyncio.run(inside()) == "no actor of the cluster runs; waiting for one"
