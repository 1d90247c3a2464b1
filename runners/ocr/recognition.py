"""Recognition of text lines: PP-OCR's recogniser (a CTC network, Graves et al. 2006) over a ``Session``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from errors import ModelUnavailable
from runners.contract import Float32
from runners.engine.best_class import CLASSES
from runners.engine.buffers import Buffers
from runners.engine.session import Session

LINE_HEIGHT = 48
"""Pixels: the height of the network's input."""
MAX_LINE_WIDTH = 4096
"""Pixels at ``LINE_HEIGHT``, some 85 Chinese characters; a longer line is squeezed to this."""
MAX_CHUNK_WIDTH = 1280
"""Summed pixels of the lines that the network sees at once. More is no faster on a CPU (24 us a pixel in OpenVINO from
320 pixels on, however they are divided among lines), takes 10 kB a pixel of working memory, and makes more shapes."""
_UPRIGHT = 1.5
"""Height to width from which on a line is taken to run from top to bottom, as in RapidOCR."""
_MAX_PATCH_SIDE = 16000
"""Pixels: OpenCV's warp refuses pictures with a side of 32,767 and more."""
_BLANK = 0.1
"""Expected number of blanks between Chinese and a letter or digit from which on one is read there.

The network is mostly of two minds: its best guess finds 0.61 of these blanks, this 0.93, and puts 0.006 where none is
(docs/reading-quality.md).
"""
_LARGE = 0.1
"""Shorter side of a character's box, in shorter sides of the picture, from which on things are often taken for one."""
_CHINESE = "[\u3400-\u4dbf\u4e00-\u9fff]"
_BORDER = re.compile(rf"(?:{_CHINESE}(?=[0-9A-Za-z]))|(?:[0-9A-Za-z](?={_CHINESE}))")
_WORD = re.compile("(?<![0-9A-Za-z])[1A-Za-z]{5,}(?![0-9A-Za-z])")
_ONES = re.compile("(?<=[A-Za-z])1{1,2}(?=[a-z])|^1(?=[a-z]{4})")
"""Figures one in a word where a letter l is far likelier: between letters, or before four."""
_SURE_ONE = 0.95
"""Probability from which on a figure one within a word is taken for one.

Some fonts draw both alike. Of 132 letters l that were read as figures in rendered words 74 are mended so; of 248 true
figures in names such as ``sha1sum`` and ``log1p`` 60 are lost, which are far rarer than words with an l.
"""
_BUFFERS = Buffers()


@dataclass(frozen=True, slots=True)
class ReadLine:
    """The text of one line."""

    text: str
    """Without blanks at its ends; empty where nothing was read."""
    score: float
    """Mean probability of its characters, 0 to 1; 0 where nothing was read."""


def load_alphabet(session: Session, dictionary: Path | None) -> tuple[str, ...]:
    """Return the character of each class of the recogniser ``session``; class 0 is CTC's blank, written "".

    PP-OCR keeps one character a line, in the graph's metadata under ``character`` or in a file beside the graph,
    without the blank and mostly without the space, which is then the last class.

    ``session`` is opened with ``best_class``, and says in its metadata how many classes the graph knows, where that is
    fixed.

    Raises ``ModelUnavailable`` where there is neither, or where their number is not the graph's.
    """
    listed = session.metadata.get("character") or (dictionary.read_text("utf-8-sig") if dictionary is not None else "")
    if not listed:
        raise ModelUnavailable(
            "The OCR recogniser comes without its alphabet: the graph has no metadata `character`, and there is no "
            "recognition/dict.txt. "
            "Put the model's dictionary there, one character a line."
        )
    # Not splitlines(): alphabets hold characters, such as U+2028, that it would take for line ends.
    characters = [line.rstrip("\r") for line in listed.removesuffix("\n").split("\n")]
    classes = int(session.metadata[CLASSES]) if CLASSES in session.metadata else None
    if classes == len(characters) + 1:
        return ("", *characters)
    if classes is not None and classes != len(characters) + 2:
        raise ModelUnavailable(
            f"The OCR recogniser's alphabet has {len(characters)} characters, but its graph tells {classes} classes "
            "apart "
            "(characters, blank and space). The dictionary belongs to another model: fetch the model again."
        )
    return ("", *characters, " ")


