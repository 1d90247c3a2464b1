"""Faces: detection (SCRFD) and recognition (ArcFace), in numpy and OpenCV over our own engine sessions.

insightface itself is not imported: it brings scipy, scikit-image and onnx (118 MB) and a second OpenCV. Tests compare
this package's numbers with its.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np

from errors import ModelUnavailable, ServiceError
from runners.contract import FaceOptions, Faces, Failure, Float32, ImageJob
from runners.engine import Session
from runners.faces.alignment import Pixels, aligned_crop
from runners.faces.detection import SIZE, Detections, Detector
from runners.faces.recognition import Recognizer
from runners.faces.second_look import OVERVIEW, second_look

__all__ = ["FaceModel", "load_faces"]

DETECTION_FILE = "detection/model.onnx"
RECOGNITION_FILE = "recognition/model.onnx"


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
        return self._recognize([self._locate(job) for job in jobs])

    def close(self) -> None:
        """Free the graphs."""
        self._detector.close()
        if self._overview is not None:
            self._overview.close()
        self._recognizer.close()

    def _locate(self, job: ImageJob) -> _Located | Failure:
        if not isinstance(job.options, FaceOptions):
            raise TypeError(f"A face job needs FaceOptions, not {job.options!r}.")
        try:
            # At full size although detection needs less: crops for recognition are sampled from the full picture.
            pixels = job.pixels(max_pixels=self._max_pixels)
        except ServiceError as error:
            return Failure(error.code, error.message)
        faces = self._detector.detect(pixels, job.options.min_score)
        if self._overview is not None and not len(faces.scores):
            faces, pixels = self._look_again(self._overview, job, pixels, faces, job.options.min_score)
        crops = [aligned_crop(pixels, points) for points in faces.landmarks]
        return _Located(_clamped(faces.boxes, pixels), faces.scores, crops)

    def _look_again(
        self, overview: Detector, job: ImageJob, pixels: Pixels, first: Detections, min_score: float
    ) -> tuple[Detections, Pixels]:
        """Return the faces of a second look, and the pixels that they were found in: a transparent picture's may be
        those on its other ground.
        """
        faces = second_look(self._detector, overview, pixels, first, min_score)
        other = None if len(faces.scores) else job.pixels_on_other_ground(max_pixels=self._max_pixels)
        if other is None:
            return faces, pixels
        faces = self._detector.detect(other, min_score)
        if not len(faces.scores):
            faces = second_look(self._detector, overview, other, faces, min_score)
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


class OpensSession(Protocol):
    """Opens a graph; ``picture_size``: as of ``runners.engine.open_session``."""

    def __call__(self, path: Path, *, picture_size: tuple[int, int] | None) -> Session: ...


def load_faces(
    files: Mapping[str, Path], open_session: OpensSession, *, max_pixels: int, looks_again: bool = True
) -> FaceModel:
    """Load a face model. ``files``: ``detection/model.onnx`` and ``recognition/model.onnx``. ``looks_again``: look a
    second time where no face was found. The rest: see ``FaceModel``.

    Raises ``ModelUnavailable`` if a file is no graph that the engine runs, or not one of these two kinds.
    """
    with ExitStack() as on_failure:

        def opened(name: str, picture_size: tuple[int, int] | None = None) -> Session:
            session = open_session(files[name], picture_size=picture_size)
            on_failure.callback(session.close)
            return session

        detection, recognition = opened(DETECTION_FILE, SIZE), opened(RECOGNITION_FILE)
        try:
            detector, recognizer = Detector(detection), Recognizer(recognition)
            overview = Detector(opened(DETECTION_FILE, OVERVIEW), size=OVERVIEW) if looks_again else None
            model = FaceModel(detector, recognizer, max_pixels=max_pixels, overview=overview)
        except ModelUnavailable as error:
            paths = f"{files[DETECTION_FILE]} and {files[RECOGNITION_FILE]}"
            raise ModelUnavailable(
                f"{paths} are no face model that can be served: {error.message}. Put other files in their place."
            ) from error
        on_failure.pop_all()
        return model


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
