"""Which lines go on in each other: paragraphs do, at any angle; columns, tables, headings and lists do not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from search.store.blocks import blocks
from search.store.documents import searched

Rectangle = tuple[float, float, float, float]
"""x, y, width and height in pixels of a page of 1000 x 1400."""
EM, PITCH, HEIGHT = 30.0, 50.0, 36.0


def box(x: float, y: float, width: float, height: float = HEIGHT, degrees: float = 0) -> tuple[float, ...]:
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    turn = math.radians(degrees)
    turned = [
        (
            500 + (a - 500) * math.cos(turn) - (b - 700) * math.sin(turn),
            700 + (a - 500) * math.sin(turn) + (b - 700) * math.cos(turn),
        )
        for a, b in corners
    ]
    return tuple(number for a, b in turned for number in (a / 1000, b / 1400))


def column(texts: Sequence[str], x: float = 100, y: float = 200, degrees: float = 0) -> list[tuple[float, ...]]:
    return [
        box(x, y + PITCH * number, EM * sum(1 if ord(c) > 0x2E80 else 0.55 for c in text), degrees=degrees)
        for number, text in enumerate(texts)
    ]


PROSE = ["今天上午我们去了市中心的展览", "馆参观了一整天的现代艺术作品", "大家都很高兴"]


@pytest.mark.parametrize("degrees", [0, 3, -4, 90, 180, 270])
def test_a_paragraph_is_a_block_at_any_angle(degrees: float) -> None:
    assert blocks(PROSE, column(PROSE, degrees=degrees)) == [[0, 1, 2]]


def test_the_first_line_of_a_paragraph_may_be_indented() -> None:
    boxes = column(PROSE)
    boxes[0] = box(160, 200, EM * 14 - 60)
    assert blocks(PROSE, boxes) == [[0, 1, 2]]


def test_columns_stay_apart() -> None:
    other = ["右边的一栏讲的是完全不同的事", "情与左边的内容没有任何的关系"]
    found = blocks([*PROSE[:2], *other], [*column(PROSE[:2], x=40), *column(other, x=520)])
    assert found == [[0, 1], [2, 3]]


def test_columns_of_vertical_text_go_on_to_the_left() -> None:
    texts = ["春眠不觉晓处处闻", "啼鸟夜来风雨声花"]
    boxes = [box(800 - 50 * number, 100, HEIGHT, EM * 8) for number in range(2)]
    assert blocks(texts, boxes) == [[0, 1]]


def test_a_table_is_no_paragraph() -> None:
    labels, values = ["苹果汁", "香蕉汁", "葡萄汁"], ["12.00", "15.00", "18.00"]
    assert blocks([*labels, *values], [*column(labels), *column(values, x=700)]) == []


def test_a_heading_or_a_distant_line_does_not_go_on() -> None:
    texts = ["公告", "各位业主请注意明天上午停水"]
    assert blocks(texts, [box(100, 100, 160, 80), box(100, 200, EM * 13)]) == []
    assert blocks(PROSE[:2], [box(100, 100, EM * 14), box(100, 300, EM * 14)]) == []


def test_a_line_that_ends_early_ends_its_paragraph() -> None:
    texts = ["短句", "这是一行很长很长很长的文字"]
    assert blocks(texts, column(texts)) == []


def test_without_corners_no_line_goes_on() -> None:
    assert blocks(PROSE, []) == []
    assert blocks(PROSE, [[None] * 8] * 3) == []
    assert blocks([], []) == []


def test_a_thousand_cells_take_less_than_a_second() -> None:
    boxes = [box(10 + 60 * (number % 50), 10 + 50 * (number // 50), 40) for number in range(1000)]
    assert blocks(["12"] * 1000, boxes) == []


def test_blocks_stand_behind_the_lines_with_hyphens_undone() -> None:
    lines = ["Quarterly mainte-", "nance of the lift"]
    made = searched(lines, column(lines))
    assert made.folded == "quarterly mainte-\nnance of the lift\n\f\nquarterly maintenance of the lift"
    pieces = [made.pieces[at : at + 3] for at in range(0, len(made.pieces), 3)]
    assert [(line, made.folded[start - 1 : start - 1 + size]) for line, start, size in pieces] == [
        (1, "quarterly mainte"),
        (2, "nance of the lift"),
    ]
    assert "maintenance" in made.words


def test_chinese_goes_on_without_a_blank_and_all_else_with_one() -> None:
    for lines, joined in (
        (["各类精密仪", "器与配件，"], "各类精密仪器与配件,"),
        (["各类精密，", "仪器与配件"], "各类精密,仪器与配件"),
        (["twice a week and", "close the window"], "twice a week and close the window"),
        (["一共有两千八百", "28 yuan each"], "一共有两千八百28 yuan each"),
    ):
        assert searched(lines, column(lines)).folded.split("\n\f\n")[1:] == [joined]
        assert searched(lines).folded == "\n".join(line.replace("，", ",") for line in lines)


def test_lines_stay_countable_even_if_nothing_of_one_is_left() -> None:
    assert searched(["Ａ", "\0", "b\nc"]).folded == "a\n\nb c"
    assert searched([]).folded == ""
