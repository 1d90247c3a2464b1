"""CPU time of a program by part: existing functions are wrapped, so that the program itself holds no clocks."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

from numpy.typing import NDArray

from runners.engine import Session


class Stopwatch:
    """CPU seconds of the process by part, for one calling thread.

    A part that is called within another is taken out of it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner: list[float] = []

    @contextmanager
    def measuring(self, part: str) -> Iterator[None]:
        """Count what the process computes meanwhile as ``part``, without what is measured within."""
        self._inner.append(0.0)
        began = time.process_time()
        try:
            yield
        finally:
            whole = time.process_time() - began
            self.seconds[part] = self.seconds.get(part, 0.0) + whole - self._inner.pop()
            if self._inner:
                self._inner[-1] += whole

    def wrapped(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function`` wrapped, so that its calls are measured."""

        @functools.wraps(function)
        def measured(*given: Any, **named: Any) -> Any:
            with self.measuring(part):
                return function(*given, **named)

        return measured

    @contextmanager
    def watching(self, parts: Mapping[str, Sequence[tuple[ModuleType | type, str]]]) -> Iterator[None]:
        """Measure the named functions as parts while the context lasts.

        ``parts``: modules or classes, and names in them, by part. Raise ``AttributeError`` if a name does not exist.
        """
        undo = []
        try:
            for part, places in parts.items():
                for owner, name in places:
                    replaced = patch.object(owner, name, self.wrapped(part, getattr(owner, name)))
                    replaced.start()
                    undo.append(replaced)
            yield
        finally:
            for replaced in reversed(undo):
                replaced.stop()


class MeasuredSession:
    """A session whose ``run`` is the part ``infer``."""

    def __init__(self, session: Session, watch: Stopwatch) -> None:
        self.inputs, self.outputs, self.metadata = session.inputs, session.outputs, session.metadata
        self._session, self._watch = session, watch

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        with self._watch.measuring("infer"):
            return self._session.run(feeds)

    def close(self) -> None:
        self._session.close()
