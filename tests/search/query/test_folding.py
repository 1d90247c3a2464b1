"""Folding: what is the same to a person is the same to a search."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.query import folding
from search.query.folding import fold, fold_with_origins

TEXTS = st.text(max_size=60) | st.text(st.sampled_from("發票发票名 称ＡＢａßİ́\u200d‘“—￥¥。 \t\n\0-1"), max_size=20)


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("Invoice", "invoice"),
        ("ＲＥ－１６：Ａ", "re-16:a"),
        ("營業執照 發票", "营业执照 发票"),
        ("乾隆", fold("乾")[0] + "隆"),
        ("￥12 ¥12", "¥12 ¥12"),
        ("‘a’ “b” — –", "'a' \"b\" - -"),
        ("a\0b\x07c\u200dd", "abcd"),
        ("  a \t\n　b ", "a b"),
        ("名 称", "名称"),
        ("数量 2 台 单价", "数量2台 单价"),
        ("合计 ¥128.50 元", "合计¥128.50元"),
        ("第 3 页 a b 名 称", "第3页a b名称"),
        ("A4 （纸） 大厅", "a4 (纸) 大厅"),
        ("Straße", "strasse"),
        ("Café Müller", "cafe muller"),
        ("cafe\u0301", "cafe"),
        ("İstanbul ırmak", "istanbul irmak"),
        ("Øresund Łódź Đà æther œuvre þing ðe", "oresund lodz da aether oeuvre thing de"),
        ("Ελλάς ή", "ελλασ η"),
        ("ёлка йод", "елка йод"),
        ("が ガ", "がガ"),
        ("髙橋 高橋", "高桥 高桥"),
        ("﨑 崎", "崎崎"),
        ("邊 邉 辺 边", "边边边边"),
        ("斎藤 斉藤 齋藤 齊藤", "齐藤 齐藤 齐藤 齐藤"),
        ("沢 澤 広 廣 恵 徳 浜 濱 渕 嶋", "泽泽广广惠德滨滨渊岛"),
        ("欠 缺 予 豫", "欠缺予豫"),
        ("ｶﾞ", "ガ"),
        ("\ud800x", "x"),
        ("", ""),
    ],
)
def test_ways_to_write_one_text_fold_to_one(written: str, folded: str) -> None:
    assert fold(written) == folded


@settings(deadline=None, max_examples=200)
@given(TEXTS)
def test_folding_twice_is_folding_once_and_utf8_can_hold_it(text: str) -> None:
    folded = fold(text)
    assert fold(folded) == folded
    folded.encode()
    assert "\0" not in folded
    assert folded == " ".join(folded.split())


@settings(deadline=None, max_examples=200)
@given(TEXTS)
def test_folding_with_origins_gives_the_same_text_and_origins_inside_the_line_in_order(text: str) -> None:
    folded = fold_with_origins(text)
    assert folded.text == fold(text)
    assert len(folded.origins) == len(folded.text)
    assert all(0 <= start < end <= len(text) for start, end in folded.origins)
    assert list(folded.origins) == sorted(folded.origins)


@pytest.mark.parametrize(
    ("line", "needle", "marked"),
    [
        ("增值稅 發票　號碼", "发票", ["發票"]),
        ("ＲＥ－１６ and re-16", "re-16", ["ＲＥ－１６", "re-16"]),
        ("Café", "cafe", ["Café"]),
        ("Straße", "ss", ["ß"]),
        ("名 称", "名称", ["名 称"]),
        ("麻婆豆腐 22 元", "豆腐22元", ["豆腐 22 元"]),
        ("aaaa", "aa", ["aaaa"]),
        ("none", "x", []),
    ],
)
def test_what_is_marked_is_what_was_written(line: str, needle: str, marked: list[str]) -> None:
    assert [line[start:end] for start, end in fold_with_origins(line).spans([needle])] == marked


@settings(deadline=None, max_examples=100)
@given(TEXTS, st.data())
def test_any_piece_of_a_folded_line_is_found_and_marked_in_the_line(text: str, data: st.DataObject) -> None:
    folded = fold_with_origins(text)
    if not folded.text:
        return
    start = data.draw(st.integers(0, len(folded.text) - 1))
    end = data.draw(st.integers(start + 1, len(folded.text)))
    spans = folded.spans([folded.text[start:end]])
    assert spans
    assert all(0 <= one < other <= len(text) for one, other in spans)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))


def test_each_character_that_is_folded_without_a_look_at_its_neighbours_stays_one_character() -> None:
    characters = [chr(code) for code in range(0x20, 0x20000) if folding._ONE_FOR_ONE.fullmatch(chr(code))]
    assert len(characters) > 20_000
    assert [one for one in characters if not one.isspace() and len(fold(one)) != 1] == []


@settings(deadline=None, max_examples=200)
@given(st.text(st.sampled_from("發票发票名 　ＡＢ１ab1-¥。、：（"), max_size=20))
def test_a_line_folded_at_once_has_the_origins_that_it_has_piece_by_piece(line: str) -> None:
    assert folding._one_for_one(line) in (None, folding._by_clusters(line))
