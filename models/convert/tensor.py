"""Tensors that lie in a file until they are read, one at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.convert.refusal import ConversionRefused

Shape: TypeAlias = tuple[int, ...]

BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
"""Types of the numbers that a checkpoint may hold, and the size of one in bytes."""
MOST_AXES = 8
"""Of a tensor; those of a CN-CLIP have four at most."""


class Tensor(Protocol):
    """An array of numbers whose shape is known before it is read."""

    @property
    def shape(self) -> Shape: ...

    def read(self) -> NDArray[Any]:
        """Return the numbers. Raises ``ConversionRefused`` where the file is too short, ``OSError``."""
        ...


Tensors: TypeAlias = Mapping[str, Tensor]
"""Tensors by name."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, little-endian. The maker has checked that it lies within its part of the file."""

    path: Path
    dtype: str
    """A key of ``BYTES``."""
    offset: int
    """Bytes before the first number."""
    shape: Shape
    strides: Shape
    """Numbers, not bytes, from one place to the next along each axis; none is negative."""

    @cached_property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def span(self) -> int:
        """Return how many numbers are read of the file."""
        return span_of(self.shape, self.strides)

    def read(self) -> NDArray[Any]:
        """Return the numbers in their own type; those of bfloat16 in float32. Raises as ``Tensor.read`` does."""
        size = BYTES[self.dtype]
        span = self.span
        with self.path.open("rb") as file:
            file.seek(self.offset)
            flat = np.fromfile(
                file, np.dtype("uint16" if self.dtype == "bfloat16" else self.dtype).newbyteorder("<"), span
            )
        if len(flat) != span:
            raise ConversionRefused(f"{self.path} is truncated: it ends within a tensor. Download it again.")
        if self.dtype == "bfloat16":
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
            size = 4
        if self.strides == contiguous(self.shape):
            return np.asarray(flat.reshape(self.shape))
        view = np.ndarray(self.shape, flat.dtype, flat, strides=[step * size for step in self.strides])
        return np.array(view)


@dataclass(frozen=True)
class ArrayTensor:
    """A tensor that is in memory."""

    array: NDArray[Any]

    @property
    def shape(self) -> Shape:
        return self.array.shape

    def read(self) -> NDArray[Any]:
        return self.array


@dataclass(frozen=True)
class TransposedTensor:
    """A matrix whose two axes change places when it is read."""

    matrix: Tensor

    @property
    def shape(self) -> Shape:
        return self.matrix.shape[::-1]

    def read(self) -> NDArray[Any]:
        return np.asarray(self.matrix.read().T)


@dataclass(frozen=True)
class ConcatenatedTensor:
    """Tensors one after the other along the first axis. The maker has checked that their other axes are alike."""

    parts: Sequence[Tensor]

    @property
    def shape(self) -> Shape:
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    def read(self) -> NDArray[Any]:
        return np.concatenate([part.read() for part in self.parts])


def contiguous(shape: Shape) -> Shape:
    """Return the strides, in numbers, of an array of ``shape`` that is laid out row by row."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def span_of(shape: Shape, strides: Shape) -> int:
    """Return how many numbers lie between a tensor's first and last, both included; 0 where it has none."""
    if 0 in shape:
        return 0
    return 1 + sum((side - 1) * step for side, step in zip(shape, strides, strict=True))
