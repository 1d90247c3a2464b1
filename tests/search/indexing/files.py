"""Pictures and videos for the tests of indexing."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
from PIL import Image


def picture(number: int, *, size: tuple[int, int] = (32, 24), kind: str = "JPEG", orientation: int = 1) -> bytes:
    """Return a picture unlike that of any other ``number``; its upper left quarter is bright, the rest is not."""
    random = np.random.default_rng(number)
    pixels = random.integers(0, 60, (size[1], size[0], 3), np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] += 190
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def video(path: Path, *, frames: int = 50, size: tuple[int, int] = (64, 48), container: str = "mp4") -> None:
    """Write a video whose frame n of ``frames`` is evenly grey, 4n of 255."""
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), 4 * number, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
