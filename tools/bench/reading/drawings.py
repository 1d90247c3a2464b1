"""The pictures: thirteen kinds, each rendered by a seed, with the lines that are in them and where they are."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tools.bench.pictures import shipped
from tools.bench.reading import texts
from tools.bench.reading.fonts import FONTS, Font, face

PER_KIND = 34
Pixels = NDArray[np.uint8]
"""(h, w, 3) RGB or (h, w, 4) RGBA."""
Quad = NDArray[np.float64]
"""(4, 2): corners of a line, x and y in pixels."""
_SCENES = (
    *("chelsea.png", "coffee.png", "brick.png", "grass.png", "gravel.png", "moon.png", "horse.png", "camera.png"),
    *("coins.png", "hubble_deep_field.jpg", "retina.jpg", "motorcycle_left.png"),
)
"""Photos without writing that scikit-image ships."""


@dataclass(frozen=True, slots=True)
class Truth:
    """A line that is in a picture."""

    text: str
    quad: Quad


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture and its lines, in reading order."""

    name: str
    kind: str
    font: str
    data: bytes
    """JPEG or PNG."""
    lines: tuple[Truth, ...]


@dataclass(slots=True)
class _Canvas:
    """A picture while it is drawn."""

    random: Random
    font: Font
    image: Image.Image
    lines: list[Truth]

    def write(self, text: str, at: tuple[int, int], size: int, ink: tuple[int, ...]) -> None:
        """Write a line with its top left corner at ``at``."""
        pen = ImageDraw.Draw(self.image)
        pen.text(at, text, font=face(self.font, size), fill=ink)
        left, top, right, bottom = pen.textbbox(at, text, font=face(self.font, size))
        self.lines.append(Truth(text, _quad(left, top, right, bottom)))

    def fitted(self, text: str, size: int, width: int) -> str:
        """Return the beginning of ``text`` that is no wider than ``width`` pixels."""
        while self.width(text, size) > width:
            text = text[:-1].rstrip()
        return text

    def width(self, text: str, size: int) -> int:
        """Return how wide a line would be, in pixels."""
        return round(face(self.font, size).getlength(text))


def _quad(left: float, top: float, right: float, bottom: float) -> Quad:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)


def drawings(first: int = 0) -> list[Drawing]:
    """Render ``PER_KIND`` pictures of each kind, in all fonts, from the number ``first`` on."""
    return [drawing(kind, number) for kind in KINDS for number in range(first, first + PER_KIND)]


def drawing(kind: str, number: int) -> Drawing:
    """Render picture ``number`` of a kind; those from ``PER_KIND`` on are in no benchmark by default."""
    random = Random(f"{kind} {number}")
    usable = [font for font in FONTS if (font.traditional if kind == "traditional" else font.simplified)]
    font = usable[number % len(usable)]
    canvas = KINDS[kind](random, font)
    pixels, lines = np.asarray(canvas.image), canvas.lines
    if kind not in ("transparent", "screenshots", "photos without text"):
        pixels, lines = _photographed(pixels, lines, random, gently=kind in ("small", "dense"))
    if kind == "turned":
        pixels, lines = _turned(pixels, lines, 1 + number % 3)
    return Drawing(f"{kind} {number:02}", kind, font.name, _encoded(pixels, random), tuple(lines))


