"""Figures one in the place of the letter l, which some fonts draw alike."""

from __future__ import annotations

import numpy as np
import pytest

from runners.ocr.recognition import decode, letters_for_ones


@pytest.mark.parametrize(
    ("read", "meant"),
    [
        ("刘洋 Si1ver 8673", "刘洋 Silver 8673"),
        ("Harbour 1etter travel", "Harbour letter travel"),
        ("he11o wor1d", "hello world"),
        ("p1ace tab1es", "place tables"),
        ("果园b1ack茶叶", "果园black茶叶"),
    ],
)
def test_a_doubtful_one_in_a_word_is_a_letter(read: str, meant: str) -> None:
    assert letters_for_ones(read, np.full(len(read), 0.94, np.float32)) == meant
    assert letters_for_ones(read, np.full(len(read), 0.96, np.float32)) == read, "sure enough to be meant"


@pytest.mark.parametrize(
    "code",
    [
        *("A12-1100", "1", "11", "11:15", "2011", "¥1.10", "a1b2c3", "x1y2", "B1ock7", "p1x", "mp1x"),
        *("page1", "chapter1", "1st", "1kg", "1min", "1BETA", "TITLE1A", "第1页", "Lv1", "B1", "A1B1C"),
    ],
)
def test_codes_numbers_and_units_keep_their_ones(code: str) -> None:
    assert letters_for_ones(code, np.full(len(code), 0.5, np.float32)) == code


def test_the_doubt_is_that_of_the_one_itself() -> None:
    text = "Si1ver wor1d"
    scores = np.full(len(text), 0.5, np.float32)
    scores[text.index("1")] = 0.99
    assert letters_for_ones(text, scores) == "Si1ver world"


def test_a_line_is_decoded_with_its_letters_and_its_score() -> None:
    alphabet = ("", *"Sivr1e", " ")
    path = [alphabet.index(character) for character in "Si1ver"]
    scores = np.full((1, 6), 0.9, np.float32)
    (line,) = decode(scores, np.array([path], np.int32), np.zeros_like(scores), alphabet)
    assert line.text == "Silver"
    assert line.score == pytest.approx(0.9)
