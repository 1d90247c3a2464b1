"""A task in one file: the mean colour of a picture. Served with ``EXTRA_TASKS=tests.e2e.fifth_task``."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from compat.immich.entries import Asked, Entry, find_model
from errors import ErrorCode, ServiceError
from models.catalog import Catalog
from runners.contract import Failure, Float32, ImageJob
from runners.pictures.header import Header
from runners.task import Loading, Task
from settings import Settings

MODEL = "mean"
STANDS_STILL = 77.0
"""A scale at which the whole process does: C's ``sleep`` is called without letting go of Python's interpreter lock."""


@dataclass(frozen=True)
class ColourOptions:
    """Options of one job."""

    scale: float
    """Value that 255 becomes."""


@dataclass(frozen=True)
class Colour:
    """The mean colour of one picture."""

    rgb: Float32
    """(3,) float32, 0 to the job's ``scale``."""


class ColourModel:
    """Computes means. A model with weights would open them with ``Loading.open``."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels

    def run(self, jobs: Sequence[ImageJob]) -> list[Colour | Failure]:
        """Return one result per job, in order."""
        return [self._colour(job) for job in jobs]

    def close(self) -> None:
        """Free nothing: there are no weights."""

    def _colour(self, job: ImageJob) -> Colour | Failure:
        if job.options.scale == STANDS_STILL:
            ctypes.PyDLL(None).sleep(60)
        try:
            pixels = job.pixels(max_pixels=self._max_pixels)
        except ServiceError as error:
            return Failure(error.code, error.message)
        return Colour((pixels.mean(axis=(0, 1)) / 255 * job.options.scale).astype(np.float32))


def _load(name: str, using: Loading) -> ColourModel:
    return ColourModel(using.settings.max_picture_pixels)


def _find(catalog: Catalog, name: str) -> str:
    if name != MODEL:
        raise ServiceError(ErrorCode.UNKNOWN_MODEL, f"No colour model is called {name[:100]!r}. Known: {MODEL}.")
    return name


COLOUR = Task(
    name="colour",
    label="colour",
    process="ColourRunner",
    result=Colour,
    load=_load,
    find=_find,
    options=ColourOptions,
    preload=lambda settings: (MODEL,),
    route=lambda settings: "upstream" if os.environ.get("ROUTE_COLOUR") == "upstream" else "local",
)


class _Colour(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    model_name: str = Field(alias="modelName")
    scale: float = Field(255.0, gt=0)


def _read(asked: _Colour, catalog: Catalog, settings: Settings) -> Asked:
    model = find_model(COLOUR, asked.model_name, catalog, settings)
    return Asked(COLOUR, model, _answer, ColourOptions(asked.scale))


def _answer(colour: Colour, header: Header) -> dict[str, Any]:
    return {"colour": colour.rgb.tolist()}


TASKS = (COLOUR,)
ENTRIES = (Entry("colour", _Colour, _read),)
