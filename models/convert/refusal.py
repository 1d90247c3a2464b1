"""The error of a checkpoint that is not converted."""

from __future__ import annotations


class ConversionRefused(Exception):
    """The message says what is wrong with which input, and what to do."""
