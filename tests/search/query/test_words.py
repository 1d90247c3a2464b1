"""Cutting: Chinese by jieba, codes whole and in parts, for texts and queries alike."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from search.query.folding import fold
from search.query.words import LONGEST, cut, words_query, words_with_parts


def test_a_long_chinese_word_is_kept_with_its_parts() -> None:
    assert {"营业执照", "营业", "执照"} <= set(cut("营业执照"))


def test_codes_are_kept_whole_and_in_parts() -> None:
    assert cut("re16 a-102") == ["re16", "re", "16", "a-102", "a", "102"]
    assert {"www.example.com/x", "www", "example", "com", "x"} <= set(cut("(www.example.com/x)"))


def test_words_do_not_run_across_lines() -> None:
    assert "营业执照" not in cut("营业\n执照")


def test_punctuation_is_no_word() -> None:
    assert cut('!?-- ... "" \\') == []
    assert words_query(["!!!"]) == ""


def test_a_query_accepts_a_word_or_all_its_parts() -> None:
    assert words_with_parts("a-102") == [("a-102", ("a", "102"))]
    assert words_query(["a-102"]) == "('a-102' | 'a' & '102')"


def test_quotes_and_backslashes_are_doubled() -> None:
    assert words_query(["it's"]) == "('it''s' | 'it' & 's')"
    assert "'a\\\\b'" in words_query(["a\\b"])


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=50))
def test_a_text_has_every_word_that_a_query_of_the_same_text_asks_for(text: str) -> None:
    folded = fold(text)
    words = cut(folded)
    assert {word for word, _ in words_with_parts(folded)} <= set(words)
    assert all(word and " " not in word and len(word) <= LONGEST for word in words)
    assert len(words) == len(set(words))
