"""The interface by which a picture is computed again, and its implementation over the runners, for the service."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from runners.contract import OcrOptions, Runners, TextLines
from runners.pictures.header import read_header
from runners.tasks import CLIP_IMAGE, OCR
from search.store.records import Line, Text, Vector


class Recompute(Protocol):
    """Computes on upright pictures: encoded bytes without an EXIF orientation that would turn them. Raises
    ``ServiceError``.
    """

    async def embed(self, picture: bytes, model: str) -> Vector:
        """Return the CLIP vector by ``model``, a name of the catalog."""
        ...

    async def read(self, picture: bytes, model: str, options: OcrOptions) -> Text:
        """Return the lines of text by ``model``, a name of the catalog.

        Corners are fractions of the picture's width and height.
        """
        ...


class RunnersRecompute:
    """``Recompute`` on the service's own runners."""

    def __init__(self, runners: Runners, *, max_pixels: int) -> None:
        self._runners = runners
        self._max_pixels = max_pixels

    async def embed(self, picture: bytes, model: str) -> Vector:
        return Vector(model, (await CLIP_IMAGE.of_picture(self._runners, picture, model)).vector)

    async def read(self, picture: bytes, model: str, options: OcrOptions) -> Text:
        header = read_header(picture, max_pixels=self._max_pixels)
        found = await OCR.of_picture(self._runners, picture, model, options)
        return Text(model, stored_lines(found, header.width, header.height))


def stored_lines(found: TextLines, width: int, height: int) -> tuple[Line, ...]:
    """Return ``found`` as it is stored: corners as fractions of the picture's ``width`` and ``height`` in pixels."""
    fractions = (found.boxes / np.array([width, height], np.float32)).reshape(-1, 8).clip(0, 1)
    scored = zip(found.texts, fractions, found.box_scores, found.text_scores, strict=True)
    return tuple(
        Line(text, tuple(map(float, box)), float(box_score), float(text_score))
        for text, box, box_score, text_score in scored
    )
