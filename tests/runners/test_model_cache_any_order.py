"""Every order of calls to a model cache, beside the simplest description of what should be in memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from errors import ModelUnavailable
from tests.runners.model_cache_depot import RETRY_AFTER, TTL, Depot, FakeModel


class CacheMachine(RuleBasedStateMachine):
    """Any sequence of calls by one thread, beside the simplest description of what should be in memory."""

    leases = Bundle("leases")
    names = st.sampled_from(["a", "b", "c"])

    def __init__(self) -> None:
        super().__init__()
        self.depot = Depot()
        self.cache = self.depot.cache()
        self.pinned: set[str] = set()
        self.users: dict[str, int] = {}
        self.last_used: dict[str, float] = {}
        self.retired: set[str] = set()
        self.failed_at: dict[str, float] = {}
        self.expected: set[str] = set()

    def _attempt(self, name: str, attempt: Callable[[], object]) -> bool:
        """Make an attempt that loads ``name`` if need be; whether it should have been, and was, successful."""
        self.last_used[name] = self.depot.now
        tried = len(self.depot.tried)
        remembered = self.depot.now - self.failed_at.get(name, -1e9) < RETRY_AFTER
        if name in self.expected or (not remembered and name not in self.depot.broken):
            attempt()
            assert len(self.depot.tried) - tried == (name not in self.expected)
            self.expected.add(name)
            self.failed_at.pop(name, None)
            return True
        with pytest.raises(ModelUnavailable):
            attempt()
        assert len(self.depot.tried) - tried == (not remembered)
        if not remembered:
            self.failed_at[name] = self.depot.now
        return False

    @rule(target=leases, name=names)
    def begin(self, name: str) -> tuple[str, AbstractContextManager[FakeModel], FakeModel] | None:
        lease = self.cache.lease(name)
        models: list[FakeModel] = []
        if not self._attempt(name, lambda: models.append(lease.__enter__())):
            return None
        self.users[name] = self.users.get(name, 0) + 1
        return name, lease, models[0]

    @rule(lease=consumes(leases))
    def end(self, lease: tuple[str, AbstractContextManager[FakeModel], FakeModel] | None) -> None:
        if lease is None:
            return
        name, context, model = lease
        assert model.is_open
        context.__exit__(None, None, None)
        self.users[name] -= 1
        self.last_used[name] = self.depot.now
        if not self.users[name] and name in self.retired:
            self.expected.discard(name)
            self.retired.discard(name)

    @rule(name=names)
    def pin(self, name: str) -> None:
        self.pinned.add(name)
        if self._attempt(name, lambda: self.cache.pin(name)) and not self.users.get(name) and name in self.retired:
            self.expected.discard(name)

    @rule(name=names)
    def break_source(self, name: str) -> None:
        self.depot.broken[name] = ModelUnavailable(f"{name} cannot be had")

    @rule(name=names)
    def mend_source(self, name: str) -> None:
        self.depot.broken.pop(name, None)

    @rule(seconds=st.sampled_from([1, 29, 30, 31, 299, 300, 301]))
    def wait(self, seconds: int) -> None:
        self.depot.now += seconds

    @rule()
    def unload_idle(self) -> None:
        idle = {
            name
            for name in self.expected - self.pinned
            if not self.users.get(name) and self.depot.now - self.last_used[name] >= TTL
        }
        assert set(self.cache.unload_idle()) == idle
        self.expected -= idle

    @rule()
    def unload_all(self) -> None:
        self.retired = {name for name in self.expected if self.users.get(name)}
        assert set(self.cache.unload_all()) == self.expected - self.retired
        self.expected = set(self.retired)

    @invariant()
    def what_is_in_memory_is_what_should_be(self) -> None:
        assert set(self.cache.loaded()) == set(self.depot.open) == self.expected


TestAnyOrderOfCalls = CacheMachine.TestCase
TestAnyOrderOfCalls.settings = settings(deadline=None, max_examples=30, stateful_step_count=40)
