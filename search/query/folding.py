"""Text as it is compared: width, case, accents, traditional characters and typographic marks made one, on the query and
on what was read.

Unicode's NFKC and full case folding (UAX #15; Unicode 3.13), Latin and Greek letters without their marks, then OpenCC's
tables of single characters: traditional and Japanese to simplified, and variants (``search.query.variants``). OpenCC's
phrase tables are left out: they keep 乾 in 乾隆 but not alone, so that a query for the one would miss the other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from search.query.variants import variants

_MARKS = {
    "'": "‘’‚‛′`ʼ",
    '"': "“”„‟〝〞〟",
    "-": "‐‑‒–—―−﹘﹣－",
    ".": "。",
    ",": "、",
    "·": "・•‧∙⋅",
    "~": "〜∼",
    "¥": "￥",
}
"""The mark that is kept, and the marks that people and readers use for it. NFKC makes full-width ones ASCII already."""

_IGNORED = (0x034F, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
"""Combining grapheme joiner and variation selectors: they change how a character looks, and readers do not see them."""

_LETTERS = {"æ": "ae", "œ": "oe", "ð": "d", "þ": "th", "ŋ": "n", "ı": "i", "ȷ": "j", "ĸ": "q", "ё": "е"}
"""Letters that Unicode does not take apart, as CLDR's transform Latin-ASCII writes them; and ё, which is often written
as е.
"""
_STROKED = re.compile(r"LATIN SMALL LETTER ([A-Z]) WITH ")
"""ø, ł, đ, ħ, ŧ: Unicode does not take these apart either, but their names do."""

_WIDE = (
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U000323af"
)
CJK = f"[{_WIDE}]"
"""A character of Chinese, Japanese or Korean, for regular expressions."""
_OPENING, _CLOSING = "《「『【〈(", ",.;:!?)·…》」』】〉"
_LATIN = "[0-9a-z¥$€£]"
CJK_ENDS = re.compile(
    rf"(?:{CJK}|[{_CLOSING}])(?:{CJK}|[{_OPENING}])|(?:{CJK}|[{_OPENING}])(?:{CJK}|[{_CLOSING}])"
    rf"|{CJK}{_LATIN}|{_LATIN}{CJK}"
)
"""The last character of a line and the first of the next, where Chinese goes on between them: no blank is set."""
_ONE_FOR_ONE = re.compile(r"[ -~¥\u3000-\u3002\u4e00-\u9fff\uff01-\uff5e]*")
"""Lines of characters that fold to one character each, whatever stands beside them."""
_SPACED_OUT = re.compile(rf"(?<!\S){CJK}(?: {CJK})+(?!\S)")
"""``名 称``: a word set with blanks between its characters, as forms and signs do."""
_ALONE = re.compile(rf" {CJK}(?!\S)")
"""A character of a word that is spaced out, but the first. It begins with a blank, which is found at once."""
_BORDER = re.compile(rf" (?:(?<={CJK} )(?={_LATIN})|(?<={_LATIN} )(?={CJK}))")
"""``第 3 页``: a blank between Chinese and a letter or figure is a matter of taste, and is often not read."""


class _Converter(Protocol):
    """The methods of OpenCC's converters that are used."""

    def convert(self, text: str) -> str: ...


class _Table(dict[int, "str | None"]):
    """For ``str.translate``. Characters are looked up when first met: few of Unicode's are ever, and OpenCC then loads
    when needed.
    """

    def __init__(self) -> None:
        super().__init__({ord(variant): mark for mark, variants in _MARKS.items() for variant in variants})
        self.update(dict.fromkeys(_IGNORED))

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        folded: str | None = character
        if character.isspace():
            folded = " "
        elif unicodedata.category(character) in ("Cc", "Cf", "Cs"):
            folded = None  # controls, invisible formatting, halves of surrogate pairs (which UTF-8 has no bytes for)
        elif 0x300 <= code <= 0x36F:
            folded = None  # a mark that composes with nothing
        elif re.match(CJK, character):
            folded = _simplified(character)
        elif code > 126:
            folded = _without_marks(character)
        self[code] = folded
        return folded


_TABLE = _Table()


@lru_cache(maxsize=512)  # a line of a hit is folded where it is looked for, marked and explained
def fold(text: str) -> str:
    """Return ``text`` as one line to compare: blanks collapsed, no controls, ``fold(fold(x)) == fold(x)``.

    Of blanks between Chinese and a letter or figure, and in a word that is spaced out, none is left.

    >>> fold("營業執照　ＲＥ－１６")
    '营业执照 re-16'
    """
    folded = " ".join(_characters(text).split())
    if folded.isascii():
        return folded
    if not _ALONE.search(folded):
        return _BORDER.sub("", folded)
    dropped = _dropped(folded)
    return "".join(character for at, character in enumerate(folded) if at not in dropped)


