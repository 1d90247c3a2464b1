"""Measured figures beside the targets that the project set itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tools.bench.report import Table


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure and its target."""

    what: str
    value: float
    target: str
    met: bool
    """False for NaN."""


def at_least(what: str, value: float, limit: float) -> Verdict:
    return Verdict(what, value, f"at least {limit:g}", value >= limit)


def at_most(what: str, value: float, limit: float) -> Verdict:
    return Verdict(what, value, f"at most {limit:g}", value <= limit)


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Return the figures beside their targets, and whether each is met."""
    rows = tuple((one.what, one.value, one.target, "yes" if one.met else "NO") for one in verdicts)
    return Table("Targets", ("", "found", "target", "met"), rows)