def cut_line(pixels: NDArray[np.uint8], box: Float32) -> NDArray[np.uint8]:
    """Cut the line inside ``box``, (4, 2) corners clockwise from the top left, straight to the network's height.

    Returns (LINE_HEIGHT, w, 3) uint8 RGB, w <= MAX_LINE_WIDTH. As in RapidOCR a line at least 1.5 times as high as wide
    is turned by 90 degrees to the left. Only the part around the box is touched, and a line far higher than the
    network's input is shrunk before it is straightened, which keeps memory small and strokes whole.
    """
    left, top = np.maximum(np.floor(box.min(axis=0)).astype(int) - 2, 0)
    right, bottom = np.ceil(box.max(axis=0)).astype(int) + 3
    patch = pixels[top:bottom, left:right]
    corners = (box - np.array([left, top])).astype(np.float32)
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    shrink = 2 * LINE_HEIGHT / max(1.0, min(max(sides[0], sides[2]), max(sides[1], sides[3])))
    height, width = patch.shape[:2]
    size = tuple(max(1, round(side * min(1.0, shrink, _MAX_PATCH_SIDE / side))) for side in (width, height))
    if size != (width, height):
        patch = cv2.resize(patch, size, interpolation=cv2.INTER_AREA)
        corners *= np.array([size[0] / width, size[1] / height], np.float32)
    line = _rectangle(patch, corners) if _is_level(corners) else _straightened(patch, corners)
    line_width = math.ceil(LINE_HEIGHT * line.shape[1] / line.shape[0])
    return np.asarray(cv2.resize(line, (min(max(1, line_width), MAX_LINE_WIDTH), LINE_HEIGHT)), dtype=np.uint8)


def _is_level(corners: Float32) -> bool:
    """Return whether the box is a rectangle that is not turned, on whole pixels: half of the lines on documents."""
    (left, top), _, (right, bottom), _ = corners
    level = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
    return bool((corners == level).all() and (corners == corners.round()).all() and left < right and top < bottom)


def _rectangle(patch: NDArray[np.uint8], corners: Float32) -> NDArray[np.uint8]:
    """Cut out a level box, as ``_straightened`` would, without warping pixels onto themselves."""
    (left, top), (right, bottom) = corners[[0, 2]].astype(int)
    return _lying(patch[top:bottom, left:right])


