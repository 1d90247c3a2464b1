"""One decode for all tasks of a job, and nothing kept afterwards."""

from __future__ import annotations

import gc
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from weakref import ref

import numpy as np
import pytest
from PIL import Image

from errors import ErrorCode, ServiceError
from runners.pictures import pixels as pixels_module
from runners.pictures.decode import Picture, decode
from runners.pictures.pixels import SharedPixels, kept, shared_pixels

LIMIT = 1_000_000
SIZE = 160 * 120


def jpeg(seed: int, size: tuple[int, int] = (160, 120)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    assert kept.pixels == 0


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return what was decoded; each decode waits a moment, so that others can come."""
    seen: list[bytes] = []

    def counting(data: bytes, *, max_pixels: int, upright: bool) -> Picture:
        seen.append(data)
        threading.Event().wait(0.05)
        return decode(data, max_pixels=max_pixels, upright=upright)

    monkeypatch.setattr(pixels_module, "decode", counting)
    return seen


def test_all_who_take_at_the_same_time_share_one_decode(decodes: list[bytes]) -> None:
    picture = jpeg(1)
    with ThreadPoolExecutor(4) as threads, shared_pixels(picture, upright=False, readers=4) as pixels:
        found = list(threads.map(lambda _: pixels.take(max_pixels=LIMIT), range(4)))
    assert len(decodes) == 1
    assert all(one is found[0] for one in found)
    np.testing.assert_array_equal(found[0], decode(picture, max_pixels=LIMIT).pixels)


def test_who_takes_later_shares_it_too_although_nobody_else_holds_it(decodes: list[bytes]) -> None:
    with shared_pixels(jpeg(2), upright=False, readers=2) as pixels:
        pixels.take(max_pixels=LIMIT)
        gc.collect()
        assert kept.pixels == SIZE
        pixels.take(max_pixels=LIMIT)
        assert kept.pixels == 0
    assert len(decodes) == 1


def test_memory_goes_with_the_last_who_holds_the_pixels() -> None:
    with shared_pixels(jpeg(3), upright=False, readers=2) as pixels:
        first = ref(pixels.take(max_pixels=LIMIT))
        assert first() is not None
        pixels.take(max_pixels=LIMIT)
        assert first() is None


def test_a_job_that_ends_early_leaves_nothing(decodes: list[bytes]) -> None:
    with shared_pixels(jpeg(4), upright=False, readers=3) as pixels:
        taken = ref(pixels.take(max_pixels=LIMIT))
    assert taken() is None
    # A batch that had begun before its caller went away may still take them.
    pixels.take(max_pixels=LIMIT)
    assert kept.pixels == 0


def test_where_many_pictures_wait_further_ones_are_decoded_again(
    monkeypatch: pytest.MonkeyPatch, decodes: list[bytes]
) -> None:
    monkeypatch.setattr(pixels_module, "_MAX_KEPT_PIXELS", 2 * SIZE)
    waiting = [SharedPixels(jpeg(seed), upright=False, readers=2) for seed in range(3)]
    for one in waiting:
        one.take(max_pixels=LIMIT)
    assert kept.pixels == 2 * SIZE
    held = waiting[2].take(max_pixels=LIMIT)
    assert len(decodes) == 4
    assert held.shape == (120, 160, 3)
    for one in waiting:
        one.release()


def test_one_large_picture_alone_is_kept(monkeypatch: pytest.MonkeyPatch, decodes: list[bytes]) -> None:
    monkeypatch.setattr(pixels_module, "_MAX_KEPT_PIXELS", 10)
    with shared_pixels(jpeg(5), upright=False, readers=2) as pixels:
        pixels.take(max_pixels=LIMIT)
        pixels.take(max_pixels=LIMIT)
    assert len(decodes) == 1


def test_shared_pixels_cannot_be_written_to() -> None:
    with shared_pixels(jpeg(6), upright=False, readers=1) as pixels, pytest.raises(ValueError, match="read-only"):
        pixels.take(max_pixels=LIMIT)[0, 0] = 0


def test_a_picture_that_cannot_be_read_is_an_error_for_each_and_is_tried_once(decodes: list[bytes]) -> None:
    with shared_pixels(b"no picture", upright=False, readers=2) as pixels:
        for _ in range(2):
            with pytest.raises(ServiceError) as refused:
                pixels.take(max_pixels=LIMIT)
            assert refused.value.code is ErrorCode.UNREADABLE_PICTURE
    assert len(decodes) == 1


def test_a_picture_beyond_the_limit_is_refused() -> None:
    with shared_pixels(jpeg(7), upright=False, readers=2) as pixels, pytest.raises(ServiceError) as refused:
        pixels.take(max_pixels=SIZE - 1)
    assert refused.value.code is ErrorCode.PICTURE_TOO_LARGE
