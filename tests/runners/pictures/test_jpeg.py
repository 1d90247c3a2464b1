"""JPEGs decoded by simplejpeg: the same pixels as by Pillow, or left to Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import runners.pictures.jpeg
from errors import ErrorCode, ServiceError
from runners.pictures.decode import Picture, decode, decode_image
from runners.pictures.jpeg import decode_clean
from tests.runners.pictures.makers import MANY, encoded

pytest.importorskip("simplejpeg")

WIDTH, HEIGHT = 203, 131


def photo(mode: str = "RGB") -> Image.Image:
    """Return smooth colours under noise, so that chroma, edges and rounding all show."""
    grain = Image.effect_noise((WIDTH, HEIGHT), 90)
    colours = Image.merge(
        "RGB", (grain, Image.linear_gradient("L").resize(grain.size), Image.radial_gradient("L").resize(grain.size))
    )
    return colours.convert(mode)


PHOTO = photo()


def by_pillow(data: bytes, **options: Any) -> Picture | ErrorCode:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runners.pictures.jpeg, "simplejpeg", None)
        return answer(data, **options)


def answer(data: bytes, **options: Any) -> Picture | ErrorCode:
    try:
        return decode(data, max_pixels=MANY, **options)
    except ServiceError as error:
        return error.code


def assert_same(one: Picture | ErrorCode, other: Picture | ErrorCode) -> None:
    if isinstance(one, ErrorCode) or isinstance(other, ErrorCode):
        assert one == other
        return
    assert (one.width, one.height) == (other.width, other.height)
    np.testing.assert_array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("at_least", [None, 8, 30, 65])
def test_pixels_equal_pillows_at_every_scale(progressive: bool, subsampling: str, at_least: int | None) -> None:
    data = encoded(PHOTO, "JPEG", quality=80, progressive=progressive, subsampling=subsampling)
    assert decode_clean(data, PHOTO.size, at_least) is not None
    assert_same(answer(data, at_least=at_least), by_pillow(data, at_least=at_least))


@pytest.mark.parametrize("orientation", [*range(10), 65535])
def test_pictures_are_turned_as_by_pillow(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PHOTO, "JPEG", exif=exif)
    assert decode_clean(data, PHOTO.size) is not None
    assert_same(answer(data, upright=True), by_pillow(data, upright=True))
    assert_same(answer(data), by_pillow(data))


def test_an_image_for_pillow_is_the_same_as_by_pillow() -> None:
    data = encoded(PHOTO, "JPEG")
    ours = decode_image(data, max_pixels=MANY, at_least=30, keep_modes=("RGB",))
    with Image.open(io.BytesIO(data)) as theirs:
        theirs.draft("RGB", (30, 30))
        assert (ours.mode, ours.size, ours.tobytes()) == ("RGB", (51, 33), theirs.convert("RGB").tobytes())


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_are_left_to_pillow_and_keep_their_mode(mode: str) -> None:
    data = encoded(photo(mode), "JPEG")
    assert decode_clean(data, PHOTO.size) is None
    assert decode_image(data, max_pixels=MANY, keep_modes=(mode,)).mode == mode


def test_a_jpeg_that_stores_red_green_and_blue_is_left_to_pillow() -> None:
    data = encoded(PHOTO, "JPEG", quality=95, keep_rgb=True)
    assert decode_clean(data, PHOTO.size) is None
    assert np.abs(decode(data, max_pixels=MANY).pixels.astype(int) - np.asarray(PHOTO)).mean() < 5


def test_a_file_of_another_size_than_was_judged_is_left_to_pillow() -> None:
    assert decode_clean(encoded(PHOTO, "JPEG"), (WIDTH, HEIGHT + 1)) is None


@pytest.mark.parametrize("progressive", [False, True])
def test_a_file_cut_short_is_refused(progressive: bool) -> None:
    data = encoded(PHOTO, "JPEG", progressive=progressive)
    for length in [*range(0, len(data) - 3, len(data) // 40), len(data) - 3]:
        assert decode_clean(data[:length], PHOTO.size) is None
        assert answer(data[:length]) == by_pillow(data[:length]) == ErrorCode.UNREADABLE_PICTURE


LYING = Image.Exif()
LYING[0x0112] = 6
SAMPLES = [encoded(PHOTO, "JPEG", quality=60, progressive=progressive, exif=LYING) for progressive in (False, True)]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4), st.booleans()), min_size=1, max_size=4),
)
def test_a_damaged_file_is_answered_as_by_pillow(data: bytes, changes: list[tuple[float, bytes, bool]]) -> None:
    damaged = bytearray(data)
    for place, change, over in changes:
        start = int(place * len(damaged))
        damaged[start : start + (len(change) if over else 0)] = change
    assert_same(answer(bytes(damaged), upright=True), by_pillow(bytes(damaged), upright=True))


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_lacks_only_its_end_is_read(mode: str, progressive: bool, missing: int) -> None:
    data = encoded(photo(mode), "JPEG", progressive=progressive, quality=88)
    assert_same(answer(data[:-missing]), answer(data))
    image = decode_image(data[:-missing], max_pixels=MANY)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(decode_image(data, max_pixels=MANY)))
    assert answer(data[:-missing], at_least=20) != ErrorCode.UNREADABLE_PICTURE


@pytest.mark.parametrize("missing", [4, 40, 2000])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_pixels_is_refused(progressive: bool, missing: int) -> None:
    data = encoded(PHOTO, "JPEG", progressive=progressive, quality=88)
    assert answer(data[:-missing]) == ErrorCode.UNREADABLE_PICTURE


def test_without_libjpeg_turbo_a_jpeg_without_end_is_refused() -> None:
    assert by_pillow(encoded(PHOTO, "JPEG")[:-2]) == ErrorCode.UNREADABLE_PICTURE


def test_the_end_of_a_thumbnail_is_not_that_of_the_picture() -> None:
    data = encoded(PHOTO, "JPEG", comment=encoded(PHOTO.resize((16, 16)), "JPEG"))
    assert_same(answer(data[:-2]), answer(data))
    assert answer(data[:-50]) == ErrorCode.UNREADABLE_PICTURE
