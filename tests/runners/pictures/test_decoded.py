"""One decode for all who hold a picture at the same time, and nothing kept afterwards."""

from __future__ import annotations

import gc
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from errors import ErrorCode, ServiceError
from runners.pictures import decoded
from runners.pictures.decode import Picture, decode
from runners.pictures.decoded import decode_shared

LIMIT = 1_000_000


def jpeg(seed: int, size: tuple[int, int] = (160, 120)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was decoded; each decode waits a moment, so that others can come."""
    seen: list[bytes] = []

    def counting(data: bytes, *, max_pixels: int, upright: bool) -> Picture:
        seen.append(data)
        threading.Event().wait(0.05)
        return decode(data, max_pixels=max_pixels, upright=upright)

    monkeypatch.setattr(decoded, "decode", counting)
    return seen


def test_all_who_ask_at_the_same_time_share_one_decode(decodes: list[bytes]) -> None:
    picture = jpeg(1)
    with ThreadPoolExecutor(4) as threads:
        found = list(
            threads.map(
                lambda copy: decode_shared(copy, max_pixels=LIMIT), [bytes(bytearray(picture)) for _ in range(4)]
            )
        )
    assert len(decodes) == 1
    assert all(pixels is found[0] for pixels in found)
    np.testing.assert_array_equal(found[0], decode(picture, max_pixels=LIMIT).pixels)


def test_nothing_is_kept_once_nobody_holds_it(decodes: list[bytes]) -> None:
    picture = jpeg(2)
    decode_shared(picture, max_pixels=LIMIT)
    gc.collect()
    assert not decoded._pixels
    decode_shared(picture, max_pixels=LIMIT)
    assert len(decodes) == 2


def test_a_view_on_the_pixels_holds_them(decodes: list[bytes]) -> None:
    picture = jpeg(3)
    line = decode_shared(picture, max_pixels=LIMIT)[10:20]
    assert np.shares_memory(decode_shared(picture, max_pixels=LIMIT), line)
    assert len(decodes) == 1


def test_other_bytes_or_another_way_up_are_another_picture(decodes: list[bytes]) -> None:
    held = [decode_shared(jpeg(4), max_pixels=LIMIT), decode_shared(jpeg(5), max_pixels=LIMIT)]
    held.append(decode_shared(jpeg(4), max_pixels=LIMIT, upright=True))
    assert len(decodes) == len(held) == 3


def test_shared_pixels_cannot_be_written_to() -> None:
    pixels = decode_shared(jpeg(6), max_pixels=LIMIT)
    with pytest.raises(ValueError, match="read-only"):
        pixels[0, 0] = 0


def test_the_limit_of_the_one_who_asks_holds_even_where_another_has_the_pixels() -> None:
    held = decode_shared(jpeg(7), max_pixels=LIMIT)
    with pytest.raises(ServiceError) as refused:
        decode_shared(jpeg(7), max_pixels=held.shape[0] * held.shape[1] - 1)
    assert refused.value.code is ErrorCode.PICTURE_TOO_LARGE


def test_a_picture_that_cannot_be_read_is_an_error_each_time() -> None:
    for _ in range(2):
        with pytest.raises(ServiceError) as refused:
            decode_shared(b"no picture", max_pixels=LIMIT)
        assert refused.value.code is ErrorCode.UNREADABLE_PICTURE
