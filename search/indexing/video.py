"""The middle frame of a video, taken by a process of its own (``video_frame``)."""

from __future__ import annotations

from search.indexing.apart import SECONDS, run_apart


def middle_frame(uri: str, *, max_pixels: int, seconds: float = SECONDS) -> bytes:
    """Return a JPEG of the frame in the middle of the video. Blocks. Raises ``ServiceError`` UNREADABLE_PICTURE."""
    return run_apart(
        "search.indexing.video_frame",
        uri,
        str(max_pixels),
        what="No picture could be taken from the video",
        seconds=seconds,
    )
