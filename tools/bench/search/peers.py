"""Other ways to match text, to compare with: plain ILIKE, and Immich's OCR search in Python. Neither ranks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from search.immich.rows import search_tokens

THRESHOLD = 0.5
"""pg_trgm.strict_word_similarity_threshold, its default, which Immich leaves."""


def by_ilike(query: str, texts: Sequence[str]) -> list[int]:
    """Return the numbers of the texts that contain the query as it was typed, upper and lower case alike.

    Quotation marks are left out.
    """
    needle = query.strip('"').lower()
    return [number for number, text in enumerate(texts) if needle in text.lower()]


def by_strict_word_similarity(query: str, texts: Sequence[str]) -> list[int]:
    """Return the numbers of the texts that Immich finds.

    It asks ``f_unaccent(text) %>> f_unaccent(query)``, both cut by its tokeniser.
    """
    wanted = _words(" ".join(search_tokens(query.strip('"'))))
    return [
        number
        for number, text in enumerate(texts)
        if strict_word_similarity(wanted, _words(" ".join(search_tokens(text)))) > THRESHOLD
    ]


def strict_word_similarity(wanted: Sequence[str], words: Sequence[str]) -> float:
    """Return the strict word similarity of pg_trgm.

    It is the greatest similarity of the trigrams of ``wanted`` and those of any run of consecutive ``words``.
    https://www.postgresql.org/docs/current/pgtrgm.html
    """
    goal = {trigram for word in wanted for trigram in _trigrams(word)}
    if not goal:
        return 0.0
    best = 0.0
    of_words = [_trigrams(word) for word in words]
    for start in range(len(words)):
        if not goal & of_words[start]:
            continue  # a run that begins with nothing in common is worse than the same without its beginning
        extent: set[str] = set()
        for trigrams in of_words[start:]:
            extent |= trigrams
            common = len(goal & extent)
            best = max(best, common / (len(goal) + len(extent) - common))
            if len(extent) > len(goal) / max(best, THRESHOLD) + len(goal):
                break  # even with everything in common it would be less
    return best


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _trigrams(word: str) -> set[str]:
    padded = f"  {word} "
    return {padded[at : at + 3] for at in range(len(padded) - 2)}
