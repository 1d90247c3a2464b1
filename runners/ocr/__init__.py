"""OCR: detection, recognition and reading order of text lines in pictures, with PP-OCR models over our sessions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from errors import ErrorCode, ServiceError
from runners.batching import Unfinished
from runners.contract import Failure, ImageJob, OcrOptions, TextLines
from runners.engine.session import Session
from runners.ocr.boxes import TextBoxes
from runners.ocr.detection import detect
from runners.ocr.reading_order import reading_order
from runners.ocr.recognition import ReadLine, cut_line, load_alphabet, padded_width, read_lines
from runners.pictures.detection_size import DetectionSize, detection_size, enlarged_detection_size

__all__ = ["OcrModel", "load_ocr"]


@dataclass(frozen=True, slots=True)
class _Found:
    """The lines of one picture: those read in earlier turns, and those cut out to be read in this one."""

    options: OcrOptions
    boxes: TextBoxes
    second_size: DetectionSize | None
    """The size for a second look, should nothing be read."""
    read: tuple[ReadLine, ...] = ()
    cut: tuple[NDArray[np.uint8], ...] = ()
    pixels: NDArray[np.uint8] | None = None
    """The picture, only while there are lines that are not cut out yet."""


class OcrModel:
    """A detector and a recogniser. Holds nothing of a job between calls; may be called from several threads."""

    def __init__(
        self,
        detector: Session,
        recogniser: Session,
        alphabet: Sequence[str],
        *,
        max_pixels: int,
        read_in_a_turn: float = math.inf,
    ) -> None:
        """Take over both sessions. ``alphabet``: see ``load_alphabet``. ``max_pixels``: larger pictures are refused.

        ``read_in_a_turn``: pixels of padded lines, summed, that ``run`` reads of one picture before it returns.
        """
        self._detector = detector
        self._recogniser = recogniser
        self._alphabet = tuple(alphabet)
        self._max_pixels = max_pixels
        self._read_in_a_turn = read_in_a_turn

    def run(self, jobs: Sequence[ImageJob]) -> list[TextLines | Failure | Unfinished[ImageJob]]:
        """Read every picture by its own options; return one result per job, in order.

        A bad picture is a ``Failure`` of its own; one with more text than is read in a turn comes back ``Unfinished``.
        Pictures are decoded and searched one after another, so that memory holds one at a time; the lines of all are
        read together. A picture that was seen smaller than ``max_resolution``, and in which nothing was read, is
        searched once more, enlarged.
        """
        found = [
            self._find(job) if job.begun is None else self._next_lines(job.begun, job.begun.pixels) for job in jobs
        ]
        results = self._read(jobs, found)
        again = {
            place: self._find(jobs[place], first.second_size)
            for place, (first, result) in enumerate(zip(found, results, strict=True))
            if isinstance(first, _Found) and first.second_size and isinstance(result, TextLines) and not result.texts
        }
        second = self._read([jobs[place] for place in again], list(again.values()))
        for place, result in zip(again, second, strict=True):
            results[place] = result
        return results

    def _read(
        self, jobs: Sequence[ImageJob], found: Sequence[_Found | Failure]
    ) -> list[TextLines | Failure | Unfinished[ImageJob]]:
        """Read the lines that are cut out, those of all pictures together."""
        lines = [line for one in found if isinstance(one, _Found) for line in one.cut]
        read = iter(read_lines(self._recogniser, self._alphabet, lines))
        return [
            one if isinstance(one, Failure) else _outcome(job, one, [next(read) for _ in one.cut])
            for job, one in zip(jobs, found, strict=True)
        ]

    def close(self) -> None:
        """Free both graphs."""
        self._detector.close()
        self._recogniser.close()

    def _find(self, job: ImageJob, size: DetectionSize | None = None) -> _Found | Failure:
        """Decode a picture and cut out its lines, seen at ``size`` or at the size of a first look."""
        options = job.options
        if not isinstance(options, OcrOptions):
            return Failure(ErrorCode.INVALID_REQUEST, f"OCR of a picture needs OcrOptions; this job has {options!r}.")
        try:
            pixels = job.pixels(max_pixels=self._max_pixels)
        except ServiceError as error:
            return Failure(error.code, error.message)
        shape = pixels.shape[1], pixels.shape[0], options.max_resolution
        boxes = detect(
            self._detector, pixels, size=size or detection_size(*shape), min_score=options.min_detection_score
        )
        second_size = None if size else enlarged_detection_size(*shape)
        return self._next_lines(_Found(options, boxes, second_size), pixels)

    def _next_lines(self, found: _Found, pixels: NDArray[np.uint8]) -> _Found:
        """Cut the lines that follow those read out of ``pixels``, as many as are read in a turn."""
        cut: list[NDArray[np.uint8]] = []
        width = 0
        for box in found.boxes.boxes[len(found.read) :]:
            cut.append(cut_line(pixels, box))
            width += padded_width(cut[-1].shape[1])
            if width >= self._read_in_a_turn:
                break
        is_all = len(found.read) + len(cut) == len(found.boxes.boxes)
        return replace(found, cut=tuple(cut), pixels=None if is_all else pixels)


class OpensSessions(Protocol):
    """A function that opens a graph, as ``runners.engine.open_session`` does."""

    def __call__(self, path: Path, *, best_class: bool = False) -> Session: ...


def load_ocr(
    files: Mapping[str, Path], open_session: OpensSessions, *, max_pixels: int, read_in_a_turn: float = math.inf
) -> OcrModel:
    """Load an OCR model. ``read_in_a_turn``: as of ``OcrModel``.

    ``files``: ``detection/model.onnx``, ``recognition/model.onnx`` and, where the recogniser's graph does not hold its
    own alphabet, ``recognition/dict.txt``.

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
    return OcrModel(detector, recogniser, alphabet, max_pixels=max_pixels, read_in_a_turn=read_in_a_turn)


def _outcome(job: ImageJob, found: _Found, read: Sequence[ReadLine]) -> TextLines | Unfinished[ImageJob]:
    """Return the result of a picture of which ``read`` was read in this turn, or the job with which to go on."""
    so_far = (*found.read, *read)
    if found.pixels is None:
        return _answer(found, so_far)
    return Unfinished(replace(job, begun=replace(found, read=so_far, cut=())))


def _answer(found: _Found, read: Sequence[ReadLine]) -> TextLines:
    kept = [index for index, line in enumerate(read) if line.text and line.score >= found.options.min_recognition_score]
    ordered = [kept[place] for place in reading_order(found.boxes.boxes[kept], [read[index].text for index in kept])]
    return TextLines(
        texts=tuple(read[index].text for index in ordered),
        boxes=found.boxes.boxes[ordered],
        box_scores=found.boxes.scores[ordered],
        text_scores=np.array([read[index].score for index in ordered], np.float32),
    )
