"""A loader of fake models with a fake clock, for the tests of ``runners.model_cache``."""

from __future__ import annotations

from collections.abc import Callable

from runners.model_cache import ModelCache

TTL, RETRY_AFTER = 300.0, 30.0
PATIENCE = 60  # seconds after which a test of threads is taken to hang


class FakeModel:
    def __init__(self, name: str) -> None:
        self.name = name
        self.is_open = True


class Depot:
    """Loads and closes fake models, and watches that no model is ever in memory twice."""

    def __init__(self) -> None:
        self.now = 0.0
        self.broken: dict[str, Exception] = {}
        self.tried: list[str] = []
        self.closed: list[str] = []
        self.open: dict[str, FakeModel] = {}
        self.while_loading: Callable[[str], object] = lambda name: None
        self.while_closing: Callable[[str], object] = lambda name: None
        self._busy: set[str] = set()

    def load(self, name: str) -> FakeModel:
        assert name not in self.open, "loaded twice"
        assert name not in self._busy, "loaded while being loaded or closed"
        self._busy.add(name)
        try:
            self.tried.append(name)
            self.while_loading(name)
            if name in self.broken:
                raise self.broken[name]
            self.open[name] = FakeModel(name)
            return self.open[name]
        finally:
            self._busy.remove(name)

    def close(self, model: FakeModel) -> None:
        assert model.name not in self._busy
        self._busy.add(model.name)
        self.while_closing(model.name)
        assert self.open.pop(model.name) is model
        model.is_open = False
        self.closed.append(model.name)
        self._busy.remove(model.name)

    def cache(self, *, ttl: float = TTL, retry_after: float = RETRY_AFTER) -> ModelCache[FakeModel]:
        return ModelCache(self.load, self.close, ttl=ttl, retry_after=retry_after, clock=lambda: self.now)


def use(cache: ModelCache[FakeModel], name: str) -> FakeModel:
    with cache.lease(name) as model:
        assert model.is_open
        return model
