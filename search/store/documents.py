"""Documents: what was read in one picture, as it is searched: the lines put together, folded and cut to words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from search.query.folding import CJK_ENDS, fold
from search.query.forms import forms_of_lines
from search.query.words import cut
from search.store.blocks import Box, blocks

FORM = 3
"""How documents are made now. Raise it when folding, words, forms or blocks change: ``search.store.refresh`` then makes
those anew that are stored.
"""

_BLOCKS = "\n\f\n"
"""Between the lines of a document and its blocks. No folded text has a form feed."""

_PUT = """
INSERT INTO immich_ai.ocr_document
    (asset_id, text, folded, pieces, cut, form, read_at, model, source_read_at, source_digest)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (asset_id) DO UPDATE SET
    (text, folded, pieces, cut, form, read_at, model, source_read_at, source_digest)
    = (excluded.text, excluded.folded, excluded.pieces, excluded.cut, excluded.form, excluded.read_at, excluded.model,
    excluded.source_read_at, excluded.source_digest)
"""


@dataclass(frozen=True, slots=True)
class Searched:
    """The forms in which one text is searched."""

    folded: str
    """The lines folded, one a line; then, behind a line that is a form feed, blocks of several lines, one a line."""
    pieces: tuple[int, ...]
    """Of what these blocks are made: three numbers for each piece, its line (from 1), its first character in ``folded``
    (from 1) and its length.
    """
    words: tuple[str, ...]
    """All that it is looked up by: words, and the forms of numbers and dates."""


def searched(lines: Sequence[str], boxes: Sequence[Box] = ()) -> Searched:
    """Return what is searched of a text. ``lines`` in reading order; ``boxes``: their corners, if they are known."""
    folded = [fold(line) for line in lines]
    joined, pieces = [], []
    at = sum(map(len, folded)) + len(folded) - 1 + len(_BLOCKS)
    for block in blocks(folded, boxes):
        text, starts = _joined([folded[line] for line in block])
        pieces += [
            number
            for line, (start, length) in zip(block, starts, strict=True)
            for number in (line + 1, at + start + 1, length)
        ]
        joined.append(text)
        at += len(text) + 1
    text = "\n".join(folded) + (_BLOCKS + "\n".join(joined) if joined else "")
    words = dict.fromkeys([*cut(text), *forms_of_lines(folded)])
    return Searched(text, tuple(pieces), tuple(words))


async def put_document(
    connection: AsyncConnection[Any],
    asset_id: UUID,
    lines: Sequence[str],
    *,
    boxes: Sequence[Box] = (),
    model: str | None,
    read_at: datetime,
    source_read_at: datetime | None = None,
    source_digest: str | None = None,
) -> Searched:
    """Write what was read in a picture, in place of what was there. No lines: it was read, and there was no text.

    ``lines`` in reading order; ``boxes``: their corners, where these are known. ``source_read_at``, ``source_digest``:
    Immich's, as ``search.immich.sync`` found them. NUL, which PostgreSQL's text cannot hold, becomes a blank.
    """
    text = "\n".join(line.replace("\0", " ") for line in lines)
    made = searched(lines, boxes)
    values = (asset_id, text, made.folded, list(made.pieces), " ".join(made.words), FORM)
    await connection.execute(_PUT, (*values, read_at, model, source_read_at, source_digest))
    return made


def _joined(lines: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Return folded lines as one, and where each begins in it and how long it is there.

    A word that is broken by a hyphen is put together again; Chinese goes on without a blank.
    """
    text = ""
    pieces: list[tuple[int, int]] = []
    for line in lines:
        if text.endswith("-") and text[-2:-1].isalpha() and line[:1].isalpha():
            text = text[:-1]
            start, length = pieces[-1]
            pieces[-1] = (start, length - 1)
        elif text and line and not CJK_ENDS.fullmatch(text[-1] + line[0]):
            text += " "
        pieces.append((len(text), len(line)))
        text += line
    return text, pieces
