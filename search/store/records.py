"""The records of the standalone source, as plain values: files, what the models made of them, and what went wrong.
``store`` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

from runners.contract import Float32

FailedTask: TypeAlias = Literal["read", "ocr", "clip", "faces"]
"""``read``: the file could not be opened or decoded, so no task could be done."""


@dataclass(frozen=True, slots=True)
class File:
    """A file as it lies there."""

    owner: str
    uri: str
    """An absolute path, or ``scheme://…``."""
    kind: Literal["image", "video"]
    size: int
    """Bytes."""
    modified: datetime
    """With a time zone."""
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class Asset(File):
    """A file that the index knows."""

    id: UUID


@dataclass(frozen=True, slots=True)
class Known(Asset):
    """A file that the index knows, and how far its tasks are."""

    done: frozenset[str]
    """Tasks whose results are of the models asked about."""
    failed: frozenset[str]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text in a picture."""

    text: str
    box: tuple[float, ...]
    """x1, y1, …, x4, y4: corners clockwise from the top left, as fractions (0 to 1) of the upright picture's width and
    height.
    """
    box_score: float
    text_score: float


@dataclass(frozen=True, slots=True)
class Text:
    """The text that was read in a picture. No lines: it was read, and there was no text."""

    model: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Vector:
    """The meaning of a picture to one model."""

    model: str
    numbers: Float32
    """(n,) float32, L2 norm 1."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The reason why a task has no result."""

    task: FailedTask
    code: str
    """A code of ``errors.ErrorCode``."""
    message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A problem as it is remembered."""

    owner: str
    uri: str | None
    asset_id: UUID | None
    task: str
    code: str
    message: str
    attempts: int
    failed_at: datetime
