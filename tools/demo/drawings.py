"""Drawings that cn-clip-tiny can tell apart, which knows emoji and not photos.

Each is 256 pixels on white and made of a few shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from PIL import Image, ImageDraw

SIZE = 256
_SCALE = 4
"""Drawn larger and made smaller, so that edges are smooth."""


def draw(name: str) -> Image.Image:
    """Return the drawing called ``name``, one of ``DRAWINGS``; (256, 256) RGB."""
    image = Image.new("RGB", (SIZE * _SCALE, SIZE * _SCALE), "white")
    _Scaled(image).draw(DRAWINGS[name])
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


class _Scaled:
    def __init__(self, image: Image.Image) -> None:
        self._pen = ImageDraw.Draw(image)

    def draw(self, drawing: Callable[[_Scaled], None]) -> None:
        drawing(self)

    def oval(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Draw an oval centred on x, y."""
        self._pen.ellipse(
            [_SCALE * v for v in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)], fill=colour
        )

    def area(self, colour: str, *points: tuple[float, float]) -> None:
        self._pen.polygon([(_SCALE * x, _SCALE * y) for x, y in points], fill=colour)

    def line(self, colour: str, width: float, *points: tuple[float, float]) -> None:
        self._pen.line(
            [(_SCALE * x, _SCALE * y) for x, y in points], fill=colour, width=round(_SCALE * width), joint="curve"
        )

    def half(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Draw the upper half of an oval centred on x, y."""
        box = [_SCALE * v for v in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)]
        self._pen.pieslice(box, 180, 360, fill=colour)


def _apple(pen: _Scaled) -> None:
    pen.line("#7a4a21", 9, (128, 84), (136, 40))
    pen.area("#4fa83d", (138, 60), (160, 34), (196, 30), (178, 58))
    pen.oval(98, 150, 112, 140, "#d9291c")
    pen.oval(158, 150, 112, 140, "#d9291c")
    pen.oval(80, 122, 26, 38, "#f07a6a")


def _sun(pen: _Scaled) -> None:
    for step in range(12):
        angle = step * math.pi / 6
        x, y = math.cos(angle), math.sin(angle)
        pen.area(
            "#fcb900",
            (128 + 112 * x, 128 + 112 * y),
            (128 + 72 * x - 16 * y, 128 + 72 * y + 16 * x),
            (128 + 72 * x + 16 * y, 128 + 72 * y - 16 * x),
        )
    pen.oval(128, 128, 132, 132, "#ffc928")


def _heart(pen: _Scaled) -> None:
    pen.oval(80, 92, 110, 110, "#e8283a")
    pen.oval(176, 92, 110, 110, "#e8283a")
    pen.area("#e8283a", (32, 116), (224, 116), (128, 228))


def _star(pen: _Scaled) -> None:
    points = [
        (
            128 + (112 if n % 2 == 0 else 46) * math.sin(n * math.pi / 5),
            134 - (112 if n % 2 == 0 else 46) * math.cos(n * math.pi / 5),
        )
        for n in range(10)
    ]
    pen.area("#fdd835", *points)


def _tree(pen: _Scaled) -> None:
    pen.area("#7a4a21", (112, 190), (144, 190), (144, 240), (112, 240))
    for top, width in ((16, 90), (64, 134), (112, 176)):
        pen.area("#2e7d32", (128, top), (128 + width / 2, top + 84), (128 - width / 2, top + 84))


def _house(pen: _Scaled) -> None:
    pen.area("#f5e0b8", (52, 120), (204, 120), (204, 232), (52, 232))
    pen.area("#c0392b", (128, 24), (236, 124), (20, 124))
    pen.area("#7a4a21", (108, 164), (148, 164), (148, 232), (108, 232))
    pen.area("#6ec1e4", (164, 144), (192, 144), (192, 172), (164, 172))


def _umbrella(pen: _Scaled) -> None:
    pen.line("#5d4037", 8, (128, 120), (128, 214), (120, 228), (104, 228), (96, 216))
    pen.half(128, 132, 216, 200, "#7e57c2")
    for x in (56, 128, 200):
        pen.half(x, 134, 72, 40, "white")


def _fish(pen: _Scaled) -> None:
    pen.area("#1e88e5", (180, 128), (240, 76), (240, 180))
    pen.oval(116, 128, 184, 108, "#42a5f5")
    pen.oval(66, 112, 26, 26, "white")
    pen.oval(63, 112, 12, 12, "black")


def _snowman(pen: _Scaled) -> None:
    pen.oval(128, 186, 136, 124, "#dfeaf2")
    pen.oval(128, 92, 100, 96, "#e8f1f7")
    pen.area("#263238", (84, 50), (172, 50), (172, 62), (84, 62))
    pen.area("#263238", (100, 8), (156, 8), (156, 54), (100, 54))
    for x, y in ((110, 84), (146, 84), (128, 160), (128, 190)):
        pen.oval(x, y, 11, 11, "black")
    pen.area("#f57c00", (128, 96), (128, 108), (164, 104))


def _mushroom(pen: _Scaled) -> None:
    pen.area("#f3e5d0", (98, 130), (158, 130), (170, 230), (86, 230))
    pen.half(128, 138, 216, 220, "#d32f2f")
    for x, y, size in ((84, 96, 32), (134, 66, 36), (182, 104, 28)):
        pen.oval(x, y, size, size, "white")


def _flag(pen: _Scaled) -> None:
    pen.line("#607d8b", 10, (56, 20), (56, 240))
    pen.area("#e53935", (60, 28), (214, 70), (60, 128))


DRAWINGS: dict[str, Callable[[_Scaled], None]] = {
    "apple": _apple,
    "sun": _sun,
    "heart": _heart,
    "star": _star,
    "tree": _tree,
    "house": _house,
    "umbrella": _umbrella,
    "fish": _fish,
    "snowman": _snowman,
    "mushroom": _mushroom,
    "flag": _flag,
}
