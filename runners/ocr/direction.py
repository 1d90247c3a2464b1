"""The direction of lines: lines that stand on their heads, and single characters that were cut out lying.

A line that was read without doubt is left alone. Of the others, and of the longest of each picture, PP-OCR's classifier
of line directions tells which stand on their heads; these are read once more, turned by 180 degrees, and the reading
that scores better counts. Where most of a picture turns out to stand on its head, the rest of it is read turned too. So
an upright page pays for the classifier on few lines, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from runners.contract import Float32
from runners.engine.session import Session
from runners.ocr.recognition import LINE_HEIGHT, ReadLine, height_to_width, is_upright, read_lines

SURE = 0.9
"""Score from which on a line is taken to be read the right way up."""
_ON_ITS_HEAD = 0.9
"""Probability from which on a line is read turned, as in RapidOCR."""
_WORSE = 0.1
"""By how much the score of a line may fall when it is turned because most of its picture is."""
_WIDTH = 192
"""Pixels: the width of the classifier's input. Longer lines are squeezed to it, as in RapidOCR."""
_AT_ONCE = 8
_SHORT = 3.0
"""Height to width below which an upright box may hold one or two characters that stand as they should."""


class _Way(Enum):
    """The direction in which a line is read."""

    AS_CUT = "as it was cut out"
    ON_ITS_HEAD = "turned by 180 degrees"
    STANDING = "upright, although its box is higher than wide"


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of one picture, cut out."""

    boxes: Float32
    """(n, 4, 2) float32: corners clockwise from the top left of the box."""
    cuts: Sequence[NDArray[np.uint8]]
    """n lines as ``cut_line`` returns them."""


@dataclass(frozen=True, slots=True)
class DirectedLine:
    """A line with its text and its place."""

    read: ReadLine
    box: Float32
    """(4, 2) float32: corners clockwise. The first is the top left one of the box in the picture; of a text that stands
    on its head or runs upwards it is the text's own."""


@dataclass(slots=True)
class _Line:
    """A line while it is being read."""

    cut: NDArray[np.uint8]
    box: Float32
    read: ReadLine
    way: _Way = _Way.AS_CUT
    is_tried: bool = False
    """True if it was tried on its head, or is known not to stand on it."""

    @property
    def width(self) -> int:
        return int(self.cut.shape[1])

    def result(self) -> DirectedLine:
        if self.way is not _Way.ON_ITS_HEAD:
            return DirectedLine(self.read, self.box)
        return DirectedLine(self.read, np.roll(self.box, 1 if is_upright(self.box) else 2, axis=0))


class Reader:
    """A recogniser and the classifier of directions. Holds nothing of a picture between calls."""

    def __init__(self, recogniser: Session, alphabet: Sequence[str], classifier: Session | None) -> None:
        """Take over both sessions. ``alphabet``: see ``load_alphabet``. Without a classifier no line is turned."""
        self._recogniser = recogniser
        self._alphabet = tuple(alphabet)
        self._classifier = classifier

    def close(self) -> None:
        """Free both graphs."""
        self._recogniser.close()
        if self._classifier is not None:
            self._classifier.close()

    def read(self, pictures: Sequence[Lines]) -> list[list[DirectedLine]]:
        """Read the lines of all pictures together; return those of each picture, in the order of its boxes."""
        read = iter(self._read([cut for one in pictures for cut in one.cuts]))
        pages = [
            [_Line(cut, box, next(read)) for cut, box in zip(one.cuts, one.boxes, strict=True)] for one in pictures
        ]
        if self._classifier is not None:
            self._turn(pages, self._classifier)
        return [[line.result() for line in page] for page in pages]

    def _turn(self, pages: Sequence[Sequence[_Line]], classifier: Session) -> None:
        doubtful = [line for page in pages for line in page if line.read.score < SURE]
        longest = [max(page, key=lambda line: line.width) for page in pages if page]
        asked = [*doubtful, *(line for line in longest if line.read.score >= SURE)]
        likely = upside_down(classifier, [line.cut for line in asked]) >= _ON_ITS_HEAD
        for line in asked:
            line.is_tried = True
        self._try([line for line, on_its_head in zip(asked, likely, strict=True) if on_its_head], _Way.ON_ITS_HEAD)
        standing = [line for line in doubtful if is_upright(line.box) and height_to_width(line.box) < _SHORT]
        self._try(standing, _Way.STANDING, least=SURE)
        for page in pages:
            turned = sum(line.width for line in page if line.way is _Way.ON_ITS_HEAD)
            if turned * 2 > sum(line.width for line in page if line.read.text):
                self._try([line for line in page if not line.is_tried], _Way.ON_ITS_HEAD, worse=_WORSE)

    def _try(self, lines: Sequence[_Line], way: _Way, *, least: float = 0.0, worse: float = 0.0) -> None:
        """Read ``lines`` in another way, which counts where it scores at least ``least``, and more than before less
        ``worse``.
        """
        for line, again in zip(lines, self._read([_turned(line.cut, way) for line in lines]), strict=True):
            if again.text and again.score >= least and again.score > line.read.score - worse:
                line.read, line.way = again, way

    def _read(self, cuts: Sequence[NDArray[np.uint8]]) -> list[ReadLine]:
        return read_lines(self._recogniser, self._alphabet, cuts)


def upside_down(classifier: Session, cuts: Sequence[NDArray[np.uint8]]) -> Float32:
    """Return the probability, 0 to 1, that each line stands on its head: (n,) float32.

    ``classifier``: PP-OCR's for directions of lines, (n, 3, 48, 192) float32 to (n, 2). ``cuts``: (48, w, 3) uint8 RGB.
    """
    name = classifier.inputs[0].name
    found = [np.zeros(0, np.float32)]
    start = 0
    while start < len(cuts):
        # Powers of two: engines prepare for each shape.
        size = 1 << (min(_AT_ONCE, len(cuts) - start).bit_length() - 1)
        feed = np.zeros((size, 3, LINE_HEIGHT, _WIDTH), np.float32)
        for planes, cut in zip(feed, cuts[start : start + size], strict=True):
            width = min(cut.shape[1], _WIDTH)
            squeezed = cv2.resize(cut, (width, LINE_HEIGHT)) if width < cut.shape[1] else cut
            planes[:, :, :width] = squeezed[..., ::-1].transpose(2, 0, 1) / np.float32(127.5) - 1
        found.append(np.asarray(classifier.run({name: feed})[0][:, 1], np.float32))
        start += size
    return np.concatenate(found)


def _turned(cut: NDArray[np.uint8], way: _Way) -> NDArray[np.uint8]:
    """Return a line as it is to be read: on its head, or an upright box's as it stands in the picture."""
    if way is _Way.ON_ITS_HEAD:
        return cut[::-1, ::-1]
    standing = np.rot90(cut, -1)  # an upright line was cut out turned to the left
    width = max(1, round(LINE_HEIGHT * standing.shape[1] / standing.shape[0]))
    return np.asarray(
        cv2.resize(np.ascontiguousarray(standing), (width, LINE_HEIGHT), interpolation=cv2.INTER_AREA), np.uint8
    )
