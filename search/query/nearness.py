"""Words that are almost a typed one: another form of it, one wrong letter or character, and Chinese typed in Pinyin.

Only words of letters and of Chinese characters are: a number or a code with a wrong digit is another one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from search.query.folding import CJK
from search.query.plurals import other_number
from search.query.syllables import sounds_with

_CHINESE = re.compile(f"{CJK}+")
_APART = re.compile(r"[a-z]{1,6}(?:'[a-z]{2,6}){1,3}")
"""``xi'an``: Pinyin whose syllables an apostrophe keeps apart."""
_FEWEST_LETTERS, _MOST_LETTERS = 4, 32
_FEWEST_CHARACTERS, _MOST_CHARACTERS = 3, 16
_ANOTHER = "[^\\x01-\\x7f]"
"""A wrong character: not a line's end, a blank, a letter or a digit."""


@dataclass(frozen=True, slots=True)
class Near:
    """The conditions on a word that is almost a typed one, as ``immich_ai.near_candidates`` takes them."""

    word: str | None = None
    """The typed word, if it is of letters."""
    other: str | None = None
    """Its plural or singular, where that is irregular."""
    sounds: tuple[str, ...] = ()
    """Chinese in Pinyin that it may be a syllable of, with words beside it."""
    first: str | None = None
    last: str | None = None
    """Its halves: whatever differs by a letter has one of them at its start or end. None: it is too short."""
    patterns: tuple[str, ...] = ()
    """LIKE patterns of all that differ from it by a letter, or by two neighbours that are exchanged."""
    pieces: tuple[tuple[str, ...], ...] = ()
    """Of Chinese: for each place of a wrong character, what stands before and behind it."""
    pattern: str | None = None
    """Of Chinese: a regular expression, of PostgreSQL and of Python, for all that differ by a character."""

    def as_json(self) -> dict[str, object]:
        """Return what is not empty."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name))}


def nears(words: tuple[str, ...], quoted: Collection[str]) -> list[Near | None]:
    """Return how to look for what is almost each of ``words``, which stand beside each other; None for ``quoted`` ones
    and where nothing may differ.
    """
    open_words = tuple("" if word in quoted else word for word in words)
    found: list[Near | None] = []
    for at, word in enumerate(open_words):
        alone, sounds = near(word), sounds_with(open_words, at)
        found.append(replace(alone or Near(), sounds=sounds) if sounds else alone)
    return found


def near(folded: str) -> Near | None:
    """Return how to look for what is almost ``folded``, or None where nothing may differ.

    >>> near("票据号").pieces
    (('据号',), ('票', '号'), ('票据',))
    """
    if _CHINESE.fullmatch(folded):
        return _near_chinese(folded) if _FEWEST_CHARACTERS <= len(folded) <= _MOST_CHARACTERS else None
    if _APART.fullmatch(folded):
        return Near(word=folded.replace("'", ""))
    if not folded.isalpha() or _CHINESE.search(folded) or not 2 < len(folded) <= _MOST_LETTERS:
        return None
    typed = Near(word=folded, other=other_number(folded))
    if len(folded) < _FEWEST_LETTERS:
        return typed
    half = len(folded) // 2
    return replace(typed, first=folded[:half], last=folded[half:], patterns=tuple(_patterns(folded)))


def is_word(folded: str) -> bool:
    """Return whether a word of a text may be found by an almost equal one: only those are listed."""
    if folded.isalpha() and not _CHINESE.search(folded):
        return 2 < len(folded) <= _MOST_LETTERS
    return is_chinese(folded)


def is_chinese(folded: str) -> bool:
    """Return whether ``folded`` is a Chinese word that can be typed in Pinyin."""
    return 2 <= len(folded) <= 6 and all("\u3400" <= character <= "\u9fff" for character in folded)


def _near_chinese(folded: str) -> Near:
    spans = [(folded[:at], folded[at + 1 :]) for at in range(len(folded))]
    pieces = tuple(tuple(piece for piece in pair if piece) for pair in spans)
    others = [before + _ANOTHER + after for before, after in spans]
    if len(folded) > _FEWEST_CHARACTERS:  # of three, two alone would be too little
        others += [before + after for before, after in spans]
        others += [folded[:at] + _ANOTHER + folded[at:] for at in range(1, len(folded))]
    return Near(pieces=pieces, pattern="|".join(dict.fromkeys(others)))


def _patterns(word: str) -> dict[str, None]:
    cuts = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    patterns = dict.fromkeys(before + "_" + after[1:] for before, after in cuts[:-1])
    patterns |= dict.fromkeys(before + after[1:] for before, after in cuts[:-1])
    patterns |= dict.fromkeys(before + "_" + after for before, after in cuts)
    return patterns | dict.fromkeys(before + after[1] + after[0] + after[2:] for before, after in cuts[:-2])
