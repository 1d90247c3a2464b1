"""The benchmark of reading: how what was read is held to the lines that are in a picture."""

from __future__ import annotations

import numpy as np
import pytest

from tools.bench.reading.drawings import KINDS, PER_KIND, Quad, Truth
from tools.bench.reading.fonts import FONTS
from tools.bench.reading.scores import Score, mean, score


def quad(left: float, top: float, right: float, bottom: float) -> Quad:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)


LINES = (Truth("第一行 one", quad(0, 0, 200, 40)), Truth("第二行 two", quad(0, 60, 200, 100)))


def read(*lines: tuple[str, Quad]) -> Score:
    return score(LINES, [(text, box.tolist()) for text, box in lines])


def test_what_is_read_right_scores_one_in_everything() -> None:
    right = read(*((line.text, line.quad) for line in LINES))
    assert [mean([right], part) for part in ("accuracy", "recall", "order")] == [1, 1, 1]
    assert right.false_lines == 0


def test_a_line_in_two_pieces_is_one_line() -> None:
    right = read(("第一行", quad(0, 0, 110, 40)), ("one", quad(120, 0, 200, 40)), (LINES[1].text, LINES[1].quad))
    assert [mean([right], part) for part in ("accuracy", "recall", "order")] == [1, 1, 1]


def test_the_wrong_order_costs_order_alone() -> None:
    wrong = read(*((line.text, line.quad) for line in LINES[::-1]))
    assert [mean([wrong], part) for part in ("accuracy", "recall", "order")] == [1, 1, 0]


def test_a_line_that_is_not_there_is_false_and_a_lost_one_costs_its_characters() -> None:
    lost = read((LINES[0].text, LINES[0].quad), ("0000", quad(300, 300, 400, 340)))
    assert lost.false_lines == 1
    assert [mean([lost], part) for part in ("accuracy", "recall")] == [0.5, 0.5]


@pytest.mark.parametrize(("got", "right"), [("第一行one", 6), ("第一行0ne", 5), ("", 0)])
def test_characters_count_without_blanks(got: str, right: int) -> None:
    assert read((got, LINES[0].quad)).right == right


@pytest.mark.parametrize(("got", "right"), [("¥12.50", 6), ("￥12.50", 6), ("Y12.50", 5)])
def test_both_yen_signs_are_one_character(got: str, right: int) -> None:
    line = Truth("¥12.50", quad(0, 0, 200, 40))
    assert score([line], [(got, line.quad.tolist())]).right == right


def test_blanks_count_where_chinese_meets_letters_in_lines_that_were_read_right() -> None:
    lines = (Truth("麻婆豆腐 22元", quad(0, 0, 200, 40)), Truth("第 3 页 A B", quad(0, 60, 200, 100)))

    def blanks(*texts: str) -> tuple[int, int, int, int]:
        counts = score(lines, [(text, line.quad.tolist()) for text, line in zip(texts, lines, strict=True)])
        return counts.blanks, counts.blanks_read, counts.joins, counts.blanks_added

    assert blanks("麻婆豆腐 22元", "第 3 页 A B") == (4, 4, 1, 0)
    assert blanks("麻婆豆腐22 元", "第3 页A B") == (4, 1, 1, 1)
    assert blanks("麻婆豆腐 27元", "第 3 页 AB") == (3, 3, 0, 0)


def test_there_are_over_400_pictures_in_ten_fonts_of_five_foundries() -> None:
    assert len(KINDS) * PER_KIND >= 400
    assert len({font.name for font in FONTS}) == 10
    assert len({font.foundry for font in FONTS}) >= 5
