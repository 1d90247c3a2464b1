"""The OCR model with real PP-OCRv6 weights, which the rapidocr package ships."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from errors import ErrorCode, ModelUnavailable
from runners.batching import Unfinished
from runners.contract import FaceOptions, Failure, ImageJob, OcrOptions, TextLines
from runners.engine import EnginePlan, Session, open_session
from runners.engine.int8 import Ranges
from runners.ocr import OcrModel, load_ocr
from tools.harness.rendered import (
    Look,
    Page,
    character_accuracy,
    draw_lines,
    font,
    jpeg,
    mixed_pages,
    page,
    png,
    rows,
    two_columns,
)

PLAN = EnginePlan("cpu", threads=2)
IMMICH = OcrOptions(min_detection_score=0.5, min_recognition_score=0.8, max_resolution=736)


def weights() -> Path:
    spec = find_spec("rapidocr")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "models"


FILES = {
    "detection/model.onnx": weights() / "PP-OCRv6_det_small.onnx",
    "recognition/model.onnx": weights() / "PP-OCRv6_rec_small.onnx",
    "direction/model.onnx": weights() / "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
}


@pytest.fixture(scope="module")
def model() -> Iterator[OcrModel]:
    loaded = load_ocr(FILES, partial(open_session, plan=PLAN), max_pixels=50_000_000, max_boxes=4000)
    yield loaded
    loaded.close()


def job(data: bytes, options: OcrOptions = IMMICH) -> ImageJob:
    return ImageJob(data, "PP-OCRv6_small", options)


def numbered(count: int) -> list[str]:
    return [f"第{number}行 line number {number}" for number in range(100, 100 + count)]


def read(model: OcrModel, data: bytes, options: OcrOptions = IMMICH) -> TextLines:
    (result,) = model.run([job(data, options)])
    assert isinstance(result, TextLines)
    return result


def assert_same(one: object, other: object) -> None:
    assert isinstance(one, TextLines)
    assert isinstance(other, TextLines)
    assert one.texts == other.texts
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_allclose(one.box_scores, other.box_scores, atol=1e-5)
    np.testing.assert_allclose(one.text_scores, other.text_scores, atol=1e-4)


@pytest.mark.parametrize("rendered", mixed_pages(), ids=lambda rendered: rendered.name)
def test_mixed_chinese_and_english_is_read_to_95_percent(model: OcrModel, rendered: Page) -> None:
    result = read(model, rendered.data)
    assert character_accuracy(result.texts, rendered.lines) >= 0.95, result.texts
    assert len(result.texts) == len(rendered.lines)


def test_results_have_the_shapes_of_the_contract_and_lie_on_the_text(model: OcrModel) -> None:
    image = Image.new("RGB", (1000, 600), "white")
    draw_lines(image, ["你好世界 Hello"], (300, 200), Look(font_size=60))
    result = read(model, jpeg(image))
    assert result.texts == ("你好世界 Hello",)
    assert result.boxes.shape == (1, 4, 2)
    assert {array.dtype for array in (result.boxes, result.box_scores, result.text_scores)} == {np.dtype(np.float32)}
    assert result.box_scores.shape == result.text_scores.shape == (1,)
    ink = np.argwhere(np.asarray(image.convert("L")) < 128)[:, ::-1]
    expected = [[*ink.min(0)], [ink[:, 0].max(), ink[:, 1].min()], [*ink.max(0)], [ink[:, 0].min(), ink[:, 1].max()]]
    np.testing.assert_allclose(result.boxes[0], expected, atol=15)


@pytest.mark.parametrize(
    "large", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["small pictures", "large ones"]
)
def test_each_job_of_a_mixed_batch_is_answered_as_if_it_were_alone(model: OcrModel, large: bool) -> None:
    if large:
        clear, sides = mixed_pages()[5].data, (320, 736)
        faint = png(
            page(
                ["清晰的一行 clear"], size=(900, 300), look=Look(font_size=48, noise=90, blur=1.5, ink=(120, 120, 120))
            )
        )
    else:
        clear, sides = (
            png(page(["清楚的一行", "another line", "12345"], size=(480, 300), look=Look(font_size=40, noise=12))),
            (160, 320),
        )
        faint = png(
            page(
                ["清晰的一行 clear"], size=(480, 160), look=Look(font_size=40, noise=90, blur=1.2, ink=(120, 120, 120))
            )
        )
    mixes = product((clear, faint), (0.3, 0.9), (0.0, 0.97), sides)
    jobs = [job(picture, OcrOptions(box, text, side)) for picture, box, text, side in mixes]
    together = model.run(jobs)
    alone = [model.run([one])[0] for one in jobs]
    for one, other in zip(together, alone, strict=True):
        assert_same(one, other)
    counts = {len(result.texts) for result in alone if isinstance(result, TextLines)}
    assert len(counts) > 2, "the options must matter, or this shows nothing"


def test_a_bad_picture_does_not_spoil_its_batch(model: OcrModel) -> None:
    good = mixed_pages()[4]
    jobs = [
        job(b""),
        job(good.data),
        job(good.data[: len(good.data) // 2]),
        ImageJob(good.data, "PP-OCRv6_small", FaceOptions(0.5)),
        job(good.data),
    ]
    results = model.run(jobs)
    codes = [result.code if isinstance(result, Failure) else None for result in results]
    assert codes == [ErrorCode.UNREADABLE_PICTURE, None, ErrorCode.UNREADABLE_PICTURE, ErrorCode.INVALID_REQUEST, None]
    assert_same(results[1], model.run([job(good.data)])[0])
    assert_same(results[1], results[4])


def test_two_columns_come_column_by_column(model: OcrModel) -> None:
    left = ["左栏第一行的文字在这里", "left column second line", "左栏第三行继续下去", "and the left one ends here"]
    right = ["右栏第一行从这里开始", "right column second line", "右栏第三行也继续", "and the right one ends"]
    result = read(model, jpeg(two_columns(left, right)))
    assert character_accuracy(result.texts, left + right) > 0.97, result.texts
    turned = read(model, jpeg(two_columns(left, right, look=Look(font_size=36, angle=2.5))))
    assert character_accuracy(turned.texts, left + right) > 0.97, turned.texts


def test_justified_columns_with_a_gutter_of_one_character_come_column_by_column(model: OcrModel) -> None:
    """The detector joins their lines."""
    words = ["harbour", "master", "counted", "seven", "boats", "before", "noon", "and", "wrote", "their", "names", "in"]
    random, face = Random(3), font(22)
    image = Image.new("RGB", (2 * 380 + 14 + 80, 420), (250, 250, 246))
    pen, columns = ImageDraw.Draw(image), []
    for left in (40.0, 40.0 + 380 + face.getlength("n")):
        for row in range(11):
            line = random.sample(words, 7)
            while sum(map(face.getlength, line)) + 5 * len(line) > 380:
                line.pop()
            blank = (380 - sum(map(face.getlength, line))) / (len(line) - 1)
            at = left
            for word in line:
                pen.text((at, 25 + 34 * row), word, font=face, fill=(20, 20, 25))
                at += face.getlength(word) + blank
            columns.append(" ".join(line))
    result = read(model, jpeg(image))
    assert character_accuracy(result.texts, columns) > 0.98, result.texts


def test_a_receipt_comes_row_by_row(model: OcrModel) -> None:
    cells = [
        ("红烧牛肉面 Beef noodles", "38.00"),
        ("扬州炒饭 Fried rice", "26.50"),
        ("冰镇可乐 Iced cola", "8.00"),
        ("合计 Total", "72.50"),
    ]
    result = read(model, jpeg(rows(cells)))
    assert character_accuracy(result.texts, [text for row in cells for text in row]) > 0.95, result.texts


@pytest.mark.parametrize(
    ("size", "side"),
    [
        *((size, 736) for size in ((1, 1), (1, 5000), (5, 5), (640, 480), (5000, 1000))),
        ((20000, 50), 96),
        *(pytest.param(size, 736, marks=pytest.mark.slow) for size in ((9000, 1000), (20000, 50))),
    ],
)
def test_a_picture_without_text_has_no_lines(model: OcrModel, size: tuple[int, int], side: int) -> None:
    data = jpeg(Image.new("RGB", size, (200, 180, 90))) if max(size) < 10_000 else png(Image.new("RGB", size))
    result = read(model, data, OcrOptions(0.5, 0.8, side))
    assert result.texts == ()
    assert result.boxes.shape == (0, 4, 2)
    assert result.box_scores.shape == result.text_scores.shape == (0,)


@pytest.mark.parametrize(
    ("size", "lines"),
    [
        ((9000, 1000), ["全景照片 panorama " + "长卷文字很多" * 6]),
        ((1000, 5000), numbered(36)),
        pytest.param((1000, 8000), numbered(60), marks=pytest.mark.slow),
    ],
    ids=["wide", "upright", "upright and longer"],
)
def test_text_anywhere_in_a_very_long_picture_is_found_once(
    model: OcrModel, size: tuple[int, int], lines: list[str]
) -> None:
    """Cut into tiles for detection: lines lie on every cut, and none is lost, doubled or broken."""
    result = read(model, jpeg(page(lines, size=size, look=Look(font_size=60, line_pitch=2.1), margin=120)))
    assert character_accuracy(result.texts, lines) > 0.97, result.texts


def test_a_strip_wider_than_opencv_can_warp_is_read(model: OcrModel) -> None:
    image = Image.new("RGB", (33_000, 100), "white")
    draw_lines(image, ["strip end 尽头"], (32_000, 20), Look(font_size=50))
    result = read(model, png(image), OcrOptions(0.5, 0.8, 96))
    assert character_accuracy(result.texts, ["strip end 尽头"]) > 0.8, result.texts
    assert result.boxes[0, :, 0].min() > 31_900


STRIP = "第三十七号仓库温湿度记录表请于每日八时前填写完毕并交班组长签字确认"


@pytest.mark.parametrize("font_size", [14, 28, 56])
@pytest.mark.parametrize(("ink", "ground"), [("black", "white"), ("white", "navy")])
def test_a_strip_of_one_line_is_read(model: OcrModel, font_size: int, ink: str, ground: str) -> None:
    """Subtitles, banners, tight crops: enlarged to 736 pixels in height their letters were too large to be found."""
    image = Image.new("RGB", (font_size * 36, round(font_size * 1.3)), ground)
    look = Look(font_size=font_size, ink=ImageColor.getrgb(ink))  # type: ignore[arg-type]
    draw_lines(image, [STRIP], (font_size // 2, font_size // 10), look)
    assert character_accuracy(read(model, png(image)).texts, [STRIP]) > 0.95


def test_a_strip_without_text_costs_little(model: OcrModel, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels: list[int] = []
    run = model._detector.run

    def counted(feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        pixels.extend(array.shape[2] * array.shape[3] for array in feeds.values())
        return run(feeds)

    monkeypatch.setattr(model._detector, "run", counted)
    assert read(model, png(Image.new("RGB", (20_000, 50)))).texts == ()
    assert sum(pixels) <= 4.2e6, "once as it is, once enlarged"
    pixels.clear()
    assert read(model, png(Image.new("RGB", (60, 40))), OcrOptions(0.5, 0.8, 10_000)).texts == ()
    assert sum(pixels) <= 2.2e6


@pytest.mark.parametrize(("side", "looks"), [(400, 2), (800, 1)])
def test_a_picture_is_looked_at_again_if_it_is_small_and_nothing_was_read(
    model: OcrModel, monkeypatch: pytest.MonkeyPatch, side: int, looks: int
) -> None:
    shapes: list[tuple[int, ...]] = []
    run = model._detector.run

    def blind_at_first(feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        shapes.extend(array.shape for array in feeds.values())
        answers = run(feeds)
        return answers if len(shapes) > 1 else [np.zeros_like(answers[0])]

    monkeypatch.setattr(model._detector, "run", blind_at_first)
    image = Image.new("RGB", (side, side), "white")
    draw_lines(image, ["second look"], (40, 100), Look(font_size=30))
    texts = read(model, png(image)).texts
    assert texts == (("second look",) if looks == 2 else ())
    assert [shape[2] for shape in shapes] == [384, 736][-looks:]


def test_a_picture_full_of_text_is_read_in_turns_and_like_any_other(model: OcrModel) -> None:
    crowded = job(jpeg(page(numbered(24), look=Look(font_size=40))))
    short, bad = job(jpeg(page(numbered(2), size=(800, 300), look=Look(font_size=40)))), job(b"no picture")
    whole = model.run([crowded, short, bad])
    in_turns = load_ocr(
        FILES, partial(open_session, plan=PLAN), max_pixels=50_000_000, max_boxes=4000, read_in_a_turn=3000
    )
    try:
        first, *others = in_turns.run([crowded, short, bad])
        assert [type(one) for one in others] == [TextLines, Failure]
        turns = 1
        while isinstance(first, Unfinished):
            (first,) = in_turns.run([first.rest])
            turns += 1
    finally:
        in_turns.close()
    assert turns > 3
    for one, other in zip((first, *others), whole, strict=True):
        if isinstance(one, TextLines) and isinstance(other, TextLines):
            assert one.texts == other.texts
            assert (one.boxes == other.boxes).all()
            assert one.text_scores == pytest.approx(other.text_scores, abs=0.01)
        else:
            assert one == other


def test_vertical_text_is_turned_before_it_is_read(model: OcrModel) -> None:
    flat = Image.new("RGB", (900, 120), "white")
    draw_lines(flat, ["turned sideways 12345"], (60, 25), Look(font_size=56))
    result = read(model, png(flat.transpose(Image.Transpose.ROTATE_270)))
    assert character_accuracy(result.texts, ["turned sideways 12345"]) > 0.95, result.texts


@pytest.mark.parametrize(
    "pages", [slice(0, 1), pytest.param(slice(1, 4), marks=pytest.mark.slow)], ids=["one", "three more"]
)
def test_the_same_lines_are_read_as_by_rapidocr_itself(model: OcrModel, pages: slice, tmp_path: Path) -> None:
    """At a size that needs no resizing, so that the same pixels reach the networks. Blanks aside: RapidOCR pads a line
    to the width of its neighbours, which moves them."""
    pictures = []
    for rendered in mixed_pages()[pages]:
        with Image.open(io.BytesIO(rendered.data)) as image:
            size = (736, 992) if image.width < image.height else (992, 736)
            pictures.append(png(image.resize(size, Image.Resampling.LANCZOS)))
    for data, expected in zip(pictures, read_by_rapidocr(pictures, tmp_path), strict=True):
        ours = read(model, data)
        theirs = {without_blanks(text): box for text, box in expected}
        assert sorted(map(without_blanks, ours.texts)) == sorted(theirs)
        for text, box in zip(ours.texts, ours.boxes, strict=True):
            np.testing.assert_allclose(box, theirs[without_blanks(text)], atol=1)


def without_blanks(text: str) -> str:
    return "".join(text.split())


def read_by_rapidocr(pictures: list[bytes], folder: Path) -> list[list[tuple[str, list[list[float]]]]]:
    """Return text and box of each line, read in a process of its own: here ONNX Runtime's sessions share a pool of
    threads, which RapidOCR's refuse.
    """
    paths = [folder / f"{number}.png" for number in range(len(pictures))]
    for path, data in zip(paths, pictures, strict=True):
        path.write_bytes(data)
    script = """
