"""Typed text, parsed to what is searched for: quotes, minus, ``or`` and the prefix ``ocr:``. Any text is a query or
INVALID_QUERY.

    ocr:发票                 text alone; also ``OCR：``, and with blanks around the colon
    发票 上海                 both, anywhere
    "total amount"           exactly this, by itself; also “…”, 「…」, 『…』
    发票 -2023               without what has exactly 2023
    139 1234 8877            these, or the number that they make together
    发票 or receipt          either; also ``OR``, ``|`` and ``或``, standing alone. Binds less than a blank does.

Followed: PostgreSQL's ``websearch_to_tsquery``, which never raises either.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace

from errors import ErrorCode, ServiceError
from search.query.folding import fold
from search.query.forms import typed_forms

LONGEST_QUERY = 1000
"""Characters. What people type is below 100; what they paste from a page still fits."""
MOST_ALTERNATIVES = 32
"""Each ``or`` costs a search of its own."""

_MOST_GROUPS = 6
"""Words that may be one number together."""

_PREFIX = re.compile(r"\s*[oOｏＯ][cCｃＣ][rRｒＲ]\s*[:：﹕︰]")
_TOKEN = re.compile(
    r"""(?P<minus>(?<!\S)[-－−﹣]+(?=\S))?
        (?: ["“”„‟＂](?P<straight>[^"“”„‟＂]*)["“”„‟＂]
          | 「(?P<corner>[^」]*)」 | 『(?P<white>[^』]*)』
          | (?P<plain>[^\s"“”„‟＂]+) )""",
    re.VERBOSE,
)
_OR = {"or", "|", "||", "或"}
_PART_OF_CODES = frozenset("#%&@*_")
"""Punctuation that is not stripped from the ends of a word."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """One side of an ``or``."""

    wanted: tuple[str, ...]
    """Folded, never empty: all of them must be in a text."""
    unwanted: tuple[str, ...] = ()
    """Folded: none of them may stand there by itself."""
    quoted: frozenset[str] = frozenset()
    """Those of ``wanted`` that must stand there by themselves, as they are."""


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """A query as it is searched for."""

    meaning: str
    """The text that CLIP embeds: as typed, without the prefix, quotation marks and what is not wanted. Valid UTF-8,
    no NUL.
    """
    alternatives: tuple[Alternative, ...]
    """A text matches if it matches one of these. At least one."""
    text_only: bool
    """The query began with ``ocr:``."""


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    quoted: bool
    unwanted: bool

    @property
    def is_or(self) -> bool:
        return not self.quoted and not self.unwanted and fold(self.text) in _OR


def parse(text: str) -> ParsedQuery:
    """Read a query as it was typed.

    Raises ``ServiceError`` INVALID_QUERY for a text that is too long, or that looks for nothing.
    """
    if len(text.strip()) > LONGEST_QUERY:
        raise ServiceError(
            ErrorCode.INVALID_QUERY,
            f"The query has {len(text.strip())} characters; the longest that is answered has {LONGEST_QUERY}.",
        )
    prefix = _PREFIX.match(text)
    rest = text[prefix.end() :] if prefix else text
    tokens = list(_tokens(rest))
    alternatives = tuple(_alternatives(tokens)) or tuple(
        _alternatives([_Token(rest, True, False)] if _only_ors(tokens) else [])
    )
    if not alternatives:
        raise ServiceError(
            ErrorCode.INVALID_QUERY,
            "The query has nothing to look for: it needs a word or a character that is not punctuation and is not "
            "excluded by a minus.",
        )
    if len(alternatives) > MOST_ALTERNATIVES:
        raise ServiceError(
            ErrorCode.INVALID_QUERY,
            f"The query has {len(alternatives)} alternatives (or, |, 或); at most {MOST_ALTERNATIVES} are answered.",
        )
    alternatives += tuple(_with_whole_numbers(alternatives))[: MOST_ALTERNATIVES - len(alternatives)]
    meaning = " ".join(token.text for token in tokens if not token.unwanted)
    encodable = meaning.replace("\0", " ").encode(errors="ignore").decode()
    return ParsedQuery(" ".join(encodable.split()), alternatives, prefix is not None)


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        quoted = next((found[name] for name in ("straight", "corner", "white") if found[name] is not None), None)
        token = _Token(quoted if quoted is not None else found["plain"], quoted is not None, found["minus"] is not None)
        if token.text.strip():
            yield token


def _only_ors(tokens: list[_Token]) -> bool:
    return bool(tokens) and all(token.is_or for token in tokens)


def _alternatives(tokens: list[_Token]) -> Iterator[Alternative]:
    wanted: dict[str, None] = {}
    unwanted: dict[str, None] = {}
    quoted: set[str] = set()
    for token in [*tokens, _Token("or", False, False)]:
        if token.is_or:
            if wanted:
                yield Alternative(tuple(wanted), tuple(unwanted), frozenset(quoted))
            wanted, unwanted, quoted = {}, {}, set()
        elif needle := _needle(token):
            (unwanted if token.unwanted else wanted)[needle] = None
            if token.quoted and not token.unwanted:
                quoted.add(needle)


def _with_whole_numbers(alternatives: tuple[Alternative, ...]) -> Iterator[Alternative]:
    """Yield those in which words beside each other are a number or a date together, with that in their place."""
    for alternative in alternatives:
        wanted = alternative.wanted
        for size in range(min(len(wanted), _MOST_GROUPS), 1, -1):
            for at in range(len(wanted) - size + 1):
                words = wanted[at : at + size]
                together = " ".join(words)
                if not alternative.quoted.intersection(words) and typed_forms(together).same:
                    yield replace(alternative, wanted=(*wanted[:at], together, *wanted[at + size :]))
                    break
            else:
                continue
            break


def _needle(token: _Token) -> str:
    folded = fold(token.text)
    if not any(_says_something(character) for character in folded):
        return ""
    if token.quoted:
        return folded
    start, end = 0, len(folded)
    while _is_edge(folded[start]):
        start += 1
    while _is_edge(folded[end - 1]):
        end -= 1
    return folded[start:end]


def _says_something(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character) in ("So", "Sc")


def _is_edge(character: str) -> bool:
    return unicodedata.category(character).startswith("P") and character not in _PART_OF_CODES
