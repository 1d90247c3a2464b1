"""A touch of another package's inside: what it gains, what it depends on, and whether this version still has that.

Every such touch is listed in docs/architecture.md and has a test in
tests/runners/bento that fails when an upgrade breaks it.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

log = logging.getLogger("service")


@dataclass(frozen=True)
class Borrowed:
    """One touch. It is made only where ``fits()`` is true."""

    name: str
    gain: str
    """The gain, with the command that shows it."""
    depends_on: str
    """The lines upstream that must stay as they are, or the issue that asks for a public way."""
    otherwise: str
    """The behaviour where it does not fit."""
    misfit: Callable[[], str | None]
    """Returns what is not as expected, or None."""

    def fits(self) -> bool:
        """Return whether the installed versions have what this depends on; log one line where they do not."""
        reason = self.misfit()
        if reason is not None:
            log.warning("Not used with these packages: %s (%s). Instead: %s.", self.name, reason, self.otherwise)
        return reason is None


def missing(owner: object, *paths: str) -> str | None:
    """Return which of the dotted ``paths`` ``owner`` does not have, in words, or None if it has all."""
    for path in paths:
        found: Any = owner
        for name in path.split("."):
            if not hasattr(found, name):
                return f"{getattr(owner, '__name__', owner)} has no {path}"
            found = getattr(found, name)
    return None


def lacking_parameters(function: Callable[..., Any], *names: str) -> str | None:
    """Return which of ``names`` is no parameter of ``function``, in words, or None if all are."""
    found = inspect.signature(function).parameters
    return next((f"{function.__qualname__} takes no {name}" for name in names if name not in found), None)


def other_version(distribution: str, at_least: str, below: str) -> str | None:
    """Return which version of ``distribution`` is installed unless it is from ``at_least`` up to ``below``, else None.

    Raises ``importlib.metadata.PackageNotFoundError`` where it is not installed.
    """
    installed = version(distribution)
    if _numbers(at_least) <= _numbers(installed) < _numbers(below):
        return None
    return f"{distribution} is {installed}, not from {at_least} up to {below}"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:3]))


def first(*reasons: str | None) -> str | None:
    """Return the first reason that is one."""
    return next((reason for reason in reasons if reason is not None), None)
