"""Bytes of any kind at what reads them first: each is read or refused, never an error of ours, and never for long.

The fast suite has a bounded number of examples; the slow one fifty times as many.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import logs
from compat.immich.entries import load_entries, parse_entries
from errors import ErrorCode, ServiceError
from models.catalog import load_catalog
from serving.multipart import FormParser, boundary_of
from settings import Settings
from tools.harness.immich_client import BOUNDARY

CATALOG = load_catalog()
SETTINGS = Settings(_env_file=None)
FEW, MANY = 150, 7500
LONGEST = 0.5
"""Seconds. Far above what any example takes, since tests share their machine."""

pieces_of_forms = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"--" + BOUNDARY.encode(),
                b"--",
                b"\r\n",
                b"\r",
                b"\n",
                b" \t",
                b'Content-Disposition: form-data; name="image"',
                b"Content-Disposition: form-data; name=",
                b'"',
                b":",
                b";",
            ]
        ),
        st.binary(max_size=40),
    ),
    max_size=60,
).map(b"".join)

pieces_of_types = st.lists(
    st.sampled_from(["multipart/form-data", ";", "boundary=", '"', "\\", "a", " "])
    | st.text(st.characters(max_codepoint=255), max_size=5)
)
"""Headers are Latin-1 by the time that they are read."""
numbers = st.integers() | st.floats() | st.booleans() | st.none()
NAMES = [
    "clip",
    "facial-recognition",
    "ocr",
    "visual",
    "textual",
    "detection",
    "recognition",
    "modelName",
    "options",
    "minScore",
    "maxResolution",
    "language",
    "ViT-B-32__openai",
    "buffalo_s",
    "PP-OCRv6_small",
]
words = st.sampled_from(NAMES) | st.text(max_size=8)
entries = st.recursive(
    numbers | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)


def cut(body: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(min(one, len(body)) for one in cuts), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


def read_form(body: bytes, cuts: Sequence[int]) -> None:
    parser = FormParser(BOUNDARY.encode(), {"image": None, "entries": 100})
    for piece in cut(body, cuts):
        parser.feed(piece)
    assert sum(map(len, parser.finish().values())) <= len(body)


def timed(work: Callable[[], object], *codes: ErrorCode) -> None:
    """Run ``work``, which may raise ``ServiceError`` of one of ``codes`` and nothing else."""
    began = time.thread_time()
    try:
        work()
    except ServiceError as error:
        assert error.code in codes  # noqa: PT017 - what is accepted is fine too
    assert time.thread_time() - began < LONGEST


def fuzz(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


REFUSED = (
    ErrorCode.INVALID_REQUEST,
    ErrorCode.UNKNOWN_TASK,
    ErrorCode.UNKNOWN_MODEL,
    ErrorCode.SIZE_MISMATCH,
    ErrorCode.MISSING_DETECTION,
)


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_any_multipart_body_is_read_or_refused(examples: int) -> None:
    @fuzz(examples)
    @given(pieces_of_forms, st.lists(st.integers(0, 2500), max_size=30))
    def check(body: bytes, cuts: list[int]) -> None:
        timed(lambda: read_form(body, cuts), ErrorCode.INVALID_REQUEST, ErrorCode.BODY_TOO_LARGE)

    check()


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_any_content_type_is_read_or_refused(examples: int) -> None:
    @fuzz(examples)
    @given(pieces_of_types)
    def check(words: list[str]) -> None:
        timed(lambda: boundary_of("".join(words)), ErrorCode.INVALID_REQUEST)

    check()


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_any_entries_are_understood_or_refused(examples: int) -> None:
    @fuzz(examples)
    @given(entries | st.dictionaries(words, entries, max_size=3))
    def check(value: Any) -> None:
        text = json.dumps(value).encode()
        timed(lambda: parse_entries(load_entries(text), CATALOG, SETTINGS), *REFUSED)

    check()


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_any_bytes_as_entries_are_understood_or_refused(examples: int) -> None:
    @fuzz(examples)
    @given(st.binary(max_size=200) | st.text(alphabet='{}[]":,0123456789.eE+-tfn \\u', max_size=200).map(str.encode))
    def check(text: bytes) -> None:
        timed(lambda: parse_entries(load_entries(text), CATALOG, SETTINGS), *REFUSED)

    check()


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_any_fields_make_one_printable_log_line(examples: int) -> None:
    @fuzz(examples)
    @given(st.text(max_size=50), st.dictionaries(st.sampled_from("abc"), numbers | st.text(max_size=50) | st.binary()))
    def check(message: str, fields: dict[str, Any]) -> None:
        record = logging.LogRecord("serving", logging.INFO, "", 0, "%s", (message,), None)
        record.fields = fields
        assert logs.TextFormatter().format(record).isprintable()
        assert "\n" not in logs.FieldsJsonFormatter().format(record)

    check()
