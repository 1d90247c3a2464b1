"""The order in which lines are read, on boxes alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.contract import Float32
from runners.ocr.reading_order import reading_order

Placed = tuple[str, float, float, float, float]
"""Text, left, top, width, height."""

WORDS = "some words of running text"


def boxes_of(lines: list[Placed]) -> Float32:
    corners = [[(x, y), (x + w, y), (x + w, y + h), (x, y + h)] for _, x, y, w, h in lines]
    return np.array(corners, np.float32).reshape(-1, 4, 2)


def read(lines: list[Placed], *, turned: float = 0.0) -> list[str]:
    """Return texts in reading order. ``turned``: degrees by which the page is turned clockwise."""
    angle = math.radians(turned)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    order = reading_order((boxes_of(lines) @ turn).astype(np.float32), [text for text, *_ in lines])
    return [lines[index][0] for index in order]


def column(
    name: str, left: float, top: float = 0, *, count: int = 6, width: float = 400, pitch: float = 60
) -> list[Placed]:
    return [(f"{name}{row} {WORDS}", left, top + row * pitch, width, 40) for row in range(count)]


def names(texts: list[str]) -> list[str]:
    return [text.split()[0] for text in texts]


def interleave(*columns: list[Placed]) -> list[Placed]:
    return [line for row in zip(*columns, strict=True) for line in row]


finite = st.floats(0, 2000, width=32)
any_line = st.tuples(st.text(max_size=5), finite, finite, st.floats(1, 800, width=32), st.floats(1, 80, width=32))


@given(st.lists(any_line, max_size=40))
def test_it_is_a_permutation(lines: list[Placed]) -> None:
    order = reading_order(boxes_of(lines), [text for text, *_ in lines])
    assert sorted(order) == list(range(len(lines)))


@given(st.lists(any_line, max_size=25), st.randoms())
def test_it_does_not_depend_on_the_order_lines_come_in(lines: list[Placed], random: object) -> None:
    shuffled = list(lines)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (
        [lines_[index] for index in reading_order(boxes_of(lines_), [line[0] for line in lines_])]
        for lines_ in (lines, shuffled)
    )
    assert one == other


@given(st.lists(st.tuples(st.floats(0, 300), st.floats(50, 900), st.floats(20, 60), st.floats(0, 80)), max_size=30))
def test_a_single_column_is_read_from_top_to_bottom(column_: list[tuple[float, float, float, float]]) -> None:
    lines: list[Placed] = []
    top = 0.0
    for number, (left, width, height, gap) in enumerate(column_):
        lines.append((str(number), left, top, width, height))
        top += height + gap + 1
    assert read(lines[::-1]) == [text for text, *_ in lines]


@pytest.mark.parametrize("turned", [-8, -2, 0, 2, 8])
def test_words_of_one_row_are_read_from_left_to_right(turned: float) -> None:
    lines: list[Placed] = [("c", 900, 12, 200, 40), ("a", 0, 5, 400, 42), ("b", 500, 0, 300, 36), ("d", 0, 80, 900, 40)]
    assert read(lines, turned=turned) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("turned", [-8, -2, 0, 2, 8])
@pytest.mark.parametrize("offset", [0, 13, 31])
def test_two_columns_are_read_one_after_the_other(turned: float, offset: float) -> None:
    left, right = column("l", 0, offset), column("r", 460)
    assert read(interleave(left, right), turned=turned) == [text for text, *_ in left + right]


def test_three_columns_between_a_title_and_a_footer() -> None:
    title: list[Placed] = [("title", 100, -200, 1000, 80)]
    footer: list[Placed] = [("footer", 300, 500, 900, 30)]
    columns = [column(name, left) for name, left in (("a", 0), ("b", 460), ("c", 920))]
    expected = [line for part in (title, *columns, footer) for line in part]
    assert read(footer + interleave(*columns) + title) == [text for text, *_ in expected]


def test_columns_of_different_length_and_pitch() -> None:
    left, right = column("l", 0, count=9, pitch=52), column("r", 460, count=4, pitch=75)
    assert read(right + left) == [text for text, *_ in left + right]


@pytest.mark.parametrize("turned", [-4, 0, 4])
def test_a_receipt_is_read_row_by_row(turned: float) -> None:
    labels = ["红烧牛肉面", "Fried rice with egg", "Iced cola", "合计 total amount"]
    prices = ["¥ 1,138.00", "¥ 26.50", "¥ 8.00", "¥ 1,172.50"]
    rows = [
        ((label, 0, y, 25 * len(label), 40), (price, 800 - 22 * len(price), y + 3, 22 * len(price), 36))
        for y, (label, price) in zip(range(0, 400, 70), zip(labels, prices, strict=True), strict=False)
    ]
    lines: list[Placed] = [cell for row in rows for cell in row]
    assert read(lines[::-1], turned=turned) == [text for text, *_ in lines]


def test_a_form_of_labels_and_values_is_read_row_by_row() -> None:
    fields = [
        ("Name of the owner:", "Wang Jianguo"),
        ("Registered address:", "1288 Century Avenue, Shanghai"),
        ("Field of business:", "Paper and pens"),
    ]
    lines: list[Placed] = [
        cell
        for row, (label, value) in enumerate(fields)
        for cell in ((label, 0, row * 70, 300, 40), (value, 400, row * 70, 450, 40))
    ]
    assert read(lines[::-1]) == [text for text, *_ in lines]


def test_a_line_much_taller_than_its_neighbours_does_not_swallow_their_rows() -> None:
    small: list[Placed] = [(f"s{row}", 300, row * 50, 300, 30) for row in range(6)]
    order = read([("TALL", 0, 0, 120, 280), *small])
    assert [text for text in order if text != "TALL"] == [text for text, *_ in small]


def test_boxes_and_texts_must_agree_in_number() -> None:
    with pytest.raises(ValueError, match="2 boxes but 1 texts"):
        reading_order(boxes_of([("a", 0, 0, 1, 1), ("b", 0, 9, 1, 1)]), ["a"])


def test_three_columns_of_four_hundred_lines_are_kept_apart() -> None:
    columns = [column(name, left, count=400) for name, left in (("a", 0), ("b", 460), ("c", 920))]
    assert names(read(interleave(*columns))) == [text.split()[0] for part in columns for text, *_ in part]


def on_its_right_side(lines: list[Placed], height: float) -> list[Placed]:
    """Return the lines of an upright page of ``height`` as they stand when it lies on its right side."""
    return [(text, height - top - high, left, high, width) for text, left, top, width, high in lines]


def test_a_receipt_on_its_right_side_is_read_row_by_row() -> None:
    cells = [("藕片炖排骨", "46.00"), ("手撕包菜", "18.00"), ("米饭", "4.00"), ("茶位费", "9.00"), ("应收", "77.00")]
    lines: list[Placed] = [
        cell
        for row, (label, price) in enumerate(cells)
        for cell in ((label, 40, 60 + 80 * row, 44 * len(label), 44), (price, 700, 60 + 80 * row, 24 * len(price), 44))
    ]
    expected = [text for text, *_ in lines]
    assert read(lines) == expected
    assert read(on_its_right_side(lines, 600)[::-1]) == expected


def test_columns_of_vertical_chinese_in_two_tiers_are_read_tier_by_tier() -> None:
    upper: list[Placed] = [(f"上半页第{row}列文字", 600 - 80 * row, 40, 44, 350) for row in range(4)]
    lower: list[Placed] = [(f"下半页第{row}列文字", 600 - 80 * row, 500, 44, 350) for row in range(4)]
    assert read([*lower, *upper[::-1]]) == [text for text, *_ in [*upper, *lower]]


@pytest.mark.parametrize("top", [0, 40, 70])
def test_a_couplet_is_read_from_right_to_left_below_or_beside_its_scroll(top: float) -> None:
    couplet: list[Placed] = [("日照神州百业兴", 1050, 60, 70, 560), ("春回大地千山秀", 80, 60, 70, 560)]
    scroll: list[Placed] = [("国泰民安", 420, top, 330, 80)]
    assert read(couplet[::-1] + scroll) == [text for text, *_ in scroll + couplet]


def test_captions_down_both_sides_of_a_paragraph_stay_apart() -> None:
    left: list[Placed] = [("左边的竖排说明文字", 40, 40, 50, 500)]
    right: list[Placed] = [("右边的竖排说明文字", 900, 40, 50, 500)]
    middle: list[Placed] = [(f"{row} {WORDS}", 200, 80 + 70 * row, 500, 40) for row in range(6)]
    order = [text for text in read([*right, *middle, *left]) if text in (left[0][0], right[0][0])]
    assert order == [left[0][0], right[0][0]]


@pytest.mark.parametrize("gutter", [20.0, 10.0])
@pytest.mark.parametrize("turned", [-1.0, 0.0, 1.0])
def test_four_newspaper_columns_with_a_gutter_of_one_character_are_read_one_after_the_other(
    gutter: float, turned: float
) -> None:
    """Boxes are grown on all sides, so that less than a character of white is left, and their ends are not even."""
    columns: list[list[Placed]] = [
        [
            (f"{number}{row} 广场书架志愿者", number * (392 + gutter) - row % 3, row * 42 + number % 2, 392, 34)
            for row in range(18)
        ]
        for number in range(4)
    ]
    expected = [text for part in columns for text, *_ in part]
    assert read(interleave(*columns)[::-1], turned=turned) == expected
