"""From files to what is sent for them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from errors import ErrorCode, ServiceError
from search.indexing import video
from search.indexing.file_contents import Contents, load, picture, picture_hash, read, video_hash
from search.indexing.formats import Kind
from search.indexing.orientation import orientation, upright
from settings import Settings
from tests.search.indexing.files import picture as a_picture
from tests.search.indexing.files import video as write_video

MANY = 10**8


def bright_corner(data: bytes) -> tuple[str, str]:
    """Return which quarter of a picture is bright."""
    grey = np.asarray(Image.open(io.BytesIO(data)).convert("L")).astype(int)
    height, width = grey.shape
    quarters = {
        (row, column): grey[
            slice(0, height // 2) if row == "top" else slice(height // 2, None),
            slice(0, width // 2) if column == "left" else slice(width // 2, None),
        ].mean()
        for row in ("top", "bottom")
        for column in ("left", "right")
    }
    return max(quarters, key=lambda quarter: quarters[quarter])


@pytest.mark.parametrize(
    ("value", "corner"),
    [
        (2, ("top", "right")),
        (3, ("bottom", "right")),
        (4, ("bottom", "left")),
        (5, ("top", "left")),
        (6, ("top", "right")),
        (7, ("bottom", "right")),
        (8, ("bottom", "left")),
    ],
)
def test_a_picture_is_turned_as_its_exif_says_and_sent_without_saying_so(value: int, corner: tuple[str, str]) -> None:
    turned = upright(a_picture(1, orientation=value), max_pixels=MANY)
    assert bright_corner(turned) == corner
    assert orientation(turned) == 1
    assert Image.open(io.BytesIO(turned)).size == ((24, 32) if value >= 5 else (32, 24))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_upright_picture_is_sent_as_it_lies_there(kind: str) -> None:
    data = a_picture(1, kind=kind)
    assert upright(data, max_pixels=MANY) == data


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(value: int) -> None:
    assert orientation(a_picture(1, orientation=value)) == 1


def test_what_is_no_picture_and_what_is_too_large_are_errors() -> None:
    with pytest.raises(ServiceError) as unreadable:
        upright(b"no picture", max_pixels=MANY)
    assert unreadable.value.code is ErrorCode.UNREADABLE_PICTURE
    with pytest.raises(ServiceError) as large:
        upright(a_picture(1), max_pixels=10)
    assert large.value.code is ErrorCode.PICTURE_TOO_LARGE


def test_a_file_above_the_limit_is_not_held_in_memory_whole(tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(bytes(1001))
    with pytest.raises(ServiceError) as large:
        read(str(tmp_path / "large.jpg"), Kind.IMAGE, 1001, Settings(max_body_bytes=1000))
    assert large.value.code is ErrorCode.BODY_TOO_LARGE


@pytest.mark.parametrize(
    ("container", "suffix"), [("mp4", "mp4"), ("mov", "mov"), ("matroska", "mkv"), ("avi", "avi"), ("mp4", "m4v")]
)
def test_of_a_video_the_middle_frame_is_sent(container: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"film.{suffix}"
    write_video(path, container=container)
    sent = Image.open(io.BytesIO(load(str(path), Settings())))
    assert (sent.format, sent.size) == ("JPEG", (64, 48))
    assert abs(float(np.asarray(sent).mean()) - 100) <= 8  # frame 25 of 50 is 100; one frame is 4


def test_of_a_video_that_was_cut_short_the_last_whole_frame_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    write_video(path, container="matroska")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    assert Image.open(io.BytesIO(load(str(path), Settings()))).size == (64, 48)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no video",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\n",
    ],
)
def test_what_is_no_video_and_what_names_other_files_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(data)
    with pytest.raises(ServiceError, match="No picture could be taken from the video") as refused:
        load(str(path), Settings())
    assert refused.value.code is ErrorCode.UNREADABLE_PICTURE


def test_a_video_with_too_large_pictures_is_refused_before_one_is_decoded(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4")
    with pytest.raises(ServiceError, match="64 x 48"):
        video.middle_frame(str(tmp_path / "film.mp4"), max_pixels=1000)


def test_a_video_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4")
    with pytest.raises(ServiceError, match=r"no picture came of it in 0\.01 s"):
        video.middle_frame(str(tmp_path / "film.mp4"), max_pixels=MANY, seconds=0.01)


def test_a_long_video_is_told_apart_by_three_pieces_and_its_size() -> None:
    data = bytearray(5 << 20)
    before = video_hash(io.BytesIO(data), len(data))
    assert video_hash(io.BytesIO(data), len(data) - 1) != before
    for place in (0, len(data) // 2, len(data) - 1):
        changed = bytearray(data)
        changed[place] = 1
        assert video_hash(io.BytesIO(changed), len(data)) != before


def test_what_was_read_is_what_is_sent(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(a_picture(1))
    contents = read(str(tmp_path / "one.jpg"), Kind.IMAGE, 0, Settings())
    assert contents == Contents(picture_hash(a_picture(1)), a_picture(1))
    assert picture(str(tmp_path / "one.jpg"), contents, Settings()) == a_picture(1)
