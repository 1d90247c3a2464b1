"""The one form of numbers and dates, however they are written: one word for each, beside the words of the text.

=1280          a number without what stands between its digits
=20240305      a day, as a number of eight digits would be
=@0305         a day of any year
=@202403       a month of a year
~2450          the whole part of an amount that has decimals
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from search.query.dates import Date, dates, typed_dates
from search.query.numbers import numbers, typed_number


@dataclass(frozen=True, slots=True)
class Form:
    """A number or date in a line: the word that it is looked up by, and where it stands."""

    word: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TypedForms:
    """The words that find a typed number or date. Both are empty for other text."""

    same: tuple[str, ...] = ()
    """Of texts that have the very number."""
    near: tuple[str, ...] = ()
    """Of texts that have an amount with other decimals."""


def forms(folded: str) -> Iterator[Form]:
    """Yield the forms of a folded line."""
    if not any(map(str.isdigit, folded)) and "月" not in folded:
        return
    for number in numbers(folded):
        yield Form(("=" if number.kind == "value" else "~") + number.digits, number.start, number.end)
    for date in dates(folded):
        for word in _words(date):
            yield Form(word, date.start, date.end)


def forms_of_lines(folded: Iterable[str]) -> list[str]:
    """Return the words of all forms of folded lines, each once."""
    return list(dict.fromkeys(form.word for line in folded for form in forms(line)))


def typed_forms(folded: str) -> TypedForms:
    """Return the words that find what was typed, folded.

    >>> typed_forms("1,280.00")
    TypedForms(same=('=1280', '1280'), near=('~1280',))
    """
    if not any(map(str.isdigit, folded)) and "月" not in folded:
        return TypedForms()
    typed = typed_dates(folded)
    whole_days = [date for date in typed if date.year is not None and date.day is not None]
    words = [_words(date)[0] for date in whole_days or typed]
    values, wholes = typed_number(folded)
    for value in values:
        words += [f"={value}", value]
    return TypedForms(tuple(dict.fromkeys(words)), tuple(f"~{whole}" for whole in wholes))


def _words(date: Date) -> tuple[str, ...]:
    """Return the words of a date, the most exact first."""
    month_and_day = () if date.day is None else (f"=@{date.month:02}{date.day:02}",)
    if date.year is None:
        return month_and_day
    year_and_month = f"=@{date.year:04}{date.month:02}"
    if date.day is None:
        return (year_and_month,)
    return (f"={date.year:04}{date.month:02}{date.day:02}", *month_and_day, year_and_month)
