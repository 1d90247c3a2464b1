"""Open emoji artwork as small pictures: fetched by npm, rendered by resvg, kept in a cache folder.

Pictures are (size, size, 4) uint8 RGBA, straight alpha. An emoji is written as its code points in lower-case
hexadecimal, joined by ``-``, without the variation selector fe0f: ``1f469-200d-1f680``.

Colour sets are rendered twice: as they are, and with a black line around every shape, since the set that is held out is
drawn in outlines.
"""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

log = logging.getLogger(__name__)

SIDE = 72
"""Pixels of a rendered training picture: a little more than the model takes, so that it can be moved and turned."""

HELD_OUT = "openmoji"


@dataclass(frozen=True, slots=True)
class IconSet:
    """One npm package ``@iconify-json/<name>``."""

    name: str
    version: str
    colour: bool = True
    """True where shapes have colours of their own; black ones are only drawn once."""


SETS = (
    IconSet("noto", "1.2.9"),
    IconSet("noto-v1", "1.2.5"),
    IconSet("twemoji", "1.2.5"),
    IconSet("fluent-emoji", "1.2.7"),
    IconSet("fluent-emoji-flat", "1.2.6"),
    IconSet("fluent-emoji-high-contrast", "1.2.6", colour=False),
    IconSet("emojione", "1.2.3"),
    IconSet("emojione-monotone", "1.2.1", colour=False),
    IconSet("fxemoji", "1.2.2"),
    IconSet("streamline-emojis", "1.2.4"),
)
FONT = "@fontsource/noto-emoji@5.3.2"  # a font of outlines
FONT_WEIGHTS = (300, 500, 700)
OTHERS = (
    f"@iconify-json/{HELD_OUT}@1.2.29",
    FONT,
    "cldr-annotations-full@48.2.0",
    "cldr-annotations-derived-full@48.2.0",
)


@dataclass(frozen=True, slots=True)
class Artwork:
    """Rendered pictures, and which of the emoji each shows."""

    pixels: NDArray[np.uint8]
    """(n, side, side, 4) RGBA."""
    emoji: NDArray[np.int64]
    """(n,) index into the list of emoji that it was rendered for."""


def fetch_packages(cache: Path) -> Path:
    """Install the npm packages below ``cache`` unless that was done before, and return their ``node_modules``.

    Raise ``subprocess.CalledProcessError`` if npm fails.
    """
    wanted = [*(f"@iconify-json/{icons.name}@{icons.version}" for icons in SETS), *OTHERS]
    stamp = cache / "packages.txt"
    if not stamp.is_file() or stamp.read_text() != "\n".join(wanted):
        cache.mkdir(parents=True, exist_ok=True)
        command = [
            "npm",
            "install",
            "--no-audit",
            "--no-fund",
            "--no-save",
            "--ignore-scripts",
            "--prefix",
            str(cache),
            *wanted,
        ]
        subprocess.run(command, check=True)
        stamp.write_text("\n".join(wanted))
    return cache / "node_modules"


def code_points(text: str) -> str:
    """Return an emoji's characters as this module writes emoji."""
    return "-".join(f"{ord(char):x}" for char in text if char != "\ufe0f")


def is_variant(emoji: str) -> bool:
    """Return whether ``emoji`` differs from another only in skin tone or direction, or is a country's flag."""
    points = [int(point, 16) for point in emoji.split("-")]
    skin_tone = any(0x1F3FB <= point <= 0x1F3FF for point in points)
    flag = any(0x1F1E6 <= point <= 0x1F1FF or point >= 0xE0000 for point in points)
    return skin_tone or flag or "-200d-27a1" in emoji


def drawn_in(modules: Path, name: str) -> dict[str, str]:
    """Map emoji to icon names, of the sets that say which icon is which emoji (``chars.json``)."""
    chars: dict[str, str] = json.loads((modules / f"@iconify-json/{name}/chars.json").read_text())
    return {"-".join(point for point in emoji.split("-") if point != "fe0f"): icon for emoji, icon in chars.items()}


def training_artwork(modules: Path, emoji: list[str], cache: Path) -> Artwork:
    """Return every picture of ``emoji`` in all sets but the held-out one. Rendered once, then read from ``cache``."""
    index = {code: number for number, code in enumerate(emoji)}
    icon_names = _icon_names(modules, index)
    parts = [
        _cached(cache / f"{icons.name}-{SIDE}.npz", lambda icons=icons: _render_set(modules, icons, icon_names))
        for icons in SETS
    ]
    parts.append(
        _cached(cache / f"noto-font-{SIDE}.npz", lambda: _render_font(modules / FONT.rsplit("@", 1)[0], index))
    )
    return Artwork(np.concatenate([part.pixels for part in parts]), np.concatenate([part.emoji for part in parts]))


