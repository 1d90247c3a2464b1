"""Numbers and dates: each written form is read, and finds each other."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.query.folding import fold
from search.query.forms import forms, forms_of_lines, typed_forms
from search.query.words import cut

SAME = {
    "an amount": [
        "1280",
        "1,280",
        "1,280.00",
        "¥1,280.00",
        "￥１，２８０．００",
        "1 280,00 €",
        "1.280,00",
        "1'280.0",
        "1280元",
    ],
    "an amount with decimals": ["2450.5", "2,450.50", "2.450,50", "$2450.50", "2 450,5"],
    "a large amount": ["1234567", "1,234,567", "1 234 567.00", "1.234.567", "12,34,567"],
    "an amount in ten thousands": ["128000", "¥128,000.00", "12.8万", "12.8 万元", "12.80萬", "128 000"],
    "an amount in hundreds of millions": ["120000000", "1.2亿", "1.20億元", "12,000万"],
    "a telephone with a trunk zero": [
        *("0170 1234567", "0170/1234567", "01701234567", "+49 170 1234567", "0049 170 1234567", "+49 (0)170 1234567"),
    ],
    "a telephone": [
        "13912348877",
        "139 1234 8877",
        "139-1234-8877",
        "(139) 1234-8877",
        "139.1234.8877",
        "139/1234/8877",
    ],
    "a card": ["6222021234567890", "6222 0212 3456 7890", "6222-0212-3456-7890", "62220212 34567890"],
    "an account": ["de89370400440532013000", "DE89 3704 0044 0532 0130 00", "DE89-3704-0044-0532-0130-00"],
    "a courier's number": ["sf1234567890123", "SF 1234 5678 9012 3", "SF-1234-5678-9012-3", "SF 1234567890123"],
    "an address of a network card": ["001a2b3c4d5e", "00:1A:2B:3C:4D:5E", "00-1a-2b-3c-4d-5e", "001A.2B3C.4D5E"],
    "a code": ["a102", "A-102", "A.102", "A/102", "a_102"],
    "a day": [
        *("20240305", "2024年3月5日", "2024-03-05", "2024/3/5", "5.3.2024", "2024 年 03 月 05 号", "5 March 2024"),
        *("March 5th, 2024", "令和6年3月5日", "民國113年3月5日", "二〇二四年三月五日", "5-Mar-2024", "24年3月5日"),
    ],
    "a day of any year": ["3月5日", "03月05日", "三月五日", "5 March", "Mar. 5", "3月5号"],
    "a month": ["2024年3月", "2024-03", "2024/3", "March 2024", "二〇二四年三月"],
}


@pytest.mark.parametrize("kind", SAME)
def test_all_ways_to_write_it_find_each_other(kind: str) -> None:
    for written, typed in itertools.permutations(SAME[kind], 2):
        words = {*forms_of_lines([fold(written)]), *cut(fold(written))}
        assert words & set(typed_forms(fold(typed)).same), (written, typed)


@pytest.mark.parametrize(
    ("written", "typed"),
    [
        ("1,280.50", "1280.00"),
        ("1,280", "128"),
        ("12,800", "1280"),
        ("128.00 256.00", "128256"),
        ("12.50 13.00", "12501300"),
        ("139 1234 8877", "13912348878"),
        ("2024-03-05", "2024-03-06"),
        ("2024年13月5日", "20241305"),
        ("3:05", "305"),
        ("A-102", "b102"),
        ("room 5", "5"),
        ("in 12 30", "in1230"),
        ("12:30:45", "123045"),
        ("12.8万", "12800"),
        ("1亿2000万", "100000000"),
        ("3万5千", "30000"),
        ("0170 1234567", "+49 170 1234568"),
        ("01234567", "1234567"),
    ],
)
def test_other_numbers_do_not(written: str, typed: str) -> None:
    assert not set(forms_of_lines([fold(written)])) & set(typed_forms(fold(typed)).same)


def test_both_readings_of_a_date_count_and_the_year_may_have_two_digits() -> None:
    assert {"=20240305", "=20240503"} <= set(forms_of_lines(["05/03/2024"]))
    assert "=20240305" in forms_of_lines(["24-03-05"])
    assert "=20240503" not in forms_of_lines(["05.03.2024"])


def test_an_amount_finds_those_with_other_decimals_too() -> None:
    assert "~2450" in forms_of_lines(["$2,450.50"])
    assert "~2450" in typed_forms("2450").near
    assert typed_forms("2450.75").near == ()


def test_numbers_never_run_over_the_end_of_a_line() -> None:
    assert forms_of_lines(["139 1234", "8877"]) == ["=1391234"]


def test_text_has_no_forms() -> None:
    assert forms_of_lines(["发票", "invoice", "c++", ""]) == []
    assert typed_forms("发票").same == ()


@settings(deadline=None, max_examples=200)
@given(st.text(st.sampled_from("0123456789 .,'-/()年月日元万亿¥abmarch三十〇"), max_size=60) | st.text(max_size=40))
def test_any_line_has_forms_in_it_and_any_query_is_read(text: str) -> None:
    line = fold(text)
    for form in forms(line):
        assert 0 <= form.start < form.end <= len(line)
        assert form.word
        assert " " not in form.word
    typed_forms(line)


def test_a_page_of_figures_has_few_forms() -> None:
    line = " ".join(str(number) for number in range(100, 1100))
    assert len(forms_of_lines([line])) < 300
