"""The log of this service: one line per event, as text or as JSON, from every process alike; and how its commands do.

A leaf: anything may import it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pythonjsonlogger.json import JsonFormatter

from settings import Settings

_LEVELS = {
    "verbose": logging.DEBUG,
    "debug": logging.DEBUG,
    "log": logging.INFO,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "critical": logging.CRITICAL,
}
OURS = ("compat", "models", "runners", "search", "service", "serving", "web")
"""Loggers of this service: its packages, and modules of its own."""
_WORD = re.compile(r"""[^\s"'=\\]+""")
"""Values of fields that need no quotes."""


class TextFormatter(logging.Formatter):
    """``2026-01-31 12:00:00 INFO  runners.runner: …``, then the event's own fields as ``key=value``.

    A value with blanks, quotes or ``=`` in it is written as a JSON string.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-5s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        fields = getattr(record, "fields", None)
        line += "".join(f" {key}={_field(value)}" for key, value in fields.items()) if fields else ""
        # What came from outside could otherwise pass for a line of its own. Tracebacks come later, on lines of theirs.
        return _on_one_line(line)


def _field(value: object) -> str:
    """Return ``value`` as one word, or in quotes, so that it cannot pass for another field."""
    text = str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _on_one_line(text: str) -> str:
    """Return ``text`` with every character that is not printed (line ends, terminal and direction controls) escaped."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class FieldsJsonFormatter(JsonFormatter):
    """One JSON object per line; the event's own fields beside time, level, logger and message."""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            json_ensure_ascii=False,
        )

    def process_log_record(self, log_data: dict[str, object]) -> dict[str, object]:
        fields = log_data.pop("fields", None)
        return {**log_data, **fields} if isinstance(fields, dict) else log_data


def configure(settings: Settings) -> None:
    """Send everything that this process logs through one handler to standard output."""
    level = _LEVELS[settings.log_level]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(FieldsJsonFormatter() if settings.log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING) if level > logging.DEBUG else level)
    for known in logging.root.manager.loggerDict.values():
        if isinstance(known, logging.Logger):
            known.disabled = (
                False  # BentoML silences those that it finds: in a forked process, all that the watcher had
            )
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    # Libraries that bring handlers of their own: one line, one shape.
    for name in ("bentoml", "circus", "uvicorn", "uvicorn.error", "rapidocr", "RapidOCR"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(max(level, logging.WARNING))


@contextmanager
def on_standard_error(*names: str, level: int = logging.INFO) -> Iterator[None]:
    """Have the loggers ``names`` write messages of ``level`` and above to standard error for the length of the block.

    Commands tell what they do that way: without time, level or logger.
    """
    loggers, handler = [logging.getLogger(name) for name in names], logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, (was, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate
            logger.setLevel(was)
