"""OCR: detection, recognition and reading order of text lines in pictures, with PP-OCR models over our sessions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from errors import ErrorCode, ServiceError
from runners.batching import Unfinished
from runners.contract import Failure, ImageJob, OcrOptions, TextLines
from runners.engine.session import Session
from runners.ocr.boxes import TextBoxes
from runners.ocr.detection import detect
from runners.ocr.direction import DirectedLine, Lines, Reader
from runners.ocr.gutters import divide_columns
from runners.ocr.lying import is_stack, reads_better, turned_back
from runners.ocr.ranges import ranges_of
from runners.ocr.reading_order import reading_order
from runners.ocr.recognition import cut_line, is_text, load_alphabet, padded_width
from runners.pictures.detection_size import DetectionSize, detection_size, enlarged_detection_size

if TYPE_CHECKING:
    from runners.engine.int8 import Ranges

__all__ = ["OcrModel", "load_ocr"]


@dataclass(frozen=True, slots=True)
class _Found:
    """The lines of one picture: those read in earlier turns, and those cut out to be read in this one."""

    options: OcrOptions
    boxes: TextBoxes
    side: int
    """Shorter side of the picture in pixels."""
    second_size: DetectionSize | None
    """The size for a second look, should nothing be read."""
    read: tuple[DirectedLine, ...] = ()
    cut: tuple[NDArray[np.uint8], ...] = ()
    pixels: NDArray[np.uint8] | None = None
    """The picture, only while there are lines that are not cut out yet."""


class OcrModel:
    """A detector and a reader of lines. Holds nothing of a job between calls; may be called from several threads."""

    def __init__(
        self,
        detector: Session,
        reader: Reader,
        *,
        max_pixels: int,
        max_boxes: int,
        read_in_a_turn: float = math.inf,
    ) -> None:
        """Take over all sessions. ``max_pixels``: larger pictures are refused. ``max_boxes``: see ``find_boxes``.

        ``read_in_a_turn``: pixels of padded lines, summed, that ``run`` reads of one picture before it returns.
        """
        self._detector = detector
        self._reader = reader
        self._max_pixels = max_pixels
        self._max_boxes = max_boxes
        self._read_in_a_turn = read_in_a_turn

    def run(self, jobs: Sequence[ImageJob]) -> list[TextLines | Failure | Unfinished[ImageJob]]:
        """Read every picture by its own options; return one result per job, in order.

        A bad picture is a ``Failure`` of its own; one with more text than is read in a turn comes back ``Unfinished``.
        Pictures are decoded and searched one after another, so that memory holds one at a time; the lines of all are
        read together. A picture in which nothing was read is searched once more, enlarged, if it was seen smaller than
        ``max_resolution``, and then on its other ground, if it is transparent; one whose text may be a line that runs
        down or up, found figure by figure, is looked at turned.
        """
        found = [
            self._find(job) if job.begun is None else self._next_lines(job.begun, job.begun.pixels) for job in jobs
        ]
        results = self._read(jobs, found)
        for look in (self._enlarged, self._on_other_ground):
            again: dict[int, _Found | Failure] = {}
            for place, (first, result) in enumerate(zip(found, results, strict=True)):
                if isinstance(first, _Found) and isinstance(result, TextLines) and not result.texts:
                    further = look(jobs[place], first)
                    if further is not None:
                        again[place] = further
            further_results = self._read([jobs[place] for place in again], list(again.values()))
            for place, result in zip(again, further_results, strict=True):
                results[place] = result
        for place, (first, result) in enumerate(zip(found, results, strict=True)):
            if isinstance(first, _Found) and isinstance(result, TextLines) and is_stack(first.boxes.boxes):
                results[place] = self._lying(jobs[place], first, result)
        return results

    def _enlarged(self, job: ImageJob, first: _Found) -> _Found | Failure | None:
        """Search a picture enlarged; None where the first look was as large."""
        return None if first.second_size is None else self._find(job, first.second_size)

    def _on_other_ground(self, job: ImageJob, first: _Found) -> _Found | Failure | None:
        """Search a transparent picture on its other ground; None for any other."""
        try:
            pixels = job.pixels_on_other_ground(max_pixels=self._max_pixels)
        except ServiceError as error:
            return Failure(error.code, error.message)
        return None if pixels is None else self._search(pixels, first.options, first.second_size)

    def _lying(self, job: ImageJob, first: _Found, result: TextLines) -> TextLines:
        """Return what is read of a picture that is turned by a quarter, or ``result`` where that is no better."""
        pixels = job.pixels(max_pixels=self._max_pixels)
        turned = self._search(np.ascontiguousarray(np.rot90(pixels)), first.options)
        (read,) = self._read([job], [turned])
        if isinstance(read, TextLines) and reads_better(read, result):
            return turned_back(read, pixels.shape[1])
        return result

    def _read(
        self, jobs: Sequence[ImageJob], found: Sequence[_Found | Failure]
    ) -> list[TextLines | Failure | Unfinished[ImageJob]]:
        """Read the lines that are cut out, those of all pictures together."""
        read = iter(self._reader.read([_to_be_read(one) for one in found if isinstance(one, _Found)]))
        return [
            one if isinstance(one, Failure) else _outcome(job, one, next(read))
            for job, one in zip(jobs, found, strict=True)
        ]

    def close(self) -> None:
        """Free all graphs."""
        self._detector.close()
        self._reader.close()

    def _find(self, job: ImageJob, size: DetectionSize | None = None) -> _Found | Failure:
        """Decode a picture and cut out its lines, seen at ``size`` or at the size of a first look."""
        options = job.options
        if not isinstance(options, OcrOptions):
            return Failure(ErrorCode.INVALID_REQUEST, f"OCR of a picture needs OcrOptions; this job has {options!r}.")
        try:
            pixels = job.pixels(max_pixels=self._max_pixels)
        except ServiceError as error:
            return Failure(error.code, error.message)
        return self._search(pixels, options, size)

    def _search(self, pixels: NDArray[np.uint8], options: OcrOptions, size: DetectionSize | None = None) -> _Found:
        """Find the lines of a picture, seen at ``size`` or at the size of a first look, and cut out the first ones."""
        shape = pixels.shape[1], pixels.shape[0], options.max_resolution
        found = detect(
            self._detector,
            pixels,
            size=size or detection_size(*shape),
            min_score=options.min_detection_score,
            max_boxes=self._max_boxes,
        )
        boxes = divide_columns(pixels, found)
        second_size = None if size else enlarged_detection_size(*shape)
        return self._next_lines(_Found(options, boxes, min(shape[:2]), second_size), pixels)

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

    def __call__(self, path: Path, *, best_class: bool = False, ranges: Ranges | None = None) -> Session: ...


def load_ocr(
    files: Mapping[str, Path],
    open_session: OpensSessions,
    *,
    max_pixels: int,
    max_boxes: int,
    read_in_a_turn: float = math.inf,
) -> OcrModel:
    """Load an OCR model. ``max_pixels``, ``max_boxes`` and ``read_in_a_turn``: as of ``OcrModel``.

    ``files``: ``detection/model.onnx``, ``recognition/model.onnx`` and, where the recogniser's graph does not hold its
    own alphabet, ``recognition/dict.txt``. Without ``direction/model.onnx`` no line is turned that stands on its head.

    Raises ``ModelUnavailable`` where a graph cannot be loaded or its alphabet is missing or another model's. Nothing
    stays open then.
    """
    with ExitStack() as opened:
        detector = open_session(files["detection/model.onnx"])
        opened.callback(detector.close)
        recogniser = open_session(
            files["recognition/model.onnx"], best_class=True, ranges=ranges_of(files["recognition/model.onnx"])
        )
        opened.callback(recogniser.close)
        alphabet = load_alphabet(recogniser, files.get("recognition/dict.txt"))
        classifier = None
        if "direction/model.onnx" in files:
            classifier = open_session(files["direction/model.onnx"])
            opened.callback(classifier.close)
        opened.pop_all()
    reader = Reader(recogniser, alphabet, classifier)
    return OcrModel(detector, reader, max_pixels=max_pixels, max_boxes=max_boxes, read_in_a_turn=read_in_a_turn)


def _to_be_read(found: _Found) -> Lines:
    """Return the lines that are cut out of a picture."""
    start = len(found.read)
    return Lines(found.boxes.boxes[start : start + len(found.cut)], found.cut)


def _outcome(job: ImageJob, found: _Found, read: Sequence[DirectedLine]) -> TextLines | Unfinished[ImageJob]:
    """Return the result of a picture of which ``read`` was read in this turn, or the job with which to go on."""
    so_far = (*found.read, *read)
    if found.pixels is None:
        return _answer(found, so_far)
    return Unfinished(replace(job, begun=replace(found, read=so_far, cut=())))


def _answer(found: _Found, lines: Sequence[DirectedLine]) -> TextLines:
    least = found.options.min_recognition_score
    kept = [index for index, line in enumerate(lines) if is_text(line.read, line.box, least, found.side)]
    boxes = np.array([lines[index].box for index in kept], np.float32).reshape(-1, 4, 2)
    order = reading_order(boxes, [lines[index].read.text for index in kept])
    ordered = [kept[place] for place in order]
    return TextLines(
        texts=tuple(lines[index].read.text for index in ordered),
        boxes=boxes[order],
        box_scores=found.boxes.scores[ordered],
        text_scores=np.array([lines[index].read.score for index in ordered], np.float32),
        left_out=found.boxes.left_out,
    )