def _straightened(patch: NDArray[np.uint8], corners: Float32) -> NDArray[np.uint8]:
    """Warp a quadrilateral to a rectangle of its longer sides (bicubic; edge pixels repeated outside), lying."""
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)  # top, right, bottom, left
    width, height = int(max(sides[0], sides[2])), int(max(sides[1], sides[3]))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, target)
    line = cv2.warpPerspective(patch, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return _lying(np.asarray(line, np.uint8))


def height_to_width(box: Float32) -> float:
    """Return the ratio of the sides of ``box``, (4, 2) corners clockwise from its top left."""
    sides = np.linalg.norm(box - np.roll(box, -1, axis=0), axis=1)
    return float(max(sides[1], sides[3]) / max(1.0, sides[0], sides[2]))


def is_upright(box: Float32) -> bool:
    """Return whether the line in ``box`` is taken to run from top to bottom, and is cut out turned."""
    return height_to_width(box) >= _UPRIGHT


def _lying(line: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn an upright line by 90 degrees to the left."""
    return np.rot90(line) if line.shape[0] / line.shape[1] >= _UPRIGHT else line


def read_lines(session: Session, alphabet: Sequence[str], lines: Sequence[NDArray[np.uint8]]) -> list[ReadLine]:
    """Read all ``lines``, each (LINE_HEIGHT, w, 3) uint8 RGB, and return the results in their order.

    Lines of one ``padded_width`` are read together, and none is padded further: what is read in a line does not depend
    on what else is read with it.
    """
    at_once = session.inputs[0].shape[0]
    read: dict[int, ReadLine] = {}
    for width, chunk in _chunks([line.shape[1] for line in lines], at_once):
        with _BUFFERS.borrow((len(chunk), 3, LINE_HEIGHT, width), np.float32) as planes:
            _pad([lines[index] for index in chunk], planes)
            scores, classes, last = session.run({session.inputs[0].name: planes})
        read.update(zip(chunk, decode(scores, classes, last, alphabet), strict=True))
    return [read[index] for index in range(len(lines))]


def padded_width(width: int) -> int:
    """Return the width that a line is padded to: one of few, as engines prepare for each shape, with little waste.

    PP-OCR is trained at 320 pixels, and RapidOCR pads to no less. Of 211 rendered words of 1 to 5 characters 202 were
    read right at 128 and 204 at 320, with mean scores of 0.994 and 0.993, in less than half the time; at 64 scores fell
    to 0.991.
    """
    if width <= 128:
        return 128
    step = 64 if width <= 640 else 128 if width <= 1280 else 256
    return math.ceil(width / step) * step


def decode(scores: Float32, classes: NDArray[np.int32], last: Float32, alphabet: Sequence[str]) -> list[ReadLine]:
    """Decode the best path of n lines: repeats are joined, CTC's blanks (class 0) dropped.

    ``classes`` and ``scores``: the most probable class of each step and its probability, (n, steps) each. ``last``: the
    probability of the last class, as many, which is the blank between words. Results equal those of RapidOCR's
    ``CTCLabelDecode`` but for the rounding of scores, for blanks between Chinese and letters or digits, of which more
    are found, and for ``letters_for_ones``. Raises ``ModelUnavailable`` where a class is not in ``alphabet``.
    """
    if classes.max(initial=0) >= len(alphabet):
        raise ModelUnavailable(
            f"The OCR recogniser answers with class {classes.max()}, its alphabet has {len(alphabet)}. "
            "The dictionary belongs to another model: fetch the model again."
        )
    kept = classes != 0
    kept[:, 1:] &= classes[:, 1:] != classes[:, :-1]
    blanks = last if alphabet[-1] == " " else np.zeros_like(last)
    return [_read_line(alphabet, *line) for line in zip(scores, classes, blanks, kept, strict=True)]


def _read_line(
    alphabet: Sequence[str], scores: Float32, classes: NDArray[np.int32], blanks: Float32, kept: NDArray[np.bool_]
) -> ReadLine:
    steps = np.flatnonzero(kept)
    text = "".join(alphabet[index] for index in classes[steps])
    if not text.strip():
        return ReadLine("", 0.0)
    if len(text) != len(steps):  # an alphabet with classes of several characters
        return ReadLine(text.strip(), float(scores[steps].mean(dtype=np.float64)))
    text = letters_for_ones(text, scores[steps])
    borders = [found.start() for found in _BORDER.finditer(text)]
    if borders:
        expected = np.cumsum(blanks, dtype=np.float64)[steps]
        for place in reversed(borders):
            if expected[place + 1] - expected[place] >= _BLANK:
                text = f"{text[: place + 1]} {text[place + 1 :]}"
    return ReadLine(text.strip(), float(scores[steps].mean(dtype=np.float64)))


def letters_for_ones(text: str, scores: Float32) -> str:
    """Return ``text`` with a letter l for each doubtful figure one within a word that has no other figures.

    ``scores``: the probability of each character, (n,) float32, 0 to 1.
    """
    for word in _WORD.finditer(text) if "1" in text else ():
        for ones in _ONES.finditer(word[0]):
            begin, end = word.start() + ones.start(), word.start() + ones.end()
            if scores[begin:end].min() < _SURE_ONE:
                text = f"{text[:begin]}{'l' * (end - begin)}{text[end:]}"
    return text


def is_text(line: ReadLine, box: Float32, min_score: float, side: int) -> bool:
    """Return whether a line counts: its score is ``min_score`` (0 to 1) at least.

    ``box``: (4, 2) corners in a picture whose shorter side has ``side`` pixels. The fourth power of the score counts
    for one large character, for which cups (C), wheels (O) and trunks (1) are taken: at 0.8 that is a score of 0.946.
    """
    sides = np.linalg.norm(box - np.roll(box, -1, axis=0), axis=1)
    is_large = len(line.text) == 1 and sides.min() >= _LARGE * side
    return bool(line.text) and line.score ** (4 if is_large else 1) >= min_score


def _chunks(widths: Sequence[int], at_once: int | None) -> Iterator[tuple[int, list[int]]]:
    """Yield the padded width and the indices of the lines of each call.

    ``at_once``: the graph's fixed number of lines, 1, or None. Lines are grouped by powers of two, since OpenVINO keeps
    3 MB for each shape; these are 39.
    """
    order = sorted(range(len(widths)), key=lambda index: widths[index])
    for width, group in groupby(order, key=lambda index: padded_width(widths[index])):
        indices = list(group)
        while indices:
            size = at_once or _power_of_two(min(len(indices), max(1, MAX_CHUNK_WIDTH // width)))
            yield width, indices[:size]
            indices = indices[size:]


def _power_of_two(most: int) -> int:
    """Return the largest power of two that is at most ``most`` >= 1."""
    return 1 << (most.bit_length() - 1)


def _pad(lines: Sequence[NDArray[np.uint8]], into: Float32) -> None:
    """Write lines to ``into``, (n, 3, LINE_HEIGHT, width) float32, -1 to 1, blue first, mid grey (0) right of each.

    This is what PP-OCR was trained with.
    """
    for planes, line in zip(into, lines, strict=True):
        inside = planes[:, :, : line.shape[1]]
        np.multiply(line[..., ::-1].transpose(2, 0, 1), np.float32(1 / 127.5), out=inside)
        inside -= 1
        planes[:, :, line.shape[1] :] = 0
