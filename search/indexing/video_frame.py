"""The middle frame of a video as JPEG, in a process of its own: ``python -m search.indexing.video_frame URI
MAX_PIXELS`` (see ``video``).

FFmpeg reads what strangers made. Here it may crash, spin or ask for memory without end, and only this process goes
down. Exit codes: 0, the picture is on standard output; 2, the video is at fault and standard error says how in one
line.
"""

from __future__ import annotations

import contextlib
import sys
from typing import IO

import av
from av.error import FFmpegError
from av.video.frame import VideoFrame
from PIL import Image

from search.indexing.apart import FAULTY, limit_process
from search.indexing.orientation import to_jpeg
from search.indexing.places import open_file

MAX_FRAMES = 600
"""Frames decoded on the way from the key frame before the middle to the middle: ten seconds at 60 a second."""
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
"""FFmpeg's names of the formats that are opened. Others are playlists, which name further files and addresses to
read.
"""


class NotAVideo(Exception):
    """A file that is no video. The message says what is wrong with it, for a person."""


def middle_frame(file: IO[bytes], *, max_pixels: int) -> Image.Image:
    """Return the frame in the middle of the first video stream, RGB, turned as the file says.

    Raises ``NotAVideo``, ``FFmpegError``.
    """
    with av.open(file, options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}) as container:
        if not container.streams.video:
            raise NotAVideo("it has no pictures in it")
        stream = container.streams.video[0]
        if stream.width * stream.height > max_pixels:
            raise NotAVideo(
                f"its pictures are {stream.width} x {stream.height} pixels, more than the {max_pixels:,} decoded here"
            )
        stream.thread_type = "NONE"
        middle = 0
        if stream.duration and stream.time_base:
            middle = (stream.start_time or 0) + stream.duration // 2
        elif container.duration and stream.time_base:
            middle = int(container.duration / av.time_base / stream.time_base / 2)
        chosen: VideoFrame | None = None
        for start in dict.fromkeys((middle, 0)):  # the middle may be cut off; the beginning is better than nothing
            with contextlib.suppress(FFmpegError):
                container.seek(start, stream=stream)
            chosen = _frame_at(container, stream, start)
            if chosen is not None:
                break
        if chosen is None:
            raise NotAVideo("none of its pictures can be decoded")
        if chosen.width * chosen.height > max_pixels:  # a stream may grow on the way
            raise NotAVideo(
                f"its pictures are {chosen.width} x {chosen.height} pixels, more than the {max_pixels:,} decoded here"
            )
        picture: Image.Image = chosen.to_image()  # type: ignore[no-untyped-call]
        turn = round(chosen.rotation / 90) % 4
        return picture.rotate(90 * turn, expand=True) if turn else picture


def _frame_at(container: av.container.InputContainer, stream: av.VideoStream, wanted: int) -> VideoFrame | None:
    """Return the first frame at or after ``wanted`` (in the stream's time base), else the last that was decoded."""
    last: VideoFrame | None = None
    with contextlib.suppress(FFmpegError):  # cut short or damaged further on: what came before it counts
        for number, frame in enumerate(container.decode(stream)):
            last = frame
            if number >= MAX_FRAMES or frame.pts is None or frame.pts >= wanted:
                break
    return last


def main(uri: str, max_pixels: int) -> int:
    av.logging.set_level(None)
    try:
        with open_file(uri) as file:
            limit_process()
            picture = middle_frame(file, max_pixels=max_pixels)
    except (NotAVideo, FFmpegError, OSError, ValueError, MemoryError) as error:
        print(getattr(error, "strerror", None) or str(error) or type(error).__name__, file=sys.stderr)  # noqa: T201
        return FAULTY
    sys.stdout.buffer.write(to_jpeg(picture))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
