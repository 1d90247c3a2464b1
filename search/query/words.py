"""Text cut to words, for the index and for queries: Chinese by jieba, codes whole and in parts.

Used where the database has no ``zhparser``. A document and a query are always cut by the same cutter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import rjieba

from search.query.folding import CJK

LONGEST = 128
"""Characters of the longest word that is kept: no one types a longer one, and a tsvector's words must stay below 2
kB.
"""

_RUNS = re.compile(rf"(?P<cjk>{CJK}+)|(?P<other>(?:(?!{CJK})\S)+)")
_PIECES = re.compile(r"[^\W_]+")
_LETTERS_OR_DIGITS = re.compile(r"\d+|[^\W\d_]+")


def cut(folded: str) -> list[str]:
    """Return the words of folded text (newlines are blanks) in order, each word once.

    Long Chinese words also come in parts, and codes too.

    >>> cut("营业执照 re16 a-102")
    ['营业', '执照', '营业执照', 're16', 're', '16', 'a-102', 'a', '102']
    """
    words: dict[str, None] = {}
    for run in _RUNS.finditer(folded):
        if run["cjk"]:
            words.update(dict.fromkeys(rjieba.cut_for_search(run["cjk"])))
        else:
            for whole, parts in _codes(run["other"]):
                words[whole] = None
                words.update(dict.fromkeys(parts))
    return [word for word in words if len(word) <= LONGEST]


def words_with_parts(folded: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return the words of a folded query, each with the shorter words that stand for it if it is written apart.

    Those are ``()`` if there are none.

    >>> words_with_parts("营业执照")
    [('营业执照', ('营业', '执照'))]
    """
    words: dict[str, tuple[str, ...]] = {}
    for run in _RUNS.finditer(folded):
        if run["cjk"]:
            for word in rjieba.cut(run["cjk"]):
                words[word] = tuple(part for part in rjieba.cut_for_search(word) if part != word)
        else:
            words.update(_codes(run["other"]))
    return [(word, parts) for word, parts in words.items() if len(word) <= LONGEST]


def words_query(needles: Iterable[str]) -> str:
    """Return a ``tsquery``, as text, of the texts that have all words of all ``needles`` (folded).

    It is ``''`` if there is no word.

    >>> words_query(["营业执照", "it's"])
    "('营业执照' | '营业' & '执照') & ('it''s' | 'it' & 's')"
    """
    groups = []
    for word, parts in dict.fromkeys(found for needle in needles for found in words_with_parts(needle)):
        apart = " & ".join(map(quoted_word, parts))
        groups.append(f"({quoted_word(word)} | {apart})" if apart else quoted_word(word))
    return " & ".join(groups)


def quoted_word(word: str) -> str:
    """Return a word as a ``tsquery`` writes it."""
    # https://www.postgresql.org/docs/current/datatype-textsearch.html: quotes and backslashes are doubled, all else
    # stands for itself.
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"


def _codes(run: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Cut a run of anything but Chinese and blanks.

    Yields the run without marks around it, and its parts at marks and between letters and digits.
    """
    pieces = list(_PIECES.finditer(run))
    if not pieces:
        return
    whole = run[pieces[0].start() : pieces[-1].end()]
    finer = [found[0] for piece in pieces for found in _LETTERS_OR_DIGITS.finditer(piece[0])]
    parts = dict.fromkeys([*(piece[0] for piece in pieces), *finer])
    parts.pop(whole, None)
    yield whole, tuple(part for part in parts if len(part) <= LONGEST)
