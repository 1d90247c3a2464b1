"""Detection sizes and tiles, cutting of lines, alphabets and CTC decoding, without real weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rapidocr.utils.process_img import get_rotate_crop_image

from errors import ModelUnavailable
from runners.engine.best_class import CLASS, LAST, VALUE
from runners.engine.session import TensorSpec
from runners.ocr.detection import padded_size, text_probabilities, tile_size
from runners.ocr.recognition import (
    LINE_HEIGHT,
    MAX_CHUNK_WIDTH,
    MAX_LINE_WIDTH,
    ReadLine,
    cut_line,
    decode,
    is_text,
    load_alphabet,
    padded_width,
    read_lines,
)
from runners.pictures.detection_size import (
    MAX_PIXELS,
    MAX_TILE_PIXELS,
    STRIDE,
    DetectionSize,
    detection_size,
    enlarged_detection_size,
)

FLOAT = np.dtype(np.float32)


@dataclass
class Detector:
    """Answers with the red of its input, so that each pixel's answer says where it came from."""

    shapes: list[tuple[int, ...]] = field(default_factory=list)
    inputs: Sequence[TensorSpec] = (TensorSpec("x", FLOAT, (None, 3, None, None)),)
    outputs: Sequence[TensorSpec] = (TensorSpec("y", FLOAT, (None, 1, None, None)),)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        self.shapes.append(feeds["x"].shape)
        return [(feeds["x"][:, 2:3] + 1) / 2]

    def close(self) -> None: ...


