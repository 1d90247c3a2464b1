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
from runners.contract import FaceOptions, Faces, Failure, Float32, ImageJob
from runners.engine import Session
from runners.faces.alignment import Pixels, aligned_crop
from runners.faces.detection import Detections, Detector
from runners.faces.recognition import Recognizer
from runners.faces.second_look import OVERVIEW, second_look

__all__ = ["FaceModel", "load_faces"]

DETECTION_FILE = "detection/model.onnx"
RECOGNITION_FILE = "recognition/model.onnx"

_MAX_DECODED_PIXELS = 32_000_000
# Faces are located, and the pictures freed, once so many pixels (96 MB) are decoded.


class FaceModel:
    """One detector and one recogniser. Thread-safe."""

    def __init__(
        self, detector: Detector, recognizer: Recognizer, *, max_pixels: int, overview: Detector | None = None
    ) -> None:
        """Take over the graphs.

        ``max_pixels``: larger pictures are answered with a ``Failure``. ``overview``: the detector for pictures of the
        size ``OVERVIEW``, to look a second time where no face was found (``runners.faces.second_look``).
        """
        self._detector = detector
        self._overview = overview
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
        """Free the graphs."""
        self._detector.close()
        if self._overview is not None:
            self._overview.close()
        self._recognizer.close()

    def _read(self, job: ImageJob) -> _Decoded | Failure:
        if not isinstance(job.options, FaceOptions):
            raise TypeError(f"A face job needs FaceOptions, not {job.options!r}.")
        try:
            # At full size although detection needs less: crops for recognition are sampled from the full picture.
            pixels = job.pixels(max_pixels=self._max_pixels)
        except ServiceError as error:
            return Failure(error.code, error.message)
        return _Decoded(job, pixels, job.options.min_score)

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
            faces, pixels = next(found), picture.pixels
            if self._overview is not None and not len(faces.scores):
                faces, pixels = self._look_again(self._overview, picture, faces)
            crops = [aligned_crop(pixels, points) for points in faces.landmarks]
            answers.append(_Located(_clamped(faces.boxes, pixels), faces.scores, crops))
        return answers

    def _look_again(self, overview: Detector, picture: _Decoded, first: Detections) -> tuple[Detections, Pixels]:
        """Return the faces of a second look, and the pixels that they were found in: a transparent picture's may be
        those on its other ground.
        """
        faces = second_look(self._detector, overview, picture.pixels, first, picture.min_score)
        other = None if len(faces.scores) else picture.job.pixels_on_other_ground(max_pixels=self._max_pixels)
        if other is None:
            return faces, picture.pixels
        (faces,) = self._detector.detect([other], [picture.min_score])
        if not len(faces.scores):
            faces = second_look(self._detector, overview, other, faces, picture.min_score)
        return faces, other

    def _recognize(self, pictures: Sequence[_Located | Failure]) -> list[Faces | Failure]:
        located = [picture for picture in pictures if isinstance(picture, _Located)]
        embeddings = self._recognizer.embed(list(chain.from_iterable(picture.crops for picture in located)))
        ends = np.cumsum([len(picture.crops) for picture in located])
        rows = iter(np.split(embeddings, ends[:-1]) if located else [])
        return [
            picture if isinstance(picture, Failure) else Faces(picture.boxes, picture.scores, next(rows))
            for picture in pictures
        ]


def load_faces(
    files: Mapping[str, Path], open_session: Callable[[Path], Session], *, max_pixels: int, looks_again: bool = True
) -> FaceModel:
    """Load a face model. ``files``: ``detection/model.onnx`` and ``recognition/model.onnx``. ``looks_again``: look a
    second time where no face was found. The rest: see ``FaceModel``.

    Raises ``ModelUnavailable`` if a file is no graph that the engine runs, or not one of these two kinds.
    """
    with ExitStack() as on_failure:

        def opened(name: str) -> Session:
            session = open_session(files[name])
            on_failure.callback(session.close)
            return session

        detection, recognition = opened(DETECTION_FILE), opened(RECOGNITION_FILE)
        try:
            detector, recognizer = Detector(detection), Recognizer(recognition)
            # A graph of its own: one that is shown two sizes in turn prepares itself anew each time, for which a
            # picture of 256 x 256 took twice as long (6.3 ms, not 3.1).
            overview = Detector(opened(DETECTION_FILE), size=OVERVIEW, at_most=1) if looks_again else None
            model = FaceModel(detector, recognizer, max_pixels=max_pixels, overview=overview)
        except ModelUnavailable as error:
            paths = f"{files[DETECTION_FILE]} and {files[RECOGNITION_FILE]}"
            raise ModelUnavailable(
                f"{paths} are no face model that can be served: {error.message}. Put other files in their place."
            ) from error
        on_failure.pop_all()
        return model


@dataclass(frozen=True, slots=True)
class _Decoded:
    job: ImageJob
    pixels: Pixels
    min_score: float


@dataclass(frozen=True, slots=True)
class _Located:
    boxes: Float32
    """(n, 4), inside the picture."""
    scores: Float32
    crops: list[Pixels]
    """One aligned crop per face."""


def _clamped(boxes: Float32, picture: Pixels) -> Float32:
    """Return ``boxes``, (n, 4), cut at the edges of ``picture``."""
    height, width = picture.shape[:2]
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def _pixels(pictures: Sequence[_Decoded | Failure]) -> int:
    return sum(
        picture.pixels.shape[0] * picture.pixels.shape[1] for picture in pictures if isinstance(picture, _Decoded)
    )