import json, sys
from rapidocr import RapidOCR
ocr = RapidOCR(params={"Global.use_cls": False, "Global.text_score": 0.8, "Global.log_level": "error"})
read = [ocr(path) for path in sys.argv[2:]]
json.dump([list(zip(one.txts, one.boxes.tolist())) for one in read], open(sys.argv[1], "w"))
"""
    answer = folder / "read.json"
    subprocess.run([sys.executable, "-c", script, str(answer), *map(str, paths)], check=True)
    read_pages: list[list[tuple[str, list[list[float]]]]] = json.loads(answer.read_text())
    return read_pages


def test_a_recogniser_that_cannot_be_had_leaves_nothing_open(tmp_path: Path) -> None:
    opened: list[Path] = []
    closed: list[Path] = []

    class Fake:
        metadata: dict[str, str] = {}  # noqa: RUF012
        inputs = outputs = ()

        def __init__(self, path: Path) -> None:
            self.path = path
            opened.append(path)

        def close(self) -> None:
            closed.append(self.path)

    def open_fake(path: Path, *, best_class: bool = False, ranges: Ranges | None = None) -> Session:
        return Fake(path)  # type: ignore[return-value]

    with pytest.raises(ModelUnavailable, match="alphabet"):
        load_ocr(FILES, open_fake, max_pixels=100, max_boxes=4000)
    read = [FILES["detection/model.onnx"], FILES["recognition/model.onnx"]]
    assert sorted(opened) == sorted(closed) == sorted(read)
