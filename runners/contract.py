"""The one seam between those who ask (compat, search) and those who compute (runners).

A *job* is one picture with the tasks wanted of it, or one text; the options of a task travel inside the job. A
*result* is per task: ``Embedding``, ``Faces``, ``TextLines``, or a ``Failure`` that concerns this task of this job
alone. All are plain frozen dataclasses of numbers, strings and numpy arrays; ``runners.bento.codec`` says how they
cross process borders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from errors import ErrorCode, ServiceError

if TYPE_CHECKING:
    from runners.pictures.pixels import SharedPixels

Float32: TypeAlias = NDArray[np.float32]
Options: TypeAlias = Any
"""A frozen dataclass of numbers and strings (``FaceOptions``, …), or None: the task says of which type."""


@dataclass(frozen=True, slots=True)
class FaceOptions:
    """Options of faces."""

    min_score: float
    """Faces that the detector scores below this (0 to 1) are left out."""


@dataclass(frozen=True, slots=True)
class OcrOptions:
    """Options of OCR, with Immich's own defaults.

    Immich's server always sends all three. Its 0.8 for recognition is what is meant here by a request that leaves it
    out, although Immich ML 3 itself then takes 0.9.
    """

    min_detection_score: float = 0.5
    """Boxes scored below this (0 to 1) are left out."""
    min_recognition_score: float = 0.8
    """Lines whose text is scored below this (0 to 1) are left out."""
    max_resolution: int = 736
    """Pixels: the short side at which text is looked for (Immich's ``maxResolution``)."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One task that a job wants of its picture, by one model."""

    task: str
    """Name of a task (``runners.tasks``)."""
    model: str
    """Name of a model in the catalog."""
    options: Options = None
    cost: float = 1.0
    """Estimated work, in ordinary pictures (``Task.cost``): batches are cut by it."""


@dataclass(frozen=True, slots=True)
class PictureJob:
    """One picture, as the client sent it, and all that is wanted of it. It is sent once to each process."""

    data: bytes = field(repr=False)
    """The encoded file (JPEG, PNG, WebP, ...), never pixels."""
    asks: tuple[Ask, ...]
    """At most one of each task."""
    upright: bool = False
    """Turn the picture by its EXIF orientation first; boxes are in pixels of the turned picture then. CLIP ignores it.
    Immich sends upright pictures and expects the tag to be ignored; clients that send a camera's own files do not."""


@dataclass(frozen=True, slots=True)
class ImageJob:
    """The input of a model: one picture, and the options of its own task."""

    data: bytes = field(repr=False)
    """The encoded file."""
    model: str
    options: Options = None
    """None for CLIP."""
    upright: bool = False
    """See ``PictureJob``."""
    shared: SharedPixels | None = field(default=None, compare=False, repr=False)
    """The decoded picture of all tasks of a ``PictureJob`` in this process."""
    cost: float = 1.0
    """See ``Ask``."""
    begun: Any = field(default=None, compare=False, repr=False)
    """The model's own state from earlier turns (``runners.batching.Unfinished``); None before the first."""

    def pixels(self, *, max_pixels: int) -> NDArray[np.uint8]:
        """Return the whole picture, (h, w, 3) uint8 RGB, decoded once for all tasks of its job. Do not write to it.

        Raises ``ServiceError``: UNREADABLE_PICTURE, PICTURE_TOO_LARGE.
        """
        from runners.pictures.decode import decode

        if self.shared is not None:
            return self.shared.take(max_pixels=max_pixels)
        return decode(self.data, max_pixels=max_pixels, upright=self.upright).pixels

    def pixels_on_other_ground(self, *, max_pixels: int) -> NDArray[np.uint8] | None:
        """Return a transparent picture on the ground that ``pixels`` did not lay it on; None where it is not
        transparent. For a look at what may not be visible on the first. Raises as ``pixels`` does.
        """
        from runners.pictures.decode import decode, may_be_transparent

        if self.shared is not None and self.shared.is_opaque:
            return None
        if not may_be_transparent(self.data, max_pixels=max_pixels):
            return None
        picture = decode(self.data, max_pixels=max_pixels, upright=self.upright, other_ground=True)
        return picture.pixels if picture.transparent else None


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
    """(n, 4, 2) float32: corners clockwise, x and y in pixels of the picture as sent. The first is the top left one of
    the box; of a text that stands on its head or runs upwards it is the text's own."""
    box_scores: Float32
    """(n,) float32, 0 to 1."""
    text_scores: Float32
    """(n,) float32, 0 to 1."""
    left_out: int = 0
    """Regions that may hold text and were not looked at, because there are more than OCR_MAX_BOXES."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The outcome of a job that has no result."""

    code: ErrorCode
    message: str

    def raise_(self) -> None:
        """Raise this failure as a ``ServiceError``."""
        raise ServiceError(self.code, self.message)


@dataclass(frozen=True, slots=True)
class ModelState:
    """The state of one model's files on this machine. It need not be in memory."""

    task: str
    """A runner's name: ``clip_image``."""
    model: str
    """The catalog's name."""
    state: Literal["here", "on its way", "unavailable"]
    named: bool
    """True if a setting names it, and it was to be fetched at the start."""
    detail: str = ""
    """For a person: how far it is, with rate and time left, or why it cannot be had."""
    percent: int | None = None
    """Percentage of the present work (the download, the conversion) that is done, 0 to 100; None where nobody knows."""
    waiting: str = ""
    """For a person, without an address: for which hubs it waits, since when, and until when. Empty where for none."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory."""

    task: str
    """A runner's name: ``clip_image``."""
    model: str
    """The catalog's name."""
    engine: str
    """``openvino`` or ``onnxruntime``; empty where the task has an engine of its own."""
    precision: str
    """``bf16``, ``fp32``, ``int8``; several, joined by a plus sign, where the graphs of a model differ."""
    memory: int
    """Bytes by which its process grew while it was loaded; what other work took meanwhile is among them."""


Result: TypeAlias = Any
"""A frozen dataclass as the task's ``result`` says: ``Embedding``, ``Faces``, ``TextLines``, …"""


class Runners(Protocol):
    """Everything that computes, as its callers see it. A job of which a task failed raises its ``ServiceError``;
    one whose model is being fetched ``ModelOnItsWay``.

    For a single task see also ``runners.task.Task.of_picture`` and ``of_text``.
    """

    async def picture(self, job: PictureJob) -> Mapping[str, Result]:
        """Run all tasks of ``job`` at the same time. Returns the results by the names of the tasks."""
        ...

    async def text(self, task: str, job: TextJob) -> Result:
        """Run the task named ``task`` on one text."""
        ...

    async def arrival(self, task: str, model: str) -> None:
        """Return once the files of ``model`` are not on their way any more: they are here, or cannot be had."""
        ...

    async def models(self) -> Sequence[ModelState]:
        """Return the models that settings name or that were asked for, with whether their files are here."""
        ...

    async def loaded_models(self) -> Mapping[str, tuple[str, ...]]:
        """Return the names of the models in memory now, by the tasks' names in the protocol (``clip``, ``ocr``, …)."""
        ...

    async def in_memory(self) -> Sequence[LoadedModel]:
        """Return the models in memory now, with what computes them and how much memory they took."""
        ...

    async def unload_models(self) -> Mapping[str, tuple[str, ...]]:
        """Give the memory of all models back, of those in use as soon as they are free.

        Returns the names of what was unloaded, by the tasks' names in the protocol.
        """
        ...

    async def device(self) -> str:
        """Return what the models run on: ``cpu``, ``cuda`` or ``openvino``; several devices are joined by commas."""
        ...