def _paper(random: Random, size: tuple[int, int], shade: tuple[int, int] = (205, 255)) -> Image.Image:
    """Return paper of one colour, with a gradient or with a grain."""
    colour = np.array([random.randint(*shade) for _ in range(3)], np.float32)
    ground = np.broadcast_to(colour, (size[1], size[0], 3)).copy()
    if random.random() < 0.4:
        ground *= np.linspace(random.uniform(0.75, 0.95), 1, size[0], dtype=np.float32)[None, :, None]
    if random.random() < 0.4:
        grain = np.random.default_rng(random.randint(0, 10**6)).normal(0, 5, (size[1] // 4, size[0] // 4))
        ground += cv2.resize(grain.astype(np.float32), size)[..., None]
    return Image.fromarray(ground.clip(0, 255).astype(np.uint8))


def _dark(random: Random) -> tuple[int, int, int]:
    return random.randint(0, 70), random.randint(0, 70), random.randint(0, 90)


def _page(
    random: Random,
    font: Font,
    *,
    size: tuple[int, int] = (860, 640),
    letters: tuple[int, int] = (24, 44),
    rows: int = 8,
    line: Callable[[Random], str] = texts.line,
) -> _Canvas:
    canvas = _Canvas(random, font, _paper(random, size), [])
    ink, height = _dark(random), random.randint(*letters)
    for row in range(rows):
        top = 40 + round(row * height * 1.75)
        if top + 1.5 * height > size[1]:
            break
        canvas.write(canvas.fitted(line(random), height, size[0] - 90), (45, top), height, ink)
    return canvas


def _upright(random: Random, font: Font) -> _Canvas:
    return _page(random, font)


def _blanks(random: Random, font: Font) -> _Canvas:
    """Draw a page of Chinese with figures and English, some of them between blanks."""
    return _page(random, font, line=texts.mixed)


def _vertical(random: Random, font: Font) -> _Canvas:
    """Draw columns that are read from right to left."""
    size, count = random.randint(30, 44), random.randint(1, 4)
    rows = random.randint(7, 14)
    width, height = round((count + 1.2) * size * 2), round((rows + 2) * size * 1.12)
    canvas = _Canvas(random, font, _paper(random, (width, height)), [])
    pen, ink = ImageDraw.Draw(canvas.image), _dark(random)
    for number in range(count):
        text, left = texts.chinese(random, length=rows), width - round((number + 1) * size * 2)
        for row, character in enumerate(text):
            pen.text((left, size + row * round(size * 1.12)), character, font=face(font, size), fill=ink)
        bottom = size + rows * round(size * 1.12)
        canvas.lines.append(Truth(text, _quad(left, size, left + size, bottom)))
    return canvas


def _strip(random: Random, font: Font) -> _Canvas:
    size, text = random.randint(16, 52), texts.chinese(random, length=random.randint(14, 32))
    ink, shade = (_dark(random), (205, 255)) if random.random() < 0.6 else ((245, 245, 235), (0, 70))
    image = _paper(random, (round(face(font, size).getlength(text)) + 2 * size, round(size * 1.7)), shade)
    canvas = _Canvas(random, font, image, [])
    canvas.write(text, (size, round(size * 0.3)), size, ink)
    return canvas


def _small(random: Random, font: Font) -> _Canvas:
    return _page(random, font, size=(900, 700), letters=(13, 18), rows=20)


def _dense(random: Random, font: Font) -> _Canvas:
    canvas = _Canvas(random, font, _paper(random, (980, 760), (235, 255)), [])
    size, ink = random.randint(17, 22), _dark(random)
    for top in range(20, 760 - 2 * size, round(size * 1.9)):
        for left in range(20, 980 - 5 * size, round(size * 4.6)):
            canvas.write(texts.cell(random), (left, top), size, ink)
    return canvas


def _transparent(random: Random, font: Font) -> _Canvas:
    canvas = _Canvas(random, font, Image.new("RGBA", (860, 420), (0, 0, 0, 0)), [])
    light, size = random.random() < 0.5, random.randint(26, 46)
    ink = (random.randint(225, 255), random.randint(225, 255), random.randint(190, 255)) if light else _dark(random)
    for row in range(4):
        text = canvas.fitted(texts.line(random), size, 770)
        canvas.write(text, (45, 40 + round(row * size * 1.8)), size, (*ink, 255))
    return canvas


def _low_contrast(random: Random, font: Font) -> _Canvas:
    canvas = _page(random, font, letters=(28, 44))
    grey = np.asarray(canvas.image).astype(np.float32)
    centre, keep = random.randint(90, 190), random.uniform(0.14, 0.3)
    faint = (centre + (grey - grey.mean()) * keep).clip(0, 255).astype(np.uint8)
    return _Canvas(random, font, Image.fromarray(faint), canvas.lines)


def _traditional(random: Random, font: Font) -> _Canvas:
    canvas = _Canvas(random, font, _paper(random, (760, 560)), [])
    ink, size = _dark(random), random.randint(28, 46)
    for row in range(random.randint(4, 6)):
        canvas.write(texts.traditional(random), (45, 40 + round(row * size * 1.75)), size, ink)
    return canvas


def _screenshot(random: Random, font: Font) -> _Canvas:
    """Draw a conversation: bubbles left and right, on a light or a dark ground."""
    dark = random.random() < 0.5
    ground, ink = ((24, 24, 28), (235, 235, 235)) if dark else ((237, 237, 237), (20, 20, 20))
    canvas = _Canvas(random, font, Image.new("RGB", (720, 1000), ground), [])
    pen, top = ImageDraw.Draw(canvas.image), 40
    while top < 900:
        size, text = 28, texts.line(random)
        width = canvas.width(text, size)
        left = 40 if random.random() < 0.5 else 680 - width
        bubble = (
            ((60, 60, 66) if dark else (255, 255, 255)) if left == 40 else ((38, 120, 60) if dark else (149, 236, 105))
        )
        pen.rounded_rectangle((left - 18, top - 14, left + width + 18, top + size + 22), 14, fill=bubble)
        canvas.write(text, (left, top), size, ink)
        top += random.randint(85, 110)
    return canvas


def _receipt(random: Random, font: Font) -> _Canvas:
    canvas = _Canvas(random, font, _paper(random, (560, 760), (225, 255)), [])
    size, ink = random.randint(24, 34), (40, 40, 45)
    for row, (label, price) in enumerate(texts.receipt(random)):
        top = 60 + round(row * size * 1.9)
        canvas.write(label, (40, top), size, ink)
        canvas.write(price, (520 - canvas.width(price, size), top), size, ink)
    return canvas


def _photo(random: Random, font: Font) -> _Canvas:
    """Cut a part out of a photo without writing, turn it by some quarters, and change its light."""
    path = shipped("skimage", f"data/{random.choice(_SCENES)}")
    with Image.open(path) as photo:
        image = photo.convert("RGB")
    share = random.uniform(0.6, 1)
    width, height = round(image.width * share), round(image.height * share)
    left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
    image = image.crop((left, top, left + width, top + height)).rotate(90 * random.randint(0, 3), expand=True)
    scale = random.uniform(600, 900) / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    image = image.point([min(255, round(v * random.uniform(0.9, 1.1))) for v in range(256)] * 3)
    return _Canvas(random, font, image, [])


def _photographed(
    pixels: Pixels, lines: Sequence[Truth], random: Random, *, gently: bool
) -> tuple[Pixels, list[Truth]]:
    """Show a page as a camera would: leaning, in perspective, blurred, with noise."""
    height, width = pixels.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    reach = (0.004 if gently else 0.02) * min(width, height)
    moved = corners + np.array([[random.uniform(-reach, reach) for _ in "xy"] for _ in range(4)], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, moved)
    shown = cv2.warpPerspective(pixels, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    if random.random() < 0.4:
        shown = cv2.GaussianBlur(shown, (0, 0), random.uniform(0.4, 0.6 if gently else 1.1))
    if random.random() < 0.4:
        noise = np.random.default_rng(random.randint(0, 10**6)).normal(0, random.uniform(2, 9), shown.shape)
        shown = (shown + noise).clip(0, 255).astype(np.uint8)
    placed = [
        Truth(line.text, cv2.perspectiveTransform(line.quad[None].astype(np.float32), matrix)[0].astype(float))
        for line in lines
    ]
    return np.asarray(shown, np.uint8), placed


def _turned(pixels: Pixels, lines: Sequence[Truth], quarters: int) -> tuple[Pixels, list[Truth]]:
    """Turn a picture to the left by quarters."""
    for _ in range(quarters):
        width = pixels.shape[1]
        lines = [Truth(line.text, np.stack([line.quad[:, 1], width - line.quad[:, 0]], axis=1)) for line in lines]
        pixels = np.ascontiguousarray(np.rot90(pixels))
    return pixels, list(lines)


def _encoded(pixels: Pixels, random: Random) -> bytes:
    buffer = io.BytesIO()
    if pixels.shape[2] == 4:
        Image.fromarray(pixels).save(buffer, "PNG")
    else:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=random.randint(60, 95))
    return buffer.getvalue()


KINDS: dict[str, Callable[[Random, Font], _Canvas]] = {
    "upright": _upright,
    "turned": _upright,
    "vertical": _vertical,
    "strips": _strip,
    "small": _small,
    "dense": _dense,
    "transparent": _transparent,
    "low contrast": _low_contrast,
    "traditional": _traditional,
    "screenshots": _screenshot,
    "receipts": _receipt,
    "blanks": _blanks,
    "photos without text": _photo,
}
