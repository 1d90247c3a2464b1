"""Queries: what a person types is understood, or refused with a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import ErrorCode, ServiceError
from search.query.parse import LONGEST_QUERY, MOST_ALTERNATIVES, Alternative, parse


def wanted(text: str) -> list[tuple[str, ...]]:
    return [alternative.wanted for alternative in parse(text).alternatives]


@pytest.mark.parametrize("prefix", ["ocr:", "OCR：", "Ocr :", "  ocr : ", "ｏｃｒ：", "ocr:\u3000"])
def test_the_prefix_is_read_in_any_form(prefix: str) -> None:
    parsed = parse(f"{prefix}发票")
    assert parsed.text_only
    assert parsed.meaning == "发票"
    assert parsed.alternatives == (Alternative(("发票",)),)


@pytest.mark.parametrize("text", ["ocrx:a", "micro:a", "the ocr: a", '"ocr:a"'])
def test_what_only_looks_like_the_prefix_is_text(text: str) -> None:
    assert not parse(text).text_only


@pytest.mark.parametrize(
    "quoted",
    [
        '"营业 执照"',
        "“营业 执照”",
        "”营业 执照“",
        "＂营业 执照＂",
        "「营业 执照」",
        "『营业 执照』",
        "ocr:「營業 執照」",
    ],
)
def test_quoted_text_is_kept_together(quoted: str) -> None:
    assert wanted(quoted) == [("营业 执照",)]


def test_blanks_part_what_must_all_be_there_and_or_what_may() -> None:
    assert wanted("发票 上海") == [("发票", "上海")]
    for separator in ("or", "OR", "|", "｜", "或"):
        assert wanted(f"发票 上海 {separator} receipt") == [("发票", "上海"), ("receipt",)]
    assert wanted("发票或收据 color") == [("发票或收据", "color")]
    assert wanted("or a or or b or") == [("a",), ("b",)]
    assert wanted("或") == [("或",)]
    assert wanted('"or" a') == [("or", "a")]


def test_a_minus_excludes_a_word_or_a_phrase() -> None:
    parsed = parse('发票 -2023 －"总 公司" a-102')
    assert parsed.alternatives == (Alternative(("发票", "a-102"), ("2023", "总 公司")),)
    assert parsed.meaning == "发票 a-102"


def test_marks_around_a_word_go_and_those_within_stay() -> None:
    assert wanted("（发票）， (RE-16)! c++ 50% don't") == [("发票", "re-16", "c++", "50%", "don't")]


def test_a_quotation_mark_without_its_pair_is_a_blank() -> None:
    assert wanted('5" disk') == [("5", "disk")]


@pytest.mark.parametrize("text", ["", " ", "!?。、", "ocr:", "-2023", "- -", '""', "\0", "「」", "-a -b", "\u200d"])
def test_nothing_to_look_for_is_refused(text: str) -> None:
    with pytest.raises(ServiceError) as refused:
        parse(text)
    assert refused.value.code is ErrorCode.INVALID_QUERY


def test_the_longest_query_is_answered_and_a_longer_one_refused() -> None:
    assert parse("  " + "a" * LONGEST_QUERY + "  ")
    for text in ("a" * (LONGEST_QUERY + 1), "票" * 10_000, " or ".join("a" * (MOST_ALTERNATIVES + 1))):
        with pytest.raises(ServiceError, match="query has"):
            parse(text)


@settings(deadline=None, max_examples=300)
@given(
    st.text(max_size=80) | st.text(st.sampled_from("a1发票 \"“”「」『』'-－|&!():*<>\\\0\ud800😀ocr:："), max_size=40)
)
def test_any_text_is_understood_or_refused(text: str) -> None:
    refused: ServiceError | None = None
    try:
        parsed = parse(text)
    except ServiceError as error:
        refused = error
    if refused is not None:
        assert refused.code is ErrorCode.INVALID_QUERY
        return
    parsed.meaning.encode()
    assert "\0" not in parsed.meaning
    assert all(alternative.wanted and all(alternative.wanted) for alternative in parsed.alternatives)
