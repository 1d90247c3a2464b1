"""One handler, one line per event, in the shape that LOG_FORMAT asks for."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import logs
from settings import Settings

LIBRARIES = ("bentoml", "bentoml.server", "circus", "uvicorn", "uvicorn.error", "rapidocr", "RapidOCR")

Configure = Callable[..., io.StringIO]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    """Configure logging and yield what is written from then on; everything is as before afterwards."""
    loggers = [logging.getLogger(name) for name in ("", *LIBRARIES, *logs.OURS)]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]

    def configured(**changes: Any) -> io.StringIO:
        written = io.StringIO()
        monkeypatch.setattr(sys, "stdout", written)
        logs.configure(Settings(_env_file=None, **changes))
        return written

    yield configured
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_every_part_that_logs_is_heard() -> None:
    root = Path(logs.__file__).parent
    modules = [
        *root.glob("*.py"),
        *(path for package in root.iterdir() if (package / "__init__.py").exists() for path in package.rglob("*.py")),
    ]
    loud = {
        path.relative_to(root).parts[0].removesuffix(".py")
        for path in modules
        if "getLogger(__name__)" in path.read_text("utf-8")
    }
    assert loud - {"tests", "tools"} <= set(logs.OURS)


def test_loggers_that_bentoml_silenced_as_it_found_them_are_heard(configure: Configure) -> None:
    ours = logging.getLogger("runners.of_a_test")
    ours.disabled = True
    written = configure()
    ours.info("heard")
    assert "heard" in written.getvalue()


def test_text_is_time_level_logger_message_and_fields_on_one_line(configure: Configure) -> None:
    written = configure(log_format="text")
    logging.getLogger("compat.immich.api").info("POST /predict", extra={"fields": {"status": 200, "task": "ocr"}})
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO  compat\.immich\.api: POST /predict status=200 task=ocr\n",
        written.getvalue(),
    )


def test_json_is_one_object_a_line_with_the_fields_beside_the_message(configure: Configure) -> None:
    written = configure(log_format="json")
    logging.getLogger("runners.ocr").warning("坏 %s\nsecond", "图", extra={"fields": {"status": 415, "ms": 1.5}})
    logging.getLogger("service").info("next")
    first, second = (json.loads(line) for line in written.getvalue().splitlines())
    assert re.match(r"\d{4}-\d\d-\d\d ", first.pop("time"))
    assert first == {"level": "WARNING", "logger": "runners.ocr", "message": "坏 图\nsecond", "status": 415, "ms": 1.5}
    assert second["message"] == "next"
    assert "坏" in written.getvalue()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exception_is_told_with_its_traceback(configure: Configure, log_format: str) -> None:
    written = configure(log_format=log_format)
    try:
        raise ZeroDivisionError("so far")
    except ZeroDivisionError:
        logging.getLogger("runners").exception("It failed", extra={"fields": {"model": "RN50"}})
    text = written.getvalue()
    if log_format == "json":
        event = json.loads(text)
        assert (event["message"], event["model"]) == ("It failed", "RN50")
        text = event["exc_info"]
    assert "Traceback" in text
    assert "ZeroDivisionError: so far" in text


def test_what_comes_from_outside_cannot_write_a_line_of_its_own(configure: Configure) -> None:
    written = configure(log_format="text")
    forged = "x\r\n2026-01-01 00:00:00 INFO  service: all is well"
    logging.getLogger("compat").warning("No model %s", forged, extra={"fields": {"detail": forged}})
    assert len(written.getvalue().splitlines()) == 1
    assert r"x\r\n2026" in written.getvalue()


@given(st.dictionaries(st.sampled_from(["request_id", "detail", "model"]), st.text(max_size=40), min_size=1))
@example({"request_id": "x status=200 task=ocr", "detail": 'a "b" c'})
@example({"detail": "\u2028\x85\x1b[31m\u202e"})
def test_no_value_can_pass_for_another_field(fields: dict[str, str]) -> None:
    record = logging.LogRecord("serving", logging.INFO, "", 0, "POST /predict", None, None)
    record.fields = fields
    line = logs.TextFormatter().format(record)
    assert line.isprintable()
    rest = line.partition("POST /predict")[2]
    read = {}
    while rest:
        key, _, rest = rest.removeprefix(" ").partition("=")
        quoted = re.match(r'"(?:[^"\\]|\\.)*"', rest)
        value = quoted.group() if quoted else rest.partition(" ")[0]
        read[key], rest = value, rest[len(value) :]
    assert list(read) == list(fields)


def test_fields_that_json_does_not_know_do_not_lose_the_line(configure: Configure) -> None:
    written = configure(log_format="json")
    logging.getLogger("service").info(
        "odd", extra={"fields": {"object": object(), "error": ValueError("v"), "bytes": b"\xff"}}
    )
    assert json.loads(written.getvalue())["message"] == "odd"


@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_write_once_through_the_same_handler(configure: Configure, name: str) -> None:
    theirs = io.StringIO()
    library = logging.getLogger(name.partition(".")[0])
    library.addHandler(logging.StreamHandler(theirs))
    library.propagate = False
    written = configure(log_format="json")
    logging.getLogger(name).error("from a library")
    assert theirs.getvalue() == ""
    assert [json.loads(line)["logger"] for line in written.getvalue().splitlines()] == [name]


def test_configuring_twice_does_not_write_twice(configure: Configure) -> None:
    configure()
    written = configure()
    logging.getLogger("service").info("once")
    assert written.getvalue().count("once") == 1


@pytest.mark.parametrize(
    ("log_level", "ours", "libraries"),
    [
        ("verbose", logging.DEBUG, logging.WARNING),
        ("debug", logging.DEBUG, logging.WARNING),
        ("log", logging.INFO, logging.WARNING),
        ("warn", logging.WARNING, logging.WARNING),
        ("error", logging.ERROR, logging.ERROR),
        ("fatal", logging.CRITICAL, logging.CRITICAL),
    ],
)
def test_the_level_is_ours_and_libraries_only_warn(
    configure: Configure, log_level: str, ours: int, libraries: int
) -> None:
    configure(log_level=log_level)
    for name in ("compat.immich.api", "models.download", "runners.runner", "service"):
        assert logging.getLogger(name).getEffectiveLevel() == ours
    assert logging.getLogger("uvicorn.error").getEffectiveLevel() == libraries
    assert logging.getLogger("circus").getEffectiveLevel() == libraries