@dataclass
class Recogniser:
    """Reads every line as the letter whose number is the brightness at its left edge."""

    batch: int | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: {"character": "a\nb\nc", "classes": "5"})
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        return (TensorSpec("x", FLOAT, (self.batch, 3, LINE_HEIGHT, None)),)

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        shape = (self.batch, None)
        return (
            *(TensorSpec(VALUE, FLOAT, shape), TensorSpec(CLASS, np.dtype(np.int32), shape)),
            TensorSpec(LAST, FLOAT, shape),
        )

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        x = feeds["x"]
        self.shapes.append(x.shape)
        scores = np.full((len(x), x.shape[3] // 8), 0.9, np.float32)
        classes = np.zeros(scores.shape, np.int32)
        scores[:, 0] = 1
        classes[:, 0] = np.round((x[:, 0, 0, 0] + 1) * 127.5)
        return [scores, classes, np.zeros_like(scores)]

    def close(self) -> None: ...


sides = st.integers(1, 100_000)


def shape(size: DetectionSize) -> tuple[int, int]:
    return size.width, size.height


@example(18, 20, 560)
@given(sides, sides, st.integers(1, 5000))
def test_detection_size_is_bounded_and_fits_the_network(width: int, height: int, resolution: int) -> None:
    first = detection_size(width, height, resolution)
    assert first.pixels <= MAX_PIXELS * 1.2
    assert shape(detection_size(height, width, resolution)) in (shape(first), shape(first)[::-1])
    assert first.width <= max(STRIDE, width + STRIDE / 2), "never enlarged"
    assert first.height <= max(STRIDE, height + STRIDE / 2)
    second = enlarged_detection_size(width, height, resolution)
    if second is not None:
        assert min(width, height) < resolution
        assert first.pixels < second.pixels <= MAX_TILE_PIXELS * 1.2
    for size in (shape(one) for one in (first, second) if one is not None):
        assert all(side >= STRIDE and side % STRIDE == 0 for side in size)
        assert (size[0] <= size[1]) == (width <= height) or size[0] == size[1]
        tile = tile_size(*size)
        assert tile[0] * tile[1] <= MAX_TILE_PIXELS
        assert all(side % STRIDE == 0 for side in tile)
        padded = padded_size(*tile)
        assert padded[0] >= tile[0]
        assert padded[1] >= tile[1]
        assert padded[0] * padded[1] <= MAX_TILE_PIXELS
        assert all(side % STRIDE == 0 for side in padded)
        assert padded_size(*padded) == padded


def test_pictures_of_all_proportions_make_few_shapes_and_those_of_cameras_are_not_padded() -> None:
    sizes = [shape(detection_size(width, 1000, 736)) for width in range(100, 10_000, 7)]
    assert len({padded_size(*tile_size(height, width)) for width, height in sizes}) <= 30
    for ratio in (1, 4 / 3, 3 / 2, 16 / 9):
        width, height = shape(detection_size(round(3000 * ratio), 3000, 736))
        assert padded_size(height, width) == (height, width)


@pytest.mark.parametrize(
    ("picture", "resolution", "expected"),
    [
        ((1440, 1920), 736, (736, 992)),
        ((300, 400), 736, (288, 384)),
        ((9000, 1000), 736, (6624, 736)),
        ((20_000, 50), 736, (20_000, 64)),
        ((1440, 1920), 10_000, (1440, 1920)),
        ((1, 1), 736, (32, 32)),
    ],
)
def test_the_short_side_becomes_at_most_max_resolution_as_in_immich(
    picture: tuple[int, int], resolution: int, expected: tuple[int, int]
) -> None:
    assert shape(detection_size(*picture, resolution)) == expected


@pytest.mark.parametrize(("height", "width"), [(64, 2016), (64, 20_000), (256, 7744), (992, 64), (288, 384), (96, 96)])
def test_strips_and_small_pictures_are_padded_by_less_than_a_factor_of_two(height: int, width: int) -> None:
    padded = padded_size(height, width)
    assert padded[0] * padded[1] < 2 * height * width
    assert padded_size(*padded) == padded


@pytest.mark.parametrize(
    ("picture", "resolution", "expected"),
    [
        ((300, 400), 736, (736, 992)),
        ((1440, 1920), 736, None),
        ((1440, 1920), 10_000, None),
        ((2000, 70), 736, (7744, 256)),
        ((736, 736), 736, None),
    ],
)
def test_a_second_look_is_enlarged_as_by_rapidocr_within_one_tile(
    picture: tuple[int, int], resolution: int, expected: tuple[int, int] | None
) -> None:
    size = enlarged_detection_size(*picture, resolution)
    assert (shape(size) if size is not None else None) == expected


@pytest.mark.parametrize(
    "size", [(736, 992), (736, 1024), (1056, 736), (736, 6624), (6624, 736), (2016, 2976), (32, 100_000)]
)
def test_tiles_join_to_the_whole_picture(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    detector = Detector()
    joined = text_probabilities(detector, pixels)
    np.testing.assert_allclose(joined, pixels[..., 0] / 255, atol=1e-6)
    assert len(set(detector.shapes)) == 1, "one shape for all tiles"
    assert (len(detector.shapes) == 1) == (size[0] * size[1] <= MAX_TILE_PIXELS)


def test_a_turned_line_is_cut_out_straight() -> None:
    pixels = np.zeros((300, 300, 3), np.uint8)
    pixels[:, 150:] = 255
    box = np.array([[50, 150], [150, 50], [250, 150], [150, 250]], np.float32)  # a square on its corner
    line = cut_line(pixels, box)
    assert line.shape == (LINE_HEIGHT, LINE_HEIGHT, 3)
    assert line[0, 0, 0] < 5  # the picture's left half
    assert line[-1, -1, 0] > 250
    assert 5 < line[0, -1, 0] < 250  # the edge between its halves runs along the other diagonal


@given(st.data())
def test_a_level_line_is_cut_as_by_rapidocr(data: st.DataObject) -> None:
    height, width = data.draw(st.tuples(st.integers(8, 90), st.integers(8, 90)))
    left, right = sorted(data.draw(st.lists(st.integers(0, width - 1), min_size=2, max_size=2, unique=True)))
    top, bottom = sorted(data.draw(st.lists(st.integers(0, height - 1), min_size=2, max_size=2, unique=True)))
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    box = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
    expected = get_rotate_crop_image(pixels, box)
    line_width = min(max(1, math.ceil(LINE_HEIGHT * expected.shape[1] / expected.shape[0])), MAX_LINE_WIDTH)
    np.testing.assert_array_equal(cut_line(pixels, box), cv2.resize(expected, (line_width, LINE_HEIGHT)))


@pytest.mark.parametrize(("width", "height"), [(300, 30), (30, 300), (4, 4), (40_000, 30), (2000, 900)])
def test_lines_of_any_shape_come_out_at_the_networks_height(width: int, height: int) -> None:
    pixels = np.full((height + 10, width + 10, 3), 7, np.uint8)
    box = np.array([[5, 5], [width + 5, 5], [width + 5, height + 5], [5, height + 5]], np.float32)
    line = cut_line(pixels, box)
    long, short = max(width, height), min(width, height)
    assert line.shape[0] == LINE_HEIGHT
    assert line.shape[1] == pytest.approx(min(MAX_LINE_WIDTH, LINE_HEIGHT * long / short), rel=0.05)
    assert (line == 7).all()


@given(st.lists(st.integers(1, MAX_LINE_WIDTH), max_size=12), st.sampled_from([None, 1]))
def test_lines_are_read_in_the_order_they_came_in_bounded_chunks(widths: list[int], batch: int | None) -> None:
    session = Recogniser(batch)
    shades = [1 + index % 4 for index in range(len(widths))]
    lines = [np.full((LINE_HEIGHT, width, 3), shade, np.uint8) for width, shade in zip(widths, shades, strict=True)]
    read = read_lines(session, ("", "a", "b", "c", "d"), lines)
    assert [line.text for line in read] == ["?abcd"[shade] for shade in shades]
    assert all(count == 1 or count * width <= MAX_CHUNK_WIDTH for count, _, _, width in session.shapes)
    assert all(width == padded_width(width) for *_, width in session.shapes)
    assert all(count.bit_count() == 1 for count, *_ in session.shapes), "powers of two, so that there are few shapes"
    if batch == 1:
        assert all(count == 1 for count, *_ in session.shapes)


@given(st.integers(1, MAX_LINE_WIDTH))
def test_padding_is_enough_and_not_wasteful(width: int) -> None:
    assert width <= padded_width(width) <= max(128, width * 1.25 + 64)


def test_decoding_joins_repeats_and_drops_blanks() -> None:
    path = np.array([[1, 1, 0, 1, 2, 2, 0, 0, 3], [0] * 9], np.int32)
    scores = np.array([[0.9, 0.1, 1, 0.7, 0.8, 0.2, 1, 1, 0.6], [1] * 9], np.float32)
    line, nothing = decode(scores, path, np.zeros_like(scores), ("", "你", "b", " "))
    assert line.text == "你你b"
    assert line.score == pytest.approx((0.9 + 0.7 + 0.8 + 0.6) / 4)
    assert (nothing.text, nothing.score) == ("", 0.0)


@pytest.mark.parametrize(
    ("path", "blank", "text"),
    [
        ([1, 0, 3], [0, 0.07, 0.04], "腐 2"),
        ([1, 0, 3], [0, 0.05, 0.04], "腐2"),
        ([1, 0, 3], [0.9, 0, 0], "腐2"),  # before the first step of a character nothing counts
        ([3, 3, 0, 0, 1], [0, 0.02, 0.05, 0.05, 0], "2 腐"),
        ([4, 0, 1, 2, 0, 4], [0, 0.3, 0, 0, 0.4, 0], "b 腐元 b"),
        ([4, 0, 3], [0, 0.4, 0], "b2"),
        ([1, 0, 2], [0, 0.4, 0], "腐元"),
        ([1, 5, 3], [0, 0.9, 0], "腐 2"),
    ],
)
def test_a_blank_that_is_likely_between_chinese_and_letters_is_read(
    path: list[int], blank: list[float], text: str
) -> None:
    scores, last = np.full((1, len(path)), 0.9, np.float32), np.array([blank], np.float32)
    classes = np.array([path], np.int32)
    (line,) = decode(scores, classes, last, ("", "腐", "元", "2", "b", " "))
    assert line.text == text
    assert line.score == pytest.approx(0.9)
    (line,) = decode(scores, np.minimum(classes, 4), last, ("", "腐", "元", "2", "b"))
    assert " " not in line.text, "an alphabet without blanks"


@pytest.mark.parametrize(
    ("text", "score", "size", "counts"),
    [
        ("C", 0.94, 120, False),
        ("C", 0.95, 120, True),
        ("C", 0.94, 90, True),
        ("CO", 0.81, 300, True),
        ("茶", 0.9, 300, False),
        ("C", 0.79, 20, False),
        ("", 1.0, 20, False),
    ],
)
def test_a_large_character_by_itself_counts_if_there_is_hardly_a_doubt(
    text: str, score: float, size: int, counts: bool
) -> None:
    box = np.array([[10, 20], [10 + 2 * size, 20], [10 + 2 * size, 20 + size], [10, 20 + size]], np.float32)
    assert is_text(ReadLine(text, score), box, 0.8, 1000) == counts
    assert is_text(ReadLine("C", 0.3), box, 0.0, 1000), "whoever asks for everything gets it"


def test_decoding_agrees_with_rapidocr() -> None:
    from rapidocr.ch_ppocr_rec.utils import CTCLabelDecode

    probabilities = np.random.default_rng(3).dirichlet([0.3] * 7, (20, 15)).astype(np.float32)
    best = probabilities.max(axis=2), probabilities.argmax(axis=2).astype(np.int32), probabilities[..., -1]
    expected, _ = CTCLabelDecode(character=list("abcde"))(probabilities)
    for ours, (text, score) in zip(decode(*best, ("", *"abcde", " ")), expected, strict=True):
        assert ours.text == text.strip()
        assert ours.score == pytest.approx(score, abs=1e-4) or not ours.text


def test_the_alphabet_comes_from_the_graph_and_else_from_the_dictionary(tmp_path: Path) -> None:
    dictionary = tmp_path / "dict.txt"
    dictionary.write_bytes("x\r\n\u2028\r\n字\r\n".encode())
    assert load_alphabet(Recogniser(), dictionary) == ("", "a", "b", "c", " ")
    assert load_alphabet(Recogniser(metadata={"classes": "5"}), dictionary) == ("", "x", "\u2028", "字", " ")
    assert load_alphabet(Recogniser(metadata={"character": "a\nb\nc", "classes": "4"}), None) == ("", "a", "b", "c")
    assert load_alphabet(Recogniser(metadata={"character": "a\nb\nc"}), None) == ("", "a", "b", "c", " ")


def test_an_alphabet_that_is_missing_or_anothers_is_a_model_unavailable() -> None:
    with pytest.raises(ModelUnavailable, match=r"dict\.txt"):
        load_alphabet(Recogniser(metadata={}), None)
    with pytest.raises(ModelUnavailable, match="3 characters, but its graph tells 9"):
        load_alphabet(Recogniser(metadata={"character": "a\nb\nc", "classes": "9"}), None)
    with pytest.raises(ModelUnavailable, match="answers with class 3"):
        decode(np.ones((1, 1), np.float32), np.array([[3]], np.int32), np.ones((1, 1), np.float32), ("", "a"))
