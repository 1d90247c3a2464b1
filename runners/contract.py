"""The one seam between those who ask (compat, search) and those who compute (runners).

A *job* is what one caller wants of one picture or one text, options included. A *result* is what one job
came to: ``Embedding``, ``Faces``, ``TextLines``, or a ``Failure`` that concerns this job alone. All are plain frozen
dataclasses; they cross process borders pickled, over a Unix socket of our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from errors import ErrorCode, ServiceError

Float32: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FaceOptions:
    """Options of one face job."""

    min_score: float
    """Faces that the detector scores below this (0 to 1) are left out."""


@dataclass(frozen=True, slots=True)
class OcrOptions:
    """Options of one OCR job."""

    min_detection_score: float
    """Boxes scored below this (0 to 1) are left out."""
    min_recognition_score: float
    """Lines whose text is scored below this (0 to 1) are left out."""
    max_resolution: int
    """Pixels: the short side at which text is looked for (Immich's ``maxResolution``)."""


@dataclass(frozen=True, slots=True)
class ImageJob:
    """One picture, as the client sent it, for one model."""

    data: bytes = field(repr=False)
    """The encoded file (JPEG, PNG, WebP, ...), never pixels."""
    model: str
    """A name that the catalog knows."""
    options: FaceOptions | OcrOptions | None = None
    """None for CLIP."""
    upright: bool = False
    """Faces and OCR: turn the picture by its EXIF orientation first; boxes are in pixels of the turned picture then.
    Immich sends upright pictures and expects the tag to be ignored; clients that send a camera's own files do not."""


@dataclass(frozen=True, slots=True)
class TextJob:
    """One text for one CLIP text model."""

    text: str
    model: str
    language: str | None = None
    """BCP 47 tag of the person's interface (``zh-CN``); only multilingual models look at it."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """A CLIP vector."""

    vector: Float32
    """(n,) float32, L2 norm 1."""


@dataclass(frozen=True, slots=True)
class Faces:
    """The faces of one picture, best score first. All arrays have the same length n, which may be 0."""

    boxes: Float32
    """(n, 4) float32: x1, y1, x2, y2, corners in pixels of the picture as sent."""
    scores: Float32
    """(n,) float32, 0 to 1."""
    embeddings: Float32
    """(n, d) float32, each row of L2 norm 1."""


@dataclass(frozen=True, slots=True)
class TextLines:
    """The lines of text of one picture, in reading order. All have the same length n, which may be 0."""

    texts: tuple[str, ...]
    boxes: Float32
    """(n, 4, 2) float32: corners clockwise from the top left of the text, x and y in pixels of the picture as sent."""
    box_scores: Float32
    """(n,) float32, 0 to 1."""
    text_scores: Float32
    """(n,) float32, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What became of a job that has no result."""

    code: ErrorCode
    message: str

    def raise_(self) -> None:
        """Raise this failure as a ``ServiceError``."""
        raise ServiceError(self.code, self.message)


Job: TypeAlias = "ImageJob | TextJob"
Result: TypeAlias = "Embedding | Faces | TextLines | Failure"


class Runners(Protocol):
    """Everything that computes, as its callers see it. A failed job raises ``ServiceError``."""

    async def clip_image(self, job: ImageJob) -> Embedding: ...

    async def clip_text(self, job: TextJob) -> Embedding: ...

    async def faces(self, job: ImageJob) -> Faces: ...

    async def ocr(self, job: ImageJob) -> TextLines: ...

    async def loaded_models(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the models in memory now, by task (``clip``, ``facial-recognition``, ``ocr``)."""
        ...

    async def unload_models(self) -> Mapping[str, tuple[str, ...]]:
        """Give the memory of all models back, of those in use as soon as they are free. Names of what was unloaded, by
        task.
        """
        ...

    async def device(self) -> str:
        """What the models run on: ``cpu``, ``cuda`` or ``openvino``."""
        ...
