"""Multipart bodies: the same parts however they are cut, what RFC 2046 allows, and what is refused."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from email.parser import BytesParser
from email.policy import HTTP
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from errors import ErrorCode, ServiceError
from serving.multipart import FormParser, boundary_of
from tools.harness.immich_client import BOUNDARY, HEADERS, multipart

KEPT: Mapping[str, int | None] = {"entries": 64 * 1024, "text": 64 * 1024, "image": None}
MARK = b"--" + BOUNDARY.encode()


def parse(pieces: Sequence[bytes], kept: Mapping[str, int | None] = KEPT, boundary: str = BOUNDARY) -> dict[str, bytes]:
    parser = FormParser(boundary.encode(), kept)
    for piece in pieces:
        parser.feed(piece)
    return parser.finish()


def cut(body: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(min(one, len(body)) for one in cuts), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


def part(name: str, value: bytes) -> bytes:
    return b'\r\nContent-Disposition: form-data; name="' + name.encode() + b'"\r\n\r\n' + value + b"\r\n"


@given(image=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 2500), max_size=20))
@example(image=b"\r\n" * 50, cuts=list(range(700)))
@example(image=(b"\r\n--" + BOUNDARY.encode()[:-1]) * 20, cuts=list(range(1500)))
def test_a_body_is_the_same_however_it_is_cut(image: bytes, cuts: list[int]) -> None:
    body = multipart({"a": "é"}, image=image)
    assert parse(cut(body, cuts)) == {"entries": b'{"a":"\\u00e9"}', "image": image}


bodies = st.dictionaries(st.sampled_from(["entries", "image", "text"]), st.binary(max_size=300), min_size=1)


@given(
    parts=bodies,
    preamble=st.binary(max_size=100),
    blanks=st.text(" \t", max_size=5),
    cuts=st.lists(st.integers(0, 2000)),
)
def test_the_parts_are_those_that_the_standard_library_reads(
    parts: dict[str, bytes], preamble: bytes, blanks: str, cuts: list[int]
) -> None:
    line = MARK + blanks.encode()
    body = (preamble + b"\r\n" if preamble else b"") + b"".join(line + part(*one) for one in parts.items())
    body += MARK + b"--" + blanks.encode() + b"\r\nepilogue"
    if MARK in preamble or any(MARK in value for value in parts.values()):
        return
    head = f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(
        head + b"".join(MARK + part(*one) for one in parts.items()) + MARK + b"--"
    )
    by_library = {str(one.get_param("name", header="content-disposition")) for one in message.iter_parts()}
    assert parse(cut(body, cuts)) == parts
    assert by_library == parts.keys()


@given(rubbish=st.binary(max_size=600), cuts=st.lists(st.integers(0, 700), max_size=10))
def test_rubbish_is_a_422_and_nothing_else(rubbish: bytes, cuts: list[int]) -> None:
    try:
        parse(cut(MARK + rubbish, cuts))
    except ServiceError as error:
        assert error.code is ErrorCode.INVALID_REQUEST  # noqa: PT017 - what does parse is fine too


tokens = st.lists(
    st.sampled_from(
        [MARK, b"--", b"\r\n", b"\r", b"\n", b" ", b'Content-Disposition: form-data; name="image"', b":", b"x"]
    ),
    max_size=60,
).map(b"".join)


@given(body=tokens, cuts=st.lists(st.integers(0, 600), max_size=30))
def test_what_a_body_comes_to_does_not_depend_on_its_pieces(body: bytes, cuts: list[int]) -> None:
    def outcome(pieces: Sequence[bytes]) -> object:
        try:
            return parse(pieces)
        except ServiceError as error:
            return error.code

    assert outcome(cut(body, cuts)) == outcome([body])


def test_a_body_cut_short_is_refused() -> None:
    body = multipart({"a": 1}, image=b"x" * 100)
    for length in range(len(body) - 2):  # the last line break may be missing
        with pytest.raises(ServiceError) as error:
            parse([body[:length]])
        assert error.value.code is ErrorCode.INVALID_REQUEST


def test_a_preamble_an_epilogue_and_blanks_behind_boundaries_mean_nothing() -> None:
    body = b"This is a message in MIME.\r\n" + MARK + b" \t " + part("text", b"dog") + MARK + b"-- \r\nThe end."
    assert parse([body]) == {"text": b"dog"}
    assert parse([b"\r\n" + MARK + part("text", b"") + MARK + b"--"]) == {"text": b""}


def test_of_parts_with_one_name_the_last_counts_and_unknown_ones_are_dropped() -> None:
    body = MARK + part("text", b"cat") + MARK + part("other", b"x" * 10**6) + MARK + part("text", b"dog") + MARK + b"--"
    assert parse([body]) == {"text": b"dog"}


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "multipart/form-data",
        "text/plain; boundary=x",
        "",
        "multipart/form-data; boundary=" + "b" * 201,
    ],
)
def test_another_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(ServiceError, match="multipart"):
        boundary_of(content_type)


def test_the_boundary_is_found_quoted_or_not() -> None:
    assert boundary_of(HEADERS["content-type"]) == BOUNDARY.encode()
    assert boundary_of('multipart/form-data; charset=utf-8; boundary="a b"') == b"a b"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ((MARK + part("a", b"x")) * 33 + MARK + b"--", "parts"),
        (MARK + b"\r\nX: " + b"y" * 20_000, "header"),
        (MARK + b"\r\nno colon\r\n\r\n", "colon"),
        (MARK + b" " * 300 + part("a", b"x"), "behind a boundary"),
        (MARK + b"suffix" + part("a", b"x"), "behind a boundary"),
        (b"x" * 70_000, "no boundary"),
    ],
    ids=["parts", "header", "colon", "blanks", "suffix", "preamble"],
)
def test_what_goes_beyond_a_bound_is_refused_in_one_piece_and_in_many(body: bytes, message: str) -> None:
    for pieces in ([body], cut(body, list(range(0, len(body), 7)))):
        with pytest.raises(ServiceError, match=message) as error:
            parse(pieces)
        assert error.value.code is ErrorCode.INVALID_REQUEST


def test_a_part_beyond_its_own_bound_is_413() -> None:
    assert parse([MARK + part("text", b"x" * 10) + MARK + b"--"], {"text": 10}) == {"text": b"x" * 10}
    for pieces in (1, 7):
        body = MARK + part("text", b"x" * 11) + MARK + b"--"
        with pytest.raises(ServiceError, match="`text`") as error:
            parse(cut(body, list(range(0, len(body), pieces))), {"text": 10})
        assert error.value.code is ErrorCode.BODY_TOO_LARGE


def _picture_in_pieces(size: int, piece: int) -> Iterator[bytes]:
    yield MARK + b'\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
    for _ in range(size // piece):
        yield bytes(piece)
    yield b"\r\n" + MARK + b"--"


def test_a_picture_of_100_mb_is_held_once_and_no_piece_of_it_takes_long() -> None:
    parser = FormParser(BOUNDARY.encode(), KEPT)
    seconds = []
    tracemalloc.start()
    try:
        for piece in _picture_in_pieces(100 * 2**20, 2**18):
            began = time.thread_time()
            parser.feed(piece)
            seconds.append(time.thread_time() - began)
        assert len(parser.finish()["image"]) == 100 * 2**20
        assert tracemalloc.get_traced_memory()[1] < 115 * 2**20  # a buffer that grows by an eighth
    finally:
        tracemalloc.stop()
    assert sorted(seconds)[-5] < 0.02


@pytest.mark.parametrize("filling", [b"\r\n--", b"\r\n--" + BOUNDARY.encode()[:-1], b"\r", b"\n", b"-"])
def test_a_body_full_of_beginnings_of_boundaries_costs_no_more(filling: bytes) -> None:
    piece = (filling * (2**18 // len(filling) + 1))[: 2**18]
    parser = FormParser(BOUNDARY.encode(), KEPT)
    parser.feed(MARK + b'\r\nContent-Disposition: form-data; name="image"\r\n\r\n')
    seconds = []
    for _ in range(50):
        began = time.thread_time()
        parser.feed(piece)
        seconds.append(time.thread_time() - began)
    assert sorted(seconds)[25] < 0.01
