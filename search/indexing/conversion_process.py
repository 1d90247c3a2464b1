"""A picture from standard input as JPEG on standard output: ``python -m search.indexing.conversion_process FORMAT
MAX_PIXELS`` (see ``conversion`` and ``apart``).
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

from PIL import Image, ImageOps

from search.indexing.apart import FAULTY, limit_process
from search.indexing.orientation import to_jpeg

_MOST_PREVIEWS = 64
"""Places in a raw file at which a JPEG may begin that are looked at."""
_ORIENTATION = 0x0112


class NotAPicture(Exception):
    """A file that is no picture. The message says what is wrong with it, for a person."""


def opened(data: bytes, format: str) -> Image.Image:
    """Open ``data``, not yet decoded. Raises ``NotAPicture``, and what Pillow and its plugins raise."""
    if format == "RAW":
        return _preview(data)
    package = {"HEIF": "pillow-heif", "JXL": "pillow-jxl-plugin"}[format]
    try:
        if format == "HEIF":
            import pillow_heif

            pillow_heif.register_heif_opener()
        else:
            import pillow_jxl  # noqa: F401 - it registers itself
    except ImportError as error:
        raise NotAPicture(f"the package {package} is not installed (pip install {package})") from error
    return Image.open(io.BytesIO(data), formats=[format])


def upright(image: Image.Image, *, max_pixels: int) -> Image.Image:
    """Decode ``image`` and turn it as it says. Raises ``NotAPicture`` where it is too large."""
    if image.width * image.height > max_pixels:
        raise NotAPicture(f"it is {image.width} x {image.height} pixels, more than the {max_pixels:,} decoded here")
    if image.format != "JXL":  # whose decoder has turned it
        image = ImageOps.exif_transpose(image)
    return image.convert("RGB")


def _preview(data: bytes) -> Image.Image:
    """Return the largest JPEG inside of a raw file, not yet decoded, with the raw file's orientation where it has none
    itself.

    All cameras' raw files hold one, uncut; the sensor's own data may be JPEG too, of a kind that is not decoded.
    """
    largest: Image.Image | None = None
    for start in _starts(data):
        try:
            image = Image.open(io.BytesIO(data[start:]), formats=["JPEG"])
        except (OSError, SyntaxError, ValueError):
            continue
        if largest is None or image.width * image.height > largest.width * largest.height:
            largest = image
    if largest is None:
        raise NotAPicture("there is no preview in it")
    if _ORIENTATION not in largest.getexif() and data[:4] in (b"II*\0", b"MM\0*"):
        exif = Image.Exif()
        exif.load(b"Exif\0\0" + data[: 1 << 20])
        largest.getexif()[_ORIENTATION] = exif.get(_ORIENTATION, 1)
    return largest


def _starts(data: bytes) -> Iterator[int]:
    start = -1
    for _ in range(_MOST_PREVIEWS):
        start = data.find(b"\xff\xd8\xff", start + 1)
        if start < 0:
            return
        yield start


def main(format: str, max_pixels: int) -> int:
    data = sys.stdin.buffer.read()
    limit_process()
    Image.MAX_IMAGE_PIXELS = None  # our own bound applies
    try:
        picture = to_jpeg(upright(opened(data, format), max_pixels=max_pixels))
    except Exception as error:  # noqa: BLE001 - what decoders raise on damaged files is not documented
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)  # noqa: T201
        return FAULTY
    sys.stdout.buffer.write(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
