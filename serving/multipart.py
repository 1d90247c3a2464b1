"""``multipart/form-data`` (RFC 7578, RFC 2046) to named parts, piece by piece as it comes, and bounded.

Our own parser and not python-multipart's: its releases read neither a preamble nor, on Python 3.10, blanks behind a
boundary (RFC 2046, 5.1.1), and hold a part twice when it ends. Whatever is sent, a piece of n bytes costs some searches
of n bytes in C and a bounded number of steps in Python.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header

from errors import ErrorCode, ServiceError

_MAX_PARTS = 32
_MAX_PART_HEADER = 8 * 1024
_MAX_PREAMBLE = 64 * 1024
_MAX_BLANKS = 256
"""Blanks behind a boundary."""
_MAX_BOUNDARY = 200
"""RFC 2046 allows 70."""


@dataclass(frozen=True, slots=True)
class Form:
    """The parts of a multipart body, by name; of several with one name the last."""

    parts: dict[str, bytes]


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a request's ``Content-Type`` names.

    Raises ``ServiceError`` INVALID_REQUEST where it is not ``multipart/form-data``, or names none.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise ServiceError(ErrorCode.INVALID_REQUEST, "The body must be multipart/form-data, with a boundary.")
    if len(boundary) > _MAX_BOUNDARY:
        raise ServiceError(ErrorCode.INVALID_REQUEST, f"The multipart boundary is longer than {_MAX_BOUNDARY} bytes.")
    return boundary


class FormParser:
    """Takes a body in pieces of any size; ``finish`` returns its parts.

    Each state looks for one thing in what has come and is not used yet, uses it, and names the next state.
    """

    def __init__(self, boundary: bytes, kept: Mapping[str, int | None]) -> None:
        """``kept``: names of the parts to keep, and the most bytes that each may have (None: any number)."""
        self._delimiter = b"\r\n--" + boundary
        self._kept = kept
        self._parts: dict[str, bytes] = {}
        self._count = 0
        self._name: str | None = None
        self._data = io.BytesIO()
        self._preamble = 0
        # A boundary begins a line; in front of the first line there is no line end.
        self._unused = b"\r\n"
        # A plain function: a bound method would make a cycle, and keep the picture until the next garbage collection.
        self._state: Callable[[FormParser], bool] = FormParser._in_preamble

    def feed(self, piece: bytes) -> None:
        """Take the next bytes. Raises ``ServiceError``: INVALID_REQUEST, and BODY_TOO_LARGE for a part."""
        if self._state is FormParser._at_end:  # an epilogue means nothing
            return
        self._unused += piece
        while self._state(self):
            pass

    def finish(self) -> dict[str, bytes]:
        """Return the parts. Raises ``ServiceError`` INVALID_REQUEST where the body was cut short."""
        if self._state is not FormParser._at_end:
            raise _invalid("ends before its closing boundary")
        return self._parts

    # Each state returns whether there is more to do now.

    def _in_preamble(self) -> bool:
        found, text = self._up_to_delimiter()
        self._preamble += len(text)
        if self._preamble > _MAX_PREAMBLE:
            raise _invalid(f"has no boundary in its first {_MAX_PREAMBLE:,} bytes")
        return found

    def _in_data(self) -> bool:
        found, data = self._up_to_delimiter()
        if self._name is not None:
            limit = self._kept[self._name]
            if limit is not None and self._data.tell() + len(data) > limit:
                raise ServiceError(
                    ErrorCode.BODY_TOO_LARGE,
                    f"The part `{self._name}` has more than the {limit:,} bytes that are read of it.",
                )
            self._data.write(data)
            if found:
                # Not a copy: BytesIO gives its buffer away where nobody else holds it.
                self._parts[self._name] = self._data.getvalue()
                self._data = io.BytesIO()
        return found

    def _up_to_delimiter(self) -> tuple[bool, memoryview]:
        """Use everything up to the delimiter, and that; without one, everything that cannot be the beginning of one."""
        unused = self._unused
        end = unused.find(self._delimiter)
        if end >= 0:
            self._unused = unused[end + len(self._delimiter) :]
            self._state = FormParser._behind_delimiter
            return True, memoryview(unused)[:end]
        safe = max(0, len(unused) - len(self._delimiter) + 1)
        start = unused.find(b"\r", safe)
        safe = len(unused) if start < 0 else start
        self._unused = unused[safe:]
        return False, memoryview(unused)[:safe]

    def _behind_delimiter(self) -> bool:
        if self._unused.startswith(b"--"):
            self._unused = b""
            self._state = FormParser._at_end
            return False
        line_end = self._unused.find(b"\r\n", 0, _MAX_BLANKS + 2)
        blanks = self._unused[:line_end] if line_end >= 0 else self._unused.removesuffix(b"\r")
        if line_end < 0 and blanks == b"-":
            return False
        if len(blanks) > _MAX_BLANKS or blanks.strip(b" \t"):
            raise _invalid("has something behind a boundary that is neither a line end nor `--`")
        if line_end < 0:
            return False
        self._unused = self._unused[line_end:]  # this line end is half of what ends an empty header
        self._count += 1
        if self._count > _MAX_PARTS:
            raise _invalid(f"has more than {_MAX_PARTS} parts")
        self._state = FormParser._in_header
        return True

    def _in_header(self) -> bool:
        end = self._unused.find(b"\r\n\r\n", 0, _MAX_PART_HEADER + 4)
        if end < 0:
            if len(self._unused) >= _MAX_PART_HEADER + 4:
                raise _invalid(f"has a part whose header has more than {_MAX_PART_HEADER:,} bytes")
            return False
        name = _name(self._unused[:end])
        self._name = name if name in self._kept else None
        self._unused = self._unused[end + 4 :]
        self._state = FormParser._in_data
        return True

    def _at_end(self) -> bool:
        return False


def _name(header: bytes) -> str | None:
    """Return the name that a part's ``Content-Disposition`` gives it, or None."""
    for line in header.split(b"\r\n"):
        field, colon, value = line.partition(b":")
        if line and not colon:
            raise _invalid("has a part with a header line without a colon")
        if field.strip().lower() == b"content-disposition":
            name = parse_options_header(value.strip())[1].get(b"name")
            return name.decode("utf-8", "replace") if name is not None else None
    return None


def _invalid(what: str) -> ServiceError:
    return ServiceError(ErrorCode.INVALID_REQUEST, f"The multipart body {what}.")
