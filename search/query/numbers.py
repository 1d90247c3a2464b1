"""Numbers as they are compared, whatever stands between their digits: amounts, and numbers in groups (telephones,
cards, accounts, orders, plates).

Everything here takes folded text of one line, so that numbers never run over the border of a cell.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Number:
    """A number that stands in a text."""

    kind: Literal["value", "whole"]
    """``value``: all of it. ``whole``: an amount without its decimals, which are not zero."""
    digits: str
    """Without separators: ``1280``, ``2450.5``, ``13912348877``."""
    start: int
    end: int


_AMOUNT = re.compile(
    r"""(?<!\d)(?<!\d[.,'])
        (?P<whole>[1-9]\d{0,2}(?P<separator>[,.' ])\d{3}(?:(?P=separator)\d{3})*
                | [1-9]\d?(?:,\d{2})+,\d{3}
                | \d+)
        (?:(?P<point>[.,])(?P<decimals>\d{1,6}))?
        (?!\d)(?![.,']\d)""",
    re.VERBOSE,
)
_TYPED_AMOUNT = re.compile(
    r"(?:[a-z]{0,3}[¥$€£₩]|rmb|cny|usd|eur|gbp|hkd|jpy)? ?([\d.,' ]+?[万亿]?)"
    r" ?(?:元|圆|块|円|rmb|cny|usd|eur|[¥$€£₩])?整?"
)

_SCALED = re.compile(r"(?<![\d.,万亿])(\d{1,3}(?:,\d{3})+|\d{1,7})(?:\.(\d{1,8}))? ?([万亿])(?![\d万亿]| \d)")
"""``12.8万``: ten thousands, or hundreds of millions. Not ``1亿2000万``, which is read in neither part."""
_SCALED_BY = {"万": 4, "亿": 8}

_GROUPS = re.compile(r"[0-9a-z]+(?:(?: ?[-./·_] ?|\) ?-?| \(?|\()[0-9a-z]+)+")
_GROUP = re.compile(r"[0-9a-z]+")
_ADDRESS = re.compile(r"(?<![0-9a-z:])[0-9a-f]{2}(?::[0-9a-f]{2}){5}(?![0-9a-z:])")
"""Of a network card."""
_SHORTEST_ABROAD = 9
"""Digits of a telephone number that begins with 0, which is left out behind a country code."""
_MOST_GROUPS = 8
_MOST_NUMBERS = 60
"""Of one run of groups: a page of figures in one line is no number."""
_LONGEST = 40
_SHORTEST = 6
"""Digits of a number in groups without letters: shorter ones are ranges, ratios and scores."""
_SHORTEST_APART = 7
"""The same where the groups stand apart by blanks: a local telephone number. Two prices beside each other are mostly
shorter.
"""


def numbers(folded: str) -> Iterator[Number]:
    """Yield the numbers of a line that have anything between their digits, each in all ways that it may be read."""
    yield from _amounts(folded)
    for found in _SCALED.finditer(folded):
        yield Number("value", _scaled(found), *found.span())
    for run in _GROUPS.finditer(folded):
        yield from _grouped(run)
    for address in _ADDRESS.finditer(folded):
        yield Number("value", address[0].replace(":", ""), *address.span())


def typed_number(folded: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what a whole query may be as a number: its digits in each reading, and the whole part where it has no
    decimals. Both are empty for what is no number.

    >>> typed_number("¥1,280.00")
    (('1280',), ('1280',))
    """
    amount = _TYPED_AMOUNT.fullmatch(folded)
    values = dict.fromkeys(number for number, _ in _readings(amount[1])) if amount else {}
    if amount and (scaled := _SCALED.fullmatch(amount[1])):
        values[_scaled(scaled)] = None
    wholes = tuple(number for number in values if "." not in number)
    values.update(dict.fromkeys(_joined(folded)))
    return tuple(values), wholes


def _amounts(folded: str) -> Iterator[Number]:
    for found in _AMOUNT.finditer(folded):
        if found["separator"] is None and found["point"] is None and "," not in found["whole"]:
            continue  # it is a word as it is
        for number, whole in _of_amount(found):
            yield Number("value", number, *found.span())
            if whole is not None:
                yield Number("whole", whole, *found.span())
        if found["separator"] == " ":  # or a quantity and an amount
            at = found.start()
            for piece in found[0].split(" "):
                for number, whole in _readings(piece) if not piece.isdigit() else ():
                    yield Number("value", number, at, at + len(piece))
                    if whole is not None:
                        yield Number("whole", whole, at, at + len(piece))
                at += len(piece) + 1


def _scaled(found: re.Match[str]) -> str:
    """Return the digits of ``_SCALED``: ``128000`` for ``12.8万``, ``1.23456`` for ``0.000123456万``."""
    whole, decimals, places = found[1].replace(",", ""), found[2] or "", _SCALED_BY[found[3]]
    moved = decimals.ljust(places, "0")
    left = moved[places:].rstrip("0")
    digits = (whole + moved[:places]).lstrip("0") or "0"
    return f"{digits}.{left}" if left else digits


def _readings(text: str) -> Iterator[tuple[str, str | None]]:
    found = _AMOUNT.fullmatch(text)
    if found:
        yield from _of_amount(found)


def _of_amount(found: re.Match[str]) -> Iterator[tuple[str, str | None]]:
    """Yield digits, and the whole part where there are decimals that are not zero."""
    whole, decimals = re.sub(r"\D", "", found["whole"]), (found["decimals"] or "").rstrip("0")
    whole = whole.lstrip("0") or "0"
    yield (f"{whole}.{decimals}", whole if whole != "0" else None) if decimals else (whole, None)
    parts = found["whole"].split(".")
    if found["point"] is None and len(parts) == 2:  # 1.280 is 1280 in German, and one and a bit in English
        decimals = parts[1].rstrip("0")
        yield (f"{parts[0]}.{decimals}", parts[0]) if decimals else (parts[0], None)


def _grouped(run: re.Match[str]) -> Iterator[Number]:
    groups = list(_GROUP.finditer(run[0]))
    between = [run[0][one.end() : other.start()] for one, other in itertools.pairwise(groups)]
    made = 0
    for first in range(len(groups)):
        for last in range(first + 1, min(len(groups), first + _MOST_GROUPS)):
            texts = [group[0] for group in groups[first : last + 1]]
            if _is_one_number(texts, between[first:last]) and made < _MOST_NUMBERS:
                made += 1
                start, end = run.start() + groups[first].start(), run.start() + groups[last].end()
                yield Number("value", "".join(texts), start, end)


def _is_one_number(groups: list[str], between: list[str]) -> bool:
    joined = "".join(groups)
    letters = [group for group in groups if group.isalpha()]
    if len(joined) > _LONGEST or len(letters) == len(groups) or any(len(group) > 4 for group in letters):
        return False
    dots = sum("." in separator for separator in between)
    if dots == 1 and not letters:
        return False  # a decimal point
    if all(" " not in separator and "(" not in separator and ")" not in separator for separator in between):
        return len(joined) >= (_SHORTEST if joined.isdigit() else 3)
    if dots:
        return False  # amounts beside each other
    if letters:  # CA 1234, SF 1234 5678 9012: letters, then their number
        if letters != groups[:1] or len(groups[0]) > 3:
            return False
        figures = "".join(groups[1:])
        return len(joined) >= 4 if len(groups) == 2 else figures.isdigit() and len(figures) >= _SHORTEST_APART
    return len(joined) >= _SHORTEST_APART


def _joined(folded: str) -> Iterator[str]:
    """Yield a typed number without separators, without the country code that a plus announces, and with and without
    the 0 that stands in place of one.
    """
    international = folded.startswith("+") or folded.startswith("00")
    if _ADDRESS.fullmatch(folded):
        yield folded.replace(":", "")
        return
    text = folded.lstrip("+(").rstrip(")")
    if not (_GROUPS.fullmatch(text) or _GROUP.fullmatch(text)):
        return
    groups = list(_GROUP.finditer(text))
    between = [text[one.end() : other.start()] for one, other in itertools.pairwise(groups)]
    joined = "".join(group[0] for group in groups)
    if between and not _is_one_number([group[0] for group in groups], between):
        return
    if len(joined) < 3 or len(joined) > _LONGEST or joined.isalpha():
        return
    yield joined
    if international:
        digits = joined.lstrip("0")
        for code in range(1, 4):
            if len(digits) - code >= _SHORTEST_APART:
                yield digits[code:]
                yield "0" + digits[code:]  # as it is dialled at home
    elif joined.isdigit() and joined[0] == "0" and len(joined) >= _SHORTEST_ABROAD:
        yield joined[1:]  # as it stands behind a country code
