"""Immich's version is believed for a while, and only where it could be read."""

from __future__ import annotations

import asyncio

import pytest

from search.immich.version import KnownVersion

ANSWERS = {b'{"major": 3, "minor": 2, "patch": 0}': (3, 2), b'{"major": 3}': None, b"<html>": None, b"[]": None}


@pytest.mark.parametrize("answer", ANSWERS)
def test_it_is_read_from_immichs_answer_or_not_known(answer: bytes) -> None:
    async def ask() -> bytes:
        return answer

    assert asyncio.run(KnownVersion().read(ask)) == ANSWERS[answer]


def test_it_is_asked_for_again_after_ten_minutes_and_after_an_answer_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("search.immich.version.time.monotonic", lambda: now)
    answers = [b'{"major": 3, "minor": 2}', b'{"major": 3, "minor": 1}', b"no JSON"]

    async def ask() -> bytes:
        return answers.pop()

    known = KnownVersion()
    found = [asyncio.run(known.read(ask)) for _ in range(3)]
    now += 601
    assert [*found, asyncio.run(known.read(ask))] == [None, (3, 1), (3, 1), (3, 2)]
