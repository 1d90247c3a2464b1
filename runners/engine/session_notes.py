"""Notes of the engine and precision that a model's graphs were opened with, for whoever opens them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_noted: ContextVar[list[tuple[str, str]] | None] = ContextVar("opened", default=None)


@contextmanager
def noted_sessions() -> Iterator[list[tuple[str, str]]]:
    """Give a list that gets engine and precision of each graph that is opened within the block, in this thread."""
    noted: list[tuple[str, str]] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def note_session(engine: str, precision: str) -> None:
    """Note a graph that was opened."""
    noted = _noted.get()
    if noted is not None:
        noted.append((engine, precision))
