"""Pages that lie on a side or stand on their heads, and text that runs from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageDraw

from runners.contract import ImageJob, OcrOptions, TextLines
from runners.engine import open_session
from runners.ocr import OcrModel, load_ocr
from tests.runners.ocr.test_model import FILES, PLAN
from tools.harness.rendered import Look, character_accuracy, draw_lines, font, mixed_pages, page, png, two_columns

LINES = [
    "会议纪要 第三次例会",
    "出席人员共十二名，缺席两名",
    "Next meeting on Friday at 14:30",
    "请各部门于周五前提交报告",
]
LEFT, RIGHT, DOWN = Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_180
PLAIN = Look()
SMALL_ON_DARK = Look(font_size=28, weight="Bold", ink=(240, 240, 240), paper=(30, 30, 60))
BLURRED = Look(blur=1.0, angle=2.0)
POEM = ["春眠不觉晓处处闻啼鸟", "夜来风雨声花落知多少", "床前明月光疑是地上霜"]


@pytest.fixture(scope="module")
def model() -> Iterator[OcrModel]:
    loaded = load_ocr(FILES, partial(open_session, plan=PLAN), max_pixels=50_000_000, max_boxes=4000)
    yield loaded
    loaded.close()


def read(model: OcrModel, image: Image.Image) -> TextLines:
    (result,) = model.run([ImageJob(png(image), "PP-OCRv6_small", OcrOptions())])
    assert isinstance(result, TextLines)
    return result


def columns_of(texts: Sequence[str], *, size: int = 48, pitch: float = 2.2) -> Image.Image:
    """Draw vertical Chinese: the first column stands at the right."""
    width, height = round((len(texts) + 1) * size * pitch), (max(map(len, texts)) + 2) * round(size * 1.15)
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    for number, text in enumerate(texts):
        for row, character in enumerate(text):
            at = (width - round((number + 1) * size * pitch), size + row * round(size * 1.15))
            pen.text(at, character, font=font(size, "Medium"), fill=(20, 20, 20))
    return image


@pytest.mark.parametrize(
    ("look", "turn"),
    [
        *((PLAIN, turn) for turn in (LEFT, DOWN, RIGHT)),
        (SMALL_ON_DARK, DOWN),
        (BLURRED, LEFT),
        *(pytest.param(SMALL_ON_DARK, turn, marks=pytest.mark.slow) for turn in (LEFT, RIGHT)),
        *(pytest.param(BLURRED, turn, marks=pytest.mark.slow) for turn in (DOWN, RIGHT)),
    ],
)
def test_a_turned_page_is_read_in_its_own_order(model: OcrModel, turn: Image.Transpose, look: Look) -> None:
    upright = page(LINES, size=(1100, 700), look=look)
    result = read(model, upright.transpose(turn))
    assert character_accuracy(result.texts, LINES) > 0.97, result.texts
    assert result.texts[0][:2] == LINES[0][:2]


@pytest.mark.parametrize("turn", [LEFT, DOWN, RIGHT], ids=["on its left", "on its head", "on its right"])
def test_boxes_of_a_turned_page_are_in_the_pictures_own_frame(model: OcrModel, turn: Image.Transpose) -> None:
    upright = page(LINES, size=(1100, 700))
    boxes, turned = read(model, upright).boxes, read(model, upright.transpose(turn)).boxes
    width, height = upright.size
    x, y = boxes[..., 0], boxes[..., 1]
    expected = {
        LEFT: np.stack([y, width - 1 - x], axis=-1),
        DOWN: np.stack([width - 1 - x, height - 1 - y], axis=-1),
        RIGHT: np.stack([height - 1 - y, x], axis=-1),
    }[turn]
    assert turned.shape == expected.shape
    for ours, theirs in zip(turned, expected, strict=True):
        assert np.abs(ours.min(axis=0) - theirs.min(axis=0)).max() < 12
        assert np.abs(ours.max(axis=0) - theirs.max(axis=0)).max() < 12


@pytest.mark.parametrize("turn", [LEFT, DOWN, RIGHT], ids=["on its left", "on its head", "on its right"])
def test_the_columns_of_a_turned_page_are_read_one_after_the_other(model: OcrModel, turn: Image.Transpose) -> None:
    left = ["左栏第一行的文字在这里", "left column second line", "左栏第三行继续下去", "and the left one ends"]
    right = ["右栏第一行从这里开始", "right column second line", "右栏第三行也继续", "and the right one ends"]
    result = read(model, two_columns(left, right).transpose(turn))
    assert character_accuracy(result.texts, left + right) > 0.97, result.texts


def test_one_line_on_its_head_is_read_among_upright_ones(model: OcrModel) -> None:
    image = page(LINES, size=(1100, 700))
    line = Image.new("RGB", (900, 100), "white")
    draw_lines(line, ["座位牌朝着对面的客人"], (100, 20), Look())
    image.paste(line.transpose(DOWN), (0, 500))
    result = read(model, image)
    assert character_accuracy(result.texts, [*LINES, "座位牌朝着对面的客人"]) > 0.97, result.texts


@pytest.mark.parametrize("turn", [LEFT, DOWN, RIGHT], ids=["on its left", "on its head", "on its right"])
@pytest.mark.parametrize("text", ["9,425", "3,883,297", "82.88"])
def test_a_large_amount_alone_is_read_on_a_turned_page(model: OcrModel, text: str, turn: Image.Transpose) -> None:
    """The detector finds its figures one by one where they lie."""
    upright = Image.new("RGB", (620, 320), "white")
    draw_lines(upright, [text], (310 - 26 * len(text), 100), Look(font_size=92))
    result = read(model, upright.transpose(turn))
    assert result.texts == (text,)
    (box,), (expected,) = result.boxes, read(model, upright).boxes
    width, height = upright.size
    x, y = expected[:, 0], expected[:, 1]
    placed = {
        LEFT: np.stack([y, width - 1 - x], axis=-1),
        DOWN: np.stack([width - 1 - x, height - 1 - y], axis=-1),
        RIGHT: np.roll(np.stack([height - 1 - y, x], axis=-1), 1, axis=0),
    }[turn]
    assert np.abs(box - placed).max() < 20, "the text's own top left corner is first, or the box's if it runs down"


@pytest.mark.parametrize(
    "number", [2, pytest.param(0, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_an_upright_page_is_answered_as_without_a_classifier(model: OcrModel, number: int) -> None:
    without = {name: path for name, path in FILES.items() if not name.startswith("direction")}
    plain = load_ocr(without, partial(open_session, plan=PLAN), max_pixels=50_000_000, max_boxes=4000)
    job = ImageJob(mixed_pages()[number].data, "PP-OCRv6_small", OcrOptions())
    (ours,), (theirs,) = model.run([job]), plain.run([job])
    plain.close()
    assert isinstance(ours, TextLines)
    assert isinstance(theirs, TextLines)
    assert ours.texts == theirs.texts
    np.testing.assert_array_equal(ours.boxes, theirs.boxes)


@pytest.mark.parametrize(
    "angle", [-12, -3, 3, *(pytest.param(angle, marks=pytest.mark.slow) for angle in (-5, -1, 1, 5, 12))]
)
def test_a_leaning_column_is_read_whole(model: OcrModel, angle: float) -> None:
    text = "山间明月照松林石上清泉缓缓流过"
    image = columns_of([text]).rotate(angle, expand=True, fillcolor="white", resample=Image.Resampling.BICUBIC)
    assert character_accuracy(read(model, image).texts, [text]) > 0.9


@pytest.mark.parametrize(("angle", "pitch"), [(-4, 1.6), (4, 1.6), (0, 3.0)])
def test_columns_of_vertical_chinese_are_read_from_right_to_left(model: OcrModel, angle: float, pitch: float) -> None:
    image = columns_of(POEM, pitch=pitch)
    image = image.rotate(angle, expand=True, fillcolor="white", resample=Image.Resampling.BICUBIC)
    assert character_accuracy(read(model, image).texts, POEM) > 0.95


def test_vertical_columns_below_a_lying_title_follow_it(model: OcrModel) -> None:
    poem = columns_of(POEM)
    image = Image.new("RGB", (poem.width, poem.height + 220), "white")
    draw_lines(image, ["古诗三首"], (60, 40), Look(font_size=64))
    image.paste(poem, (0, 140))
    draw_lines(image, ["page 12"], (60, poem.height + 150), Look(font_size=36))
    assert character_accuracy(read(model, image).texts, ["古诗三首", *POEM, "page 12"]) > 0.95


@pytest.mark.parametrize("ink", [(0, 0, 0), (200, 30, 30), (255, 255, 255), (250, 240, 120)], ids=str)
def test_ink_on_a_transparent_ground_is_read(model: OcrModel, ink: tuple[int, int, int]) -> None:
    image = Image.new("RGBA", (900, 300), (0, 0, 0, 0))
    draw_lines(image, ["会议室预订单 Room 302", "明天下午三点集合"], (40, 40), Look(font_size=52, ink=(*ink, 255)))  # type: ignore[arg-type]
    result = read(model, image)
    assert character_accuracy(result.texts, ["会议室预订单 Room 302", "明天下午三点集合"]) > 0.95, result.texts


@pytest.mark.parametrize("ink", ["white", "black"])
def test_writing_that_the_first_ground_hides_is_read_on_the_other(model: OcrModel, ink: str) -> None:
    """A large patch decides on the ground, and the writing beside it is of its own colour."""
    paper = (20, 20, 20) if ink == "white" else (235, 235, 235)
    image = Image.new("RGBA", (900, 700), (0, 0, 0, 0))
    image.paste((*paper, 255), (0, 0, 900, 400))
    shade = (255, 255, 255, 255) if ink == "white" else (0, 0, 0, 255)
    draw_lines(image, ["在另一种底色上"], (60, 480), Look(font_size=64, ink=shade))  # type: ignore[arg-type]
    assert read(model, image).texts == ("在另一种底色上",)


@pytest.mark.slow
def test_all_cells_of_a_dense_sheet_are_read(model: OcrModel) -> None:
    texts = [f"{number:05}" for number in range(1, 1201)]
    image = Image.new("RGB", (1600, 2000), "white")
    pen = ImageDraw.Draw(image)
    for number, text in enumerate(texts):
        pen.text((10 + number % 20 * 79, 10 + number // 20 * 33), text, font=font(22), fill="black")
    result = read(model, image)
    assert len(set(result.texts) & set(texts)) > 1150
    assert result.left_out == 0
    assert result.boxes[:, 0, 1].min() < 30


def test_a_sheet_of_too_many_cells_is_thinned_and_says_so() -> None:
    model = load_ocr(FILES, partial(open_session, plan=PLAN), max_pixels=50_000_000, max_boxes=40)
    texts = [f"格{number:03}" for number in range(100)]
    image = Image.new("RGB", (1000, 1700), "white")
    pen = ImageDraw.Draw(image)
    for number, text in enumerate(texts):
        pen.text((20 + number % 5 * 195, 30 + number // 5 * 82), text, font=font(28), fill="black")
    result = read(model, image)
    model.close()
    assert (len(result.texts), result.left_out) == (40, 60)
    tops = np.histogram(result.boxes[:, 0, 1], bins=5, range=(0, 1700))[0]
    assert tops.min() >= 6