@dataclass(frozen=True, slots=True)
class Folded:
    """A folded line that knows where its characters come from."""

    text: str
    """As ``fold`` gives."""
    origins: Sequence[tuple[int, int]]
    """For each character of ``text``: start and end, in characters of the line as it was, of what it was made from."""

    def spans(self, needles: Iterable[str]) -> tuple[tuple[int, int], ...]:
        """Return where the folded ``needles`` occur: (start, end) in characters of the original line, in order, none
        overlapping.
        """
        return self.spans_of(occurrences(self.text, needles))

    def spans_of(self, places: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """Return ``places``, (start, end) in characters of ``text``, as characters of the original line: in order, none
        overlapping.
        """
        found = sorted((self.origins[start][0], self.origins[end - 1][1]) for start, end in places if start < end)
        merged: list[tuple[int, int]] = []
        for start, end in found:
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return tuple(merged)


def fold_with_origins(line: str) -> Folded:
    """Return ``fold(line)``, with the way back."""
    text, origins = _one_for_one(line) or _by_clusters(line)
    if dropped := _dropped(text):
        kept = [at for at in range(len(text)) if at not in dropped]
        text, origins = "".join(text[at] for at in kept), [origins[at] for at in kept]
    folded = fold(line)
    if text == folded:
        return Folded(text, origins)
    # Characters that only fold together (some scripts reorder marks across clusters): what was found is then the whole
    # line.
    return Folded(folded, [(0, len(line))] * len(folded))


def _one_for_one(line: str) -> tuple[str, list[tuple[int, int]]] | None:
    """Return what ``_by_clusters`` does, of a line whose characters need no look at each; None for others."""
    if not _ONE_FOR_ONE.fullmatch(line):
        return None
    text = _characters(line)
    return (text, [(at, at + 1) for at in range(len(line))]) if text == " ".join(text.split()) else None


def _by_clusters(line: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the folded characters of ``line`` with its blanks collapsed, and where each comes from."""
    characters: list[str] = []
    origins: list[tuple[int, int]] = []
    for start, end in _clusters(line):
        for character in _characters(line[start:end]):
            if character == " " and (not characters or characters[-1] == " "):
                continue
            characters.append(character)
            origins.append((start, end))
    if characters and characters[-1] == " ":
        del characters[-1], origins[-1]
    return "".join(characters), origins


def _dropped(text: str) -> set[int]:
    """Return where blanks stand that do not count: in a word that is spaced out, and beside Chinese."""
    if text.isascii() or " " not in text:
        return set()
    dropped = {found.start() for found in _BORDER.finditer(text)}
    if _ALONE.search(text):
        dropped.update(at for run in _SPACED_OUT.finditer(text) for at in range(*run.span()) if text[at] == " ")
    return dropped


def _characters(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text.lower().replace("`", "'")
    # Case folding can undo NFKC, and a dropped character can let its neighbours compose: twice is nearly always enough.
    while True:
        folded = unicodedata.normalize("NFKC", text).casefold().translate(_TABLE)
        if folded == text:
            return text
        text = folded


def _clusters(line: str) -> Iterable[tuple[int, int]]:
    """Yield start and end of the pieces of ``line`` that fold on their own: a character and the marks that combine
    with it.
    """
    start = 0
    for at in range(1, len(line) + 1):
        if at == len(line) or not _joins(line[start:at], line[at]):
            yield start, at
            start = at


def _joins(before: str, character: str) -> bool:
    if character.isascii():
        return False
    apart = unicodedata.normalize("NFKC", before) + unicodedata.normalize("NFKC", character)
    return unicodedata.combining(character) != 0 or unicodedata.normalize("NFKC", before + character) != apart


def occurrences(folded: str, needles: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield where the folded ``needles`` occur: (start, end) in characters of ``folded``."""
    for needle in filter(None, set(needles)):
        at = folded.find(needle)
        while at >= 0:
            yield at, at + len(needle)
            at = folded.find(needle, at + 1)


def _without_marks(character: str) -> str:
    """Return a Latin or Greek letter without its marks, anything else as it is."""
    if known := _LETTERS.get(character):
        return known
    base = unicodedata.normalize("NFD", character)[0]
    if base != character:
        return base if unicodedata.name(base, "").startswith(("LATIN", "GREEK")) else character
    stroked = _STROKED.match(unicodedata.name(character, ""))
    return stroked[1].lower() if stroked else character


def _simplified(character: str) -> str:
    """Return the simplified form. Japanese forms and variants count only where simplified Chinese has no such
    character: 欠 and 缺 are one in Japanese and two in Chinese.
    """
    simplified = _converted("t2s", character)
    if kept := _variants().get(simplified):
        return kept
    if _in_gb2312(simplified):
        return simplified
    known = _converted("t2s", _converted("jp2t", character))
    return _variants().get(known, known)


def _in_gb2312(character: str) -> bool:
    try:
        character.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def _converted(direction: str, character: str) -> str:
    converted = _converter(direction).convert(character)
    return converted if len(converted) == 1 else character


@lru_cache(maxsize=2)
def _converter(direction: str) -> _Converter:
    import opencc  # 6 MB and 40 ms, and only where there is Chinese

    return opencc.OpenCC(direction)


@lru_cache(maxsize=1)
def _variants() -> dict[str, str]:
    return variants()
