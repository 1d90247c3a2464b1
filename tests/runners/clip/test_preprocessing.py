"""Pictures to the pixels that CLIP takes: against cn_clip's transform, and against open_clip's resize modes done
plainly.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from errors import ErrorCode, ModelUnavailable, ServiceError
from models.convert.configuration import write_configuration
from models.convert.tokenizer import cn_clip_tokenizer
from models.convert.vocabulary import installed_vocabulary, read_vocabulary
from runners.clip.preprocessing import Preprocessing, read_preprocessing
from tests.cnclip_reference import MEAN, STD, reference_pixels

BICUBIC = Image.Resampling.BICUBIC


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Return smooth colour with fine noise on it."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (7, 9, 4), dtype=np.uint8), "RGBA").resize(
        (width, height), BICUBIC
    )
    fine = np.asarray(coarse).astype(np.int16) + generator.integers(-20, 21, (height, width, 4))
    picture = Image.fromarray(fine.clip(0, 255).astype(np.uint8))
    if mode == "PT":
        palette = picture.convert("RGB").quantize(64)
        palette.info["transparency"] = bytes(range(64))
        return palette
    return picture if mode == "RGBA" else picture.convert("RGB").convert(mode)


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def preprocessing(tmp_path: Path, *, as_immich: bool = False, **fields: Any) -> Preprocessing:
    path = tmp_path / "preprocess_cfg.json"
    path.write_text(json.dumps({"size": 224, "mean": MEAN, "std": STD, "interpolation": "bicubic"} | fields))
    return read_preprocessing(path, as_immich=as_immich)


@pytest.fixture
def cn_clip(tmp_path: Path) -> Preprocessing:
    write_configuration(tmp_path, 224, cn_clip_tokenizer(read_vocabulary(installed_vocabulary())))
    return read_preprocessing(tmp_path / "visual/preprocess_cfg.json", as_immich=False)


@pytest.mark.parametrize(
    ("width", "height", "mode", "file_format"),
    [
        (640, 480, "RGB", "PNG"), (481, 1023, "RGB", "PNG"), (224, 224, "RGB", "PNG"), (1, 1, "RGB", "PNG"),
        (1, 1000, "RGB", "PNG"),
        (9000, 1000, "RGB", "JPEG"), (223, 225, "RGB", "JPEG"), (300, 200, "L", "JPEG"), (333, 217, "CMYK", "JPEG"),
        (37, 53, "RGB", "BMP"),
        (500, 301, "L", "PNG"), (301, 500, "LA", "PNG"), (640, 427, "RGBA", "PNG"), (401, 299, "RGBA", "WEBP"),
        (640, 480, "P", "GIF"),
        (640, 480, "PT", "PNG"), (99, 77, "PT", "PNG"), (511, 511, "1", "PNG"), (600, 400, "CMYK", "TIFF"),
        (600, 400, "1", "TIFF"),
    ],
)  # fmt: skip
def test_pixels_equal_cn_clips_transform(
    cn_clip: Preprocessing, width: int, height: int, mode: str, file_format: str
) -> None:
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(noise(width, height, mode), file_format, **options)
    with Image.open(io.BytesIO(data)) as image:
        # A JPEG large enough to be decoded at a smaller scale differs by design; the next test bounds by how much.
        expected = (
            reference_pixels(image, 224)
            if (file_format, width) != ("JPEG", 9000)
            else _scaled_reference(image, cn_clip)
        )
    assert largest_difference(cn_clip.pixels(data, max_pixels=10**8), expected) <= 1


def test_a_jpeg_decoded_at_a_smaller_scale_stays_close_to_the_whole_one(cn_clip: Preprocessing) -> None:
    data = encode(noise(1920, 1440), "JPEG", quality=80, subsampling=0)
    with Image.open(io.BytesIO(data)) as image:
        expected = reference_pixels(image, 224)
    difference = np.abs(cn_clip.pixels(data, max_pixels=10**8).astype(int) - expected)
    assert 0 < difference.mean() < 1.5


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_sixteen_bit_grey_keeps_its_shades(cn_clip: Preprocessing, mode: str) -> None:
    ramp = Image.fromarray(np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (256, 1)))
    pixels = cn_clip.pixels(encode(ramp if mode == "I;16" else ramp.convert("I"), "TIFF"), max_pixels=10**8)
    assert largest_difference(pixels[0, :, 0], np.linspace(0, 255, 224)) <= 2


@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (480, 640), (481, 643), (224, 224), (3000, 230), (231, 229), (5, 7)]
)
def test_shortest_covers_the_square_and_keeps_the_middle(tmp_path: Path, width: int, height: int) -> None:
    picture = noise(width, height)
    short = min(width, height)
    resized = picture.resize((width * 224 // short, height * 224 // short), BICUBIC)
    left, top = (resized.width - 224) // 2, (resized.height - 224) // 2
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)))
    assert largest_difference(preprocessing(tmp_path).pixels(encode(picture, "PNG"), max_pixels=10**8), expected) <= 1


def test_longest_fits_the_whole_picture_on_a_ground_of_the_fill_colour(tmp_path: Path) -> None:
    picture = noise(400, 100)
    pixels = preprocessing(tmp_path, resize_mode="longest", fill_color=[10, 20, 30]).pixels(
        encode(picture, "PNG"), max_pixels=10**8
    )
    assert (pixels[:84] == (10, 20, 30)).all()
    assert (pixels[140:] == (10, 20, 30)).all()
    assert largest_difference(pixels[84:140], np.asarray(picture.resize((224, 56), BICUBIC))) == 0


def test_squash_uses_height_and_width_in_open_clips_order(tmp_path: Path) -> None:
    pixels = preprocessing(tmp_path, resize_mode="squash", size=[32, 64]).pixels(
        encode(noise(99, 99), "PNG"), max_pixels=10**8
    )
    assert pixels.shape == (32, 64, 3)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_a_line_of_one_pixel_costs_no_memory(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    data = encode(Image.new("RGB", size, (200, 0, 0)), "PNG")
    assert preprocessing(tmp_path, resize_mode=mode).pixels(data, max_pixels=10**8).shape == (224, 224, 3)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"resize_mode": "squash"},
        {"resize_mode": "longest", "fill_color": 255},
        {"interpolation": "bilinear"},
        {"size": [224, 100]},
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_immichs_models_are_prepared_as_by_immichs_own_server(
    tmp_path: Path, fields: dict[str, Any], mode: str
) -> None:
    """Its server converts, resizes and crops one way for all models; of the file it follows the first size alone."""
    picture = noise(640, 480, mode)
    resized = picture.convert("RGB").resize((int(640 / 480 * 224), 224), BICUBIC)
    left = (resized.width - 224) // 2
    expected = np.asarray(resized.crop((left, 0, left + 224, 224)))
    pixels = preprocessing(tmp_path, as_immich=True, **fields).pixels(encode(picture, "PNG"), max_pixels=10**8)
    assert largest_difference(pixels, expected) <= 1


def test_normalised_is_the_formula_of_to_tensor_and_normalize(tmp_path: Path) -> None:
    batch = np.random.default_rng(1).integers(0, 256, (2, 5, 6, 3), dtype=np.uint8)
    expected = ((batch / 255 - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2)
    result = preprocessing(tmp_path).normalised(batch)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_an_unreadable_and_a_too_large_picture_are_refused(cn_clip: Preprocessing) -> None:
    with pytest.raises(ServiceError) as unreadable:
        cn_clip.pixels(b"no picture", max_pixels=10**8)
    with pytest.raises(ServiceError) as too_large:
        cn_clip.pixels(encode(Image.new("L", (100, 100)), "PNG"), max_pixels=9_999)
    assert (unreadable.value.code, too_large.value.code) == (ErrorCode.UNREADABLE_PICTURE, ErrorCode.PICTURE_TOO_LARGE)


@pytest.mark.parametrize(
    "fields",
    [
        {"size": 0},
        {"size": [1, 2, 3]},
        {"size": None},
        {"mean": [0.5]},
        {"interpolation": "guess"},
        {"resize_mode": "tile"},
        {"mode": "L"},
    ],
)
def test_a_configuration_that_cannot_be_followed_is_named(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(ModelUnavailable, match=r"preprocess_cfg\.json"):
        preprocessing(tmp_path, **fields)


def largest_difference(ours: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(ours.astype(float) - expected.astype(float)).max())


def _scaled_reference(image: Image.Image, config: Preprocessing) -> NDArray[np.uint8]:
    image.draft("RGB", (config.decode_at_least, config.decode_at_least))
    return reference_pixels(image, 224)
