"""The protocol of all inference engines: named arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of one input or output of a graph."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    """None where the axis is dynamic."""


class Session(Protocol):
    """A loaded graph. ``run`` may be called from several threads at once."""

    @property
    def inputs(self) -> Sequence[TensorSpec]: ...

    @property
    def outputs(self) -> Sequence[TensorSpec]: ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """Return the graph's own key-value metadata (PP-OCR keeps its alphabet there)."""
        ...

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Compute the graph; return one array per output, in the order of ``outputs``."""
        ...

    def close(self) -> None:
        """Free the graph. The session must not be used afterwards."""
        ...