def held_out_pictures(modules: Path, emoji: list[str], side: int = 256) -> Iterator[Image.Image]:
    """Return OpenMoji's pictures of ``emoji``, in order, on white: RGB, ``side`` pixels."""
    names, icons = drawn_in(modules, HELD_OUT), _icons(modules, HELD_OUT)
    for code in emoji:
        picture = Image.fromarray(_rendered(_svg(icons, names[code]), side))
        ground = Image.new("RGBA", picture.size, "white")
        yield Image.alpha_composite(ground, picture).convert("RGB")


def _icon_names(modules: Path, index: dict[str, int]) -> dict[str, int]:
    """Map icon names to emoji. Sets without ``chars.json`` use the same names, which are Unicode's."""
    names: dict[str, int] = {}
    for name in ("fluent-emoji-flat", "twemoji", "noto"):
        names |= {icon: index[code] for code, icon in drawn_in(modules, name).items() if code in index}
    return names


def _icons(modules: Path, name: str) -> dict[str, Any]:
    icons: dict[str, Any] = json.loads((modules / f"@iconify-json/{name}/icons.json").read_text())
    return icons


def _svg(icons: dict[str, Any], name: str, *, line: float = 0) -> str:
    """Return an icon as SVG.

    ``line``: width of a black line around every shape that has none of its own, in parts of the picture's side.
    """
    while name in icons.get("aliases", {}) and name not in icons["icons"]:
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    body = icon["body"]
    if line:
        stroke = f'stroke="#000" stroke-linejoin="round" stroke-linecap="round" stroke-width="{width * line:.3f}"'
        body = f"<g {stroke}>{body}</g>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{body}</svg>'


def _rendered(svg: str, side: int) -> NDArray[np.uint8]:
    import resvg_py  # type: ignore[import-not-found,unused-ignore]

    png = bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg.replace("currentColor", "#000"), width=side, height=side, skip_system_fonts=True
        )
    )
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    if image.size != (side, side):  # an icon that is not square
        square = Image.new("RGBA", (side, side))
        image.thumbnail((side, side))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        image = square
    return np.asarray(image)


def _render_set(modules: Path, icon_set: IconSet, icon_names: dict[str, int]) -> Artwork:
    icons = _icons(modules, icon_set.name)
    pixels, emoji = [], []
    for name, number in icon_names.items():
        if name in icons["icons"] or name in icons.get("aliases", {}):
            for line in (0.0, 0.025) if icon_set.colour else (0.0,):
                pixels.append(_rendered(_svg(icons, name, line=line), SIDE))
                emoji.append(number)
    log.info("%s: %d pictures of %d emoji", icon_set.name, len(pixels), len(set(emoji)))
    return Artwork(np.stack(pixels), np.array(emoji))


def _render_font(package: Path, index: dict[str, int]) -> Artwork:
    """Render emoji of one code point from the files that a font is split into.

    Each file says in the style sheet what it covers.
    """
    pixels, emoji = [], []
    for weight in FONT_WEIGHTS:
        for path, covered in _font_files(package, weight):
            font = ImageFont.truetype(str(path), SIDE * 3 // 4)
            for code in sorted(covered & index.keys()):
                pixels.append(_glyph(font, chr(int(code, 16))))
                emoji.append(index[code])
    log.info("noto-emoji: %d pictures of %d emoji", len(pixels), len(set(emoji)))
    return Artwork(np.stack(pixels), np.array(emoji))


def _font_files(package: Path, weight: int) -> Iterator[tuple[Path, Collection[str]]]:
    for block in (package / f"{weight}.css").read_text().split("@font-face")[1:]:
        found = re.search(r"url\(\./(files/[^)]+\.woff)\)", block)
        ranges = re.search(r"unicode-range:\s*([^;]+);", block)
        if found and ranges:
            covered = set()
            for span in ranges[1].replace(" ", "").replace("U+", "").split(","):
                first, _, last = span.partition("-")
                covered |= {f"{code:x}" for code in range(int(first, 16), int(last or first, 16) + 1)}
            yield package / found[1], covered


def _glyph(font: ImageFont.FreeTypeFont, char: str) -> NDArray[np.uint8]:
    image = Image.new("RGBA", (SIDE, SIDE))
    ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), char, font=font, fill="black", anchor="mm")
    return np.asarray(image)


def _cached(path: Path, render: Any) -> Artwork:
    if not path.is_file():
        artwork: Artwork = render()
        part = path.with_suffix(".part.npz")
        np.savez(part, pixels=artwork.pixels, emoji=artwork.emoji)
        part.replace(path)
    with np.load(path) as arrays:
        return Artwork(arrays["pixels"], arrays["emoji"])
