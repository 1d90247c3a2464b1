"""Two thousand damaged pictures of every format: each is read or refused with the right code, and no process dies."""

from __future__ import annotations

import io
import random
from collections import Counter

import pytest
from PIL import Image, ImageDraw

from errors import ErrorCode, ServiceError
from runners.pictures.decode import decode
from search.indexing.conversion import converted, foreign_format
from search.indexing.orientation import upright

PICTURES = 2000
APART = 60
"""Of these, pictures that are converted: each takes a process."""
RIGHT = {"read", ErrorCode.UNREADABLE_PICTURE.value, ErrorCode.PICTURE_TOO_LARGE.value}
PLAIN = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def original(kind: str, mode: str) -> bytes:
    """Encode a small picture."""
    image = Image.radial_gradient("L").resize((120, 80)).convert("RGB")
    ImageDraw.Draw(image).line((0, 0, 120, 80), fill=(200, 40, 90), width=7)
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, kind)
    return buffer.getvalue()


def damaged(data: bytes, numbers: random.Random) -> bytes:
    """Cut ``data`` short, overwrite, insert, swap or repeat some of its bytes."""
    changed = bytearray(data)
    for _ in range(numbers.randint(1, 4)):
        place = numbers.randrange(len(changed)) if changed else 0
        # Damage in the header is as likely as in all the rest.
        place = min(place, numbers.randrange(64)) if numbers.random() < 0.5 else place
        kind = numbers.randrange(5)
        if kind == 0:
            del changed[place:]
        elif kind == 1:
            changed[place : place + 4] = numbers.randbytes(numbers.randint(1, 8))
        elif kind == 2:
            changed[place:place] = numbers.randbytes(numbers.randint(1, 40))
        elif kind == 3:
            changed[place : place + 4] = numbers.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"))
        else:
            changed[place:place] = changed[place : place + numbers.randint(1, 200)]
    return bytes(changed)


def plain_originals() -> list[bytes]:
    """Return one picture of every format and mode that is read as it is."""
    modes = {"JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "RGBA", "P", "LA", "1"), "WEBP": ("RGB", "RGBA")}
    return [original(kind, mode) for kind in PLAIN for mode in modes.get(kind, ("RGB",))]


def outcome(data: bytes, name: str) -> str:
    """Read ``data`` as indexing and the runners do; return what came of it: "read", or the code of its refusal. Raises
    what is not a ``ServiceError``.
    """
    try:
        foreign = foreign_format(data, name)
        jpeg = converted(data, foreign, max_pixels=10**7) if foreign else upright(data, max_pixels=10**7)
        pixels = decode(jpeg, max_pixels=10**7, upright=True).pixels
    except ServiceError as error:
        return str(error.code.value)
    assert pixels.ndim == 3
    assert pixels.size
    return "read"


@pytest.mark.slow
def test_damaged_pictures_are_read_or_refused() -> None:
    numbers, counted = random.Random(20261127), Counter[str]()
    originals = plain_originals()
    for _ in range(PICTURES - APART):
        counted[outcome(damaged(numbers.choice(originals), numbers), "photo.jpg")] += 1
    assert sum(counted.values()) == PICTURES - APART
    assert set(counted) <= RIGHT
    assert counted["read"] > 100
    assert counted["unreadable_picture"] > 100


@pytest.mark.slow
def test_damaged_pictures_that_are_converted_are_read_or_refused() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed: no HEIC here")
    pytest.importorskip("pillow_jxl", reason="pillow-jxl-plugin is not installed: no JPEG XL here")
    pillow_heif.register_heif_opener()
    numbers, counted = random.Random(20261128), Counter[str]()
    originals = [original("HEIF", "RGB"), original("JXL", "RGB"), bytes(64) + original("JPEG", "RGB")]
    for number in range(APART):
        name = "photo.dng" if number % 3 == 2 else "photo.heic"
        counted[outcome(damaged(originals[number % 3], numbers), name)] += 1
    assert sum(counted.values()) == APART
    assert set(counted) <= RIGHT
