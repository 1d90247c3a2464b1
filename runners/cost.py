"""The cost of a job, estimated from its picture's header: only as exact as fair turns need.

The unit is the work on an ordinary picture, Immich's preview of 1440 x 1080 pixels under default options.
"""

from __future__ import annotations

from runners.contract import OcrOptions, Options
from runners.pictures.detection_size import detection_size, enlarged_detection_size

_PREVIEW = 1440 * 1080
"""Pixels of an ordinary picture."""
_DETECTION = 736 * 992
"""Pixels at which OCR looks for text in an ordinary picture."""


def text_cost(width: int = 0, height: int = 0, options: Options = None) -> float:
    """Return the cost of a text: of all those that are read, which have 64 KiB at most, the same."""
    return 1.0


def clip_cost(width: int, height: int, options: Options = None) -> float:
    """Return the cost of CLIP on a picture of ``width`` x ``height`` pixels: the network's is always the same."""
    return 0.9 + 0.1 * width * height / _PREVIEW


def faces_cost(width: int, height: int, options: Options = None) -> float:
    """Return the cost of faces: the detector's is always the same, how many faces there are is not known before."""
    return 0.8 + 0.2 * width * height / _PREVIEW


def ocr_cost(width: int, height: int, options: Options = None) -> float:
    """Return the cost of OCR: that of a first look, and of a second one where the picture is small or a strip."""
    shape = width, height, options.max_resolution if isinstance(options, OcrOptions) else OcrOptions().max_resolution
    second = enlarged_detection_size(*shape)
    detected = detection_size(*shape).pixels + (second.pixels if second is not None else 0)
    return 0.9 * detected / _DETECTION + 0.1 * width * height / _PREVIEW
