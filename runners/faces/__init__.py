"""Faces: detection (SCRFD) and recognition (ArcFace), in numpy and OpenCV over our own engine sessions.

insightface itself is not imported: it brings scipy, scikit-image and onnx (118 MB) and a second OpenCV. Tests compare
this package's numbers with its.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from errors import ModelUnavailable, ServiceError
from runners.contract import FaceOptions, Faces, Failure, ImageJob
from runners.engine import Session
from runners.faces.alignment import Pixels, aligned_crop
from runners.faces.detection import Detections, Detector
from runners.faces.recognition import Recognizer

__all__ = ["FaceModel", "load_faces"]

DETECTION_FILE = "detection/model.onnx"
RECOGNITION_FILE = "recognition/model.onnx"

_MAX_DECODED_PIXELS = 32_000_000
# Faces are located, and the pictures freed, once so many pixels (96 MB) are decoded.


class FaceModel:
    """One detector and one recogniser. Thread-safe."""

    def __init__(self, detector: Detector, recognizer: Recognizer, *, max_pixels: int) -> None:
        """Take over both graphs. ``max_pixels``: larger pictures are answered with a ``Failure``."""
        self._detector = detector
        self._recognizer = recognizer
        self._max_pixels = max_pixels

    def run(self, jobs: Sequence[ImageJob]) -> list[Faces | Failure]:
        """Return one result per job, in order: faces by its own ``FaceOptions``, or a ``Failure`` of its picture."""
        answers: list[_Located | Failure] = []
        waiting: list[_Decoded | Failure] = []
        for job in jobs:
            waiting.append(self._read(job))
            if len(waiting) >= self._detector.batch or _pixels(waiting) >= _MAX_DECODED_PIXELS:
                answers += self._locate(waiting)
                waiting.clear()
        answers += self._locate(waiting)
        return self._recognize(answers)

    def close(self) -> None:
        """Free both graphs."""
        self._detector.close()
        self._recognizer.close()

    def _read(self, job: ImageJob) -> _Decoded | Failure:
        if not isinstance(job.options, FaceOptions):
            raise TypeError(f"A face job needs FaceOptions, not {job.options!r}.")
        try:
            # At full size although detection needs less: crops for recognition are sampled from the full picture.
            pixels = job.pixels(max_pixels=self._max_pixels)
        except ServiceError as error:
            return Failure(error.code, error.message)
        return _Decoded(pixels, job.options.min_score)

    def _locate(self, pictures: Sequence[_Decoded | Failure]) -> list[_Located | Failure]:
        good = [picture for picture in pictures if isinstance(picture, _Decoded)]
        found = iter(
            self._detector.detect([picture.pixels for picture in good], [picture.min_score for picture in good])
        )
        answers: list[_Located | Failure] = []
        for picture in pictures:
            if isinstance(picture, Failure):
                answers.append(picture)
                continue
            faces = next(found)
            answers.append(_Located(faces, [aligned_crop(picture.pixels, points) for points in faces.landmarks]))
        return answers

    def _recognize(self, pictures: Sequence[_Located | Failure]) -> list[Faces | Failure]:
        located = [picture for picture in pictures if isinstance(picture, _Located)]
        embeddings = self._recognizer.embed(list(chain.from_iterable(picture.crops for picture in located)))
        ends = np.cumsum([len(picture.crops) for picture in located])
        rows = iter(np.split(embeddings, ends[:-1]) if located else [])
        return [
            picture if isinstance(picture, Failure) else Faces(picture.faces.boxes, picture.faces.scores, next(rows))
            for picture in pictures
        ]


def load_faces(files: Mapping[str, Path], open_session: Callable[[Path], Session], *, max_pixels: int) -> FaceModel:
    """Load a face model. ``files``: ``detection/model.onnx`` and ``recognition/model.onnx``.

    Raises ``ModelUnavailable`` if a file is no graph that the engine runs, or not one of these two kinds.
    """
    with ExitStack() as on_failure:

        def opened(name: str) -> Session:
            session = open_session(files[name])
            on_failure.callback(session.close)
            return session

        detection, recognition = opened(DETECTION_FILE), opened(RECOGNITION_FILE)
        try:
            model = FaceModel(Detector(detection), Recognizer(recognition), max_pixels=max_pixels)
        except ModelUnavailable as error:
            paths = f"{files[DETECTION_FILE]} and {files[RECOGNITION_FILE]}"
            raise ModelUnavailable(
                f"{paths} are no face model that can be served: {error.message}. Put other files in their place."
            ) from error
        on_failure.pop_all()
        return model


@dataclass(frozen=True, slots=True)
class _Decoded:
    pixels: Pixels
    min_score: float


@dataclass(frozen=True, slots=True)
class _Located:
    faces: Detections
    crops: list[Pixels]
    """One aligned crop per face."""


def _pixels(pictures: Sequence[_Decoded | Failure]) -> int:
    return sum(
        picture.pixels.shape[0] * picture.pixels.shape[1] for picture in pictures if isinstance(picture, _Decoded)
    )
