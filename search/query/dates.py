"""Dates as they are compared, however they are written: 2024年3月5日, 2024-03-05, 05/03/2024, 20240305, 5 March 2024,
令和6年3月5日, 二〇二四年三月五日.

Everything here takes folded text of one line. 05/03/2024 is read both ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_DIGITS = dict(zip("〇零一二三四五六七八九", "00123456789", strict=True))
_ERAS = {"令和": 2018, "平成": 1988, "昭和": 1925, "民国": 1911}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\.?"
)
_NUMERALS = re.compile(r"[〇零一二三四五六七八九十]+(?= ?[年月日号])")
_CHINESE = re.compile(
    r"(?:(?P<era>令和|平成|昭和|民国) ?(?P<of_era>\d{1,3}|元)|(?<!\d)(?P<year>\d{4}|\d{2})) ?年 ?(?P<month>\d{1,2}) ?月"
    r"(?: ?(?P<day>\d{1,2}) ?(?:[日号]|(?![\d.])))?"
)
_MONTH_AND_DAY = re.compile(r"(?<![\d年])(?<!年 )(?P<month>\d{1,2}) ?月 ?(?P<day>\d{1,2}) ?[日号]")
_YEAR_FIRST = re.compile(
    r"(?<!\d)(?P<year>\d{4}|\d{2})(?P<separator> ?[-./] ?)(?P<month>\d{1,2})(?P=separator)(?P<day>\d{1,2})(?![\d])"
)
_YEAR_LAST = re.compile(
    r"(?<!\d)(?P<one>\d{1,2})(?P<separator> ?[-./] ?)(?P<other>\d{1,2})(?P=separator)(?P<year>\d{4}|\d{2})(?!\d)"
)
_COMPACT = re.compile(r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<month>\d\d)(?P<day>\d\d)(?!\d)")
_YEAR_AND_MONTH = re.compile(r"(?<![\d./-])(?P<year>(?:19|20)\d\d)[-./](?P<month>\d{1,2})(?![\d./-])")
_DAY_MONTH = re.compile(
    rf"(?<!\d)(?P<day>\d{{1,2}})(?:st|nd|rd|th)?[ .-]*(?:of )?{_MONTH}(?![a-z])(?:,?[ -]*(?P<year>\d{{4}}))?"
)
_MONTH_DAY = re.compile(rf"(?<![a-z]){_MONTH} ?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?!\d)(?:,? ?(?P<year>\d{{4}}))?")
_MONTH_YEAR = re.compile(rf"(?<![a-z]){_MONTH},? ?(?P<year>(?:19|20)\d\d)(?!\d)")


@dataclass(frozen=True, slots=True)
class Date:
    """A date that stands in a text: a day, a day of any year, or a month of a year."""

    year: int | None
    month: int
    day: int | None
    start: int
    end: int


def dates(folded: str) -> Iterator[Date]:
    """Yield the dates of a line, each in all ways that it may be read."""
    text, origins = _with_digits(folded)
    for date in _written(text):
        if _exists(date):
            yield Date(date.year, date.month, date.day, origins[date.start], origins[date.end - 1] + 1)


def typed_dates(folded: str) -> list[Date]:
    """Return the dates that a whole query may be."""
    return [date for date in dates(folded) if (date.start, date.end) == (0, len(folded))]


def _with_digits(folded: str) -> tuple[str, list[int]]:
    """Return the text with Chinese numerals of dates as digits, and where each of its characters comes from."""
    text, origins, at = "", [], 0
    for found in _NUMERALS.finditer(folded):
        digits = _number(found[0])
        text += folded[at : found.start()] + digits
        origins += [*range(at, found.start()), *[found.start()] * (len(digits) - 1), found.end() - 1]
        at = found.end()
    return text + folded[at:], [*origins, *range(at, len(folded))]


def _number(numerals: str) -> str:
    """Return 二〇二四 as 2024, and 二十三 as 23."""
    if "十" not in numerals:
        return "".join(_DIGITS[numeral] for numeral in numerals)
    tens, _, ones = numerals.partition("十")
    return str(int(_DIGITS.get(tens, "1")) * 10 + int(_DIGITS.get(ones, "0")))


def _written(text: str) -> Iterator[Date]:
    for found in _CHINESE.finditer(text):
        day = int(found["day"]) if found["day"] else None
        if found["era"]:
            year = _ERAS[found["era"]] + (1 if found["of_era"] == "元" else int(found["of_era"]))
        else:
            year = _full_year(found["year"])
        yield Date(year, int(found["month"]), day, *found.span())
    for found in _MONTH_AND_DAY.finditer(text):
        yield Date(None, int(found["month"]), int(found["day"]), *found.span())
    for pattern in (_YEAR_FIRST, _COMPACT):
        for found in pattern.finditer(text):
            yield Date(_full_year(found["year"]), int(found["month"]), int(found["day"]), *found.span())
    for found in _YEAR_LAST.finditer(text):
        one, other, year = int(found["one"]), int(found["other"]), _full_year(found["year"])
        yield Date(year, other, one, *found.span())
        if "." not in found["separator"]:
            yield Date(year, one, other, *found.span())
    for found in _YEAR_AND_MONTH.finditer(text):
        yield Date(int(found["year"]), int(found["month"]), None, *found.span())
    yield from _with_names(text)


def _with_names(text: str) -> Iterator[Date]:
    if not any(month in text for month in _MONTHS):
        return
    for pattern in (_DAY_MONTH, _MONTH_DAY, _MONTH_YEAR):
        for found in pattern.finditer(text):
            named = found.groupdict()
            year, day = named.get("year"), named.get("day")
            month = _MONTHS.index(found["month"][:3]) + 1
            yield Date(int(year) if year else None, month, int(day) if day else None, *found.span())


def _full_year(digits: str) -> int:
    return int(digits) if len(digits) == 4 else 2000 + int(digits)


def _exists(date: Date) -> bool:
    in_year = date.year is None or 1800 <= date.year <= 2199
    return in_year and 1 <= date.month <= 12 and (date.day is None or 1 <= date.day <= 31)
