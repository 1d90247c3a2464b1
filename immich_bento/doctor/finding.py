"""Findings of checks: the lines of the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum


class Level(str, Enum):
    """The weight of a finding."""

    GOOD = "good"
    SKIPPED = "skipped"
    """Not in use here, or not to be checked from here."""
    WARNING = "warning"
    WRONG = "wrong"
    """Something that is asked for does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. Holds no secret: reports are pasted into issues."""

    level: Level
    subject: str
    """The thing that was looked at: ``disk``, ``model ViT-B-16``."""
    detail: str
    """The finding itself, as a sentence or a list of facts."""
    todo: str = ""
    """The remedy, as a sentence or a command; empty where nothing is to be done."""

    def as_dict(self) -> dict[str, str]:
        """Return it for JSON."""
        return {**asdict(self), "level": self.level.value}


def good(subject: str, detail: str) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(Level.GOOD, subject, detail)


def skipped(subject: str, detail: str, todo: str = "") -> Finding:
    """Return that ``subject`` was not looked at. ``todo``: how to have it looked at."""
    return Finding(Level.SKIPPED, subject, detail, todo)


def warning(subject: str, detail: str, todo: str) -> Finding:
    """Return something that works, but not as well as it could."""
    return Finding(Level.WARNING, subject, detail, todo)


def wrong(subject: str, detail: str, todo: str) -> Finding:
    """Return something that does not work."""
    return Finding(Level.WRONG, subject, detail, todo)
