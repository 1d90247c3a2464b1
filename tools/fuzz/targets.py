"""The targets of fuzzing: each takes any bytes, and raises unless they are read or refused, in time and always alike.

Needs no fuzzer: the tests replay ``tests/seeds`` through these.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from compat.immich.entries import load_entries, parse_entries
from errors import ErrorCode, ServiceError
from models.catalog import load_catalog
from runners.pictures.header import read_header
from search.query.folding import fold_with_origins
from search.query.highlight import needles_of
from search.query.parse import parse
from search.query.words import words_query
from serving.multipart import FormParser, boundary_of
from settings import Settings

LONGEST = 0.05
"""Seconds of CPU that a call may take."""
_BOUNDARY = b"b"
_PARTS = {"entries": 1000, "text": 1000, "image": None}
_CATALOG = load_catalog()
_SETTINGS = Settings(_env_file=None)
_REFUSED_ENTRIES = (
    ErrorCode.INVALID_REQUEST,
    ErrorCode.UNKNOWN_TASK,
    ErrorCode.UNKNOWN_MODEL,
    ErrorCode.SIZE_MISMATCH,
    ErrorCode.MISSING_DETECTION,
)


class TooSlow(AssertionError):
    """A call took longer than it may."""


class ReadOtherwise(AssertionError):
    """The same bytes were read in two ways."""


def form(data: bytes) -> None:
    """Read a multipart body, whole and in pieces whose sizes its first bytes give: both must come to the same."""
    sizes, body = data[:8], data[8:]
    whole = _form([body])
    edges = sorted(min(size * (place + 1), len(body)) for place, size in enumerate(sizes))
    pieces = [body[start:end] for start, end in pairwise([0, *edges, len(body)])]
    if _form(pieces) != whole:
        raise ReadOtherwise(f"one piece: {whole!r}; pieces of {[len(piece) for piece in pieces]}: {_form(pieces)!r}")


def _form(pieces: Sequence[bytes]) -> dict[str, bytes] | ErrorCode:
    parser = FormParser(_BOUNDARY, _PARTS)
    try:
        for piece in pieces:
            parser.feed(piece)
        return parser.finish()
    except ServiceError as error:
        _expect(error, ErrorCode.INVALID_REQUEST, ErrorCode.BODY_TOO_LARGE)
        return error.code


def content_type(data: bytes) -> None:
    """Read a ``Content-Type``, which is Latin-1 by then."""
    _refusable(lambda: boundary_of(data.decode("latin-1")), ErrorCode.INVALID_REQUEST)


def entries(data: bytes) -> None:
    """Read the ``entries`` of a request, and find what they ask for."""
    _refusable(lambda: parse_entries(load_entries(data), _CATALOG, _SETTINGS), *_REFUSED_ENTRIES)


def query(data: bytes) -> None:
    """Read a query, cut it to words, and look for it in itself. Behind a byte of 255 it is UTF-16."""
    if data[:1] == b"\xff":
        text = data[1 : len(data) - (len(data) - 1) % 2].decode("utf-16-le", "surrogatepass")
    else:
        text = data.decode("utf-8", "replace")

    def read() -> None:
        parsed = parse(text)
        parsed.meaning.encode()
        needles = set(needles_of(parsed))
        for alternative in parsed.alternatives:
            words_query(alternative.wanted)
        spans = fold_with_origins(text).spans(needles)
        if any(not 0 <= start < end <= len(text) for start, end in spans):
            raise ReadOtherwise(f"{text!r} has {len(text)} characters, and what is marked in it are {spans}")

    _refusable(read, ErrorCode.INVALID_QUERY)


def header(data: bytes) -> None:
    """Read the header of a picture."""

    def read() -> None:
        found = read_header(data, max_pixels=100_000_000)
        if found.width * found.height > 100_000_000:
            raise ReadOtherwise(f"{found} has more pixels than are read")

    _refusable(read, ErrorCode.UNREADABLE_PICTURE, ErrorCode.PICTURE_TOO_LARGE)


@dataclass(frozen=True, slots=True)
class Target:
    """One function that reads bytes, and what a fuzzer has to know of it."""

    run: Callable[[bytes], None]
    longest_input: int
    """Bytes."""


TARGETS: Mapping[str, Target] = {
    "form": Target(form, 4096),
    "content_type": Target(content_type, 512),
    "entries": Target(entries, 2048),
    "query": Target(query, 2048),
    "header": Target(header, 8192),
}
"""By the names of their folders in ``tests/seeds``."""


def checked(target: Target, data: bytes) -> None:
    """Run ``target`` on ``data``. Raises what it raises, and ``TooSlow``.

    What seemed slow is tried three times more: the first call of anything may load what it needs.
    """
    taken = min(_seconds(target, data) for _ in range(3)) if _seconds(target, data) > LONGEST else 0.0
    if taken > LONGEST:
        raise TooSlow(f"{len(data)} bytes took {taken * 1000:.0f} ms of CPU; {LONGEST * 1000:.0f} are allowed")


def _seconds(target: Target, data: bytes) -> float:
    began = time.thread_time()
    target.run(data)
    return time.thread_time() - began


def _refusable(read: Callable[[], object], *codes: ErrorCode) -> None:
    try:
        read()
    except ServiceError as error:
        _expect(error, *codes)


def _expect(error: ServiceError, *codes: ErrorCode) -> None:
    if error.code not in codes:
        raise error
