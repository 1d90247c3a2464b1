"""OCR: finds, reads and orders the lines of text in pictures, with PP-OCR models over our own sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from errors import ErrorCode, ServiceError
from runners.contract import Failure, Float32, ImageJob, OcrOptions, TextLines
from runners.engine.session import Session
from runners.ocr.detection import detect
from runners.ocr.reading_order import reading_order
from runners.ocr.recognition import ReadLine, cut_line, load_alphabet, read_lines

__all__ = ["OcrModel", "load_ocr"]


@dataclass(frozen=True, slots=True)
class _Found:
    """What detection leaves of one picture: its lines, cut out. The picture itself can be forgotten."""

    options: OcrOptions
    boxes: Float32
    scores: Float32
    lines: list[NDArray[np.uint8]]


class OcrModel:
    """A detector and a recogniser. Holds nothing of a job between calls; may be called from several threads."""

    def __init__(self, detector: Session, recogniser: Session, alphabet: Sequence[str], *, max_pixels: int) -> None:
        """``alphabet``: see ``load_alphabet``. ``max_pixels``: larger pictures are refused. Takes over both
        sessions.
        """
        self._detector = detector
        self._recogniser = recogniser
        self._alphabet = tuple(alphabet)
        self._max_pixels = max_pixels

    def run(self, jobs: Sequence[ImageJob]) -> list[TextLines | Failure]:
        """Read every picture by its own options; one answer per job, in order. A bad picture is a ``Failure`` of its
        own.

        Pictures are decoded and searched one after another, so that memory holds one at a time; the lines of all are
        read together.
        """
        found = [self._find(job) for job in jobs]
        lines = [line for one in found if isinstance(one, _Found) for line in one.lines]
        read = iter(read_lines(self._recogniser, self._alphabet, lines))
        return [one if isinstance(one, Failure) else _answer(one, [next(read) for _ in one.lines]) for one in found]

    def close(self) -> None:
        """Free both graphs."""
        self._detector.close()
        self._recogniser.close()

    def _find(self, job: ImageJob) -> _Found | Failure:
        options = job.options
        if not isinstance(options, OcrOptions):
            return Failure(ErrorCode.INVALID_REQUEST, f"OCR of a picture needs OcrOptions; this job has {options!r}.")
        try:
            pixels = job.pixels(max_pixels=self._max_pixels)
        except ServiceError as error:
            return Failure(error.code, error.message)
        found = detect(
            self._detector, pixels, max_resolution=options.max_resolution, min_score=options.min_detection_score
        )
        return _Found(options, found.boxes, found.scores, [cut_line(pixels, box) for box in found.boxes])


class OpensSessions(Protocol):
    """Opens a graph; with ``best_class`` as ``runners.engine.open_session`` does."""

    def __call__(self, path: Path, *, best_class: bool = False) -> Session: ...


def load_ocr(files: Mapping[str, Path], open_session: OpensSessions, *, max_pixels: int) -> OcrModel:
    """Load the OCR model in ``files``: ``detection/model.onnx``, ``recognition/model.onnx`` and, where the recogniser's
    graph does not hold its own alphabet, ``recognition/dict.txt``.

    Raises ``ModelUnavailable`` where a graph cannot be loaded or its alphabet is missing or another model's. Nothing
    stays open then.
    """
    with ExitStack() as opened:
        detector = open_session(files["detection/model.onnx"])
        opened.callback(detector.close)
        recogniser = open_session(files["recognition/model.onnx"], best_class=True)
        opened.callback(recogniser.close)
        alphabet = load_alphabet(recogniser, files.get("recognition/dict.txt"))
        opened.pop_all()
    return OcrModel(detector, recogniser, alphabet, max_pixels=max_pixels)


def _answer(found: _Found, read: Sequence[ReadLine]) -> TextLines:
    kept = [index for index, line in enumerate(read) if line.text and line.score >= found.options.min_recognition_score]
    ordered = [kept[place] for place in reading_order(found.boxes[kept], [read[index].text for index in kept])]
    return TextLines(
        texts=tuple(read[index].text for index in ordered),
        boxes=found.boxes[ordered],
        box_scores=found.scores[ordered],
        text_scores=np.array([read[index].score for index in ordered], np.float32),
    )
