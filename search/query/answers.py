"""The request and the answer of a search."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from search.answers import Answer, Note


class Mode(str, Enum):
    """The lists that are searched. ``auto``: text alone behind the prefix ``ocr:``, else both."""

    AUTO = "auto"
    OCR = "ocr"
    CLIP = "clip"
    HYBRID = "hybrid"


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain NUL, which PostgreSQL cannot keep")
    return text


StorableText = Annotated[str, AfterValidator(_without_nul)]
"""Text that PostgreSQL can keep."""
Cursor = Annotated[StorableText, Field(max_length=2000)]
Box = Annotated[tuple[float, ...], Field(min_length=8, max_length=8)]


class SearchRequest(BaseModel):
    """A search of a person: the query parameters of ``GET /search``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    q: str
    """The query, as a person types it. ``ocr:`` before it asks for text alone. docs/search.md has the rest."""
    mode: Mode = Mode.AUTO
    """``ocr``: the text in pictures; ``clip``: their meaning; ``hybrid``: both; ``auto``: hybrid, or ocr if q says
    ``ocr:``.
    """
    owner: Annotated[StorableText, Field(max_length=200)] | None = None
    """Only this person's pictures; without it everybody's."""
    limit: int = Field(20, ge=1, le=100)
    """Most hits of one answer."""
    cursor: Cursor | None = None
    """The ``next_cursor`` of the answer before, to go on where it ended."""


class OcrPart(Answer):
    """The reason why the text of a picture was found."""

    rank: int
    """Place in the list of texts, from 1."""
    score: float
    """0 to 1; 0.5 and more for exact hits."""
    exact: bool
    """True: the text holds the query as it was typed, once both are folded."""


class ClipPart(Answer):
    """The reason why the meaning of a picture was found."""

    rank: int
    """Place in the list of meanings, from 1."""
    similarity: float
    """Cosine of the angle between the vectors of query and picture."""


class TextLine(Answer):
    """One line of text in a picture."""

    n: int
    """Place in reading order, from 1."""
    text: str
    """As it was read."""
    box: Box | None
    """x1, y1 … x4, y4: clockwise from the top left of the text, as fractions of the picture's width and height. null
    where the source keeps no boxes (Immich 1.134's fork)."""
    box_score: float | None
    """0 to 1: that there is text."""
    text_score: float | None
    """0 to 1: that the text is this."""


class FoundLine(TextLine):
    """A line of text that matches the query."""

    spans: tuple[tuple[int, int], ...]
    """Start and end of what matches, in characters (Unicode code points) of ``text``."""


class Hit(Answer):
    """One picture that was found."""

    id: UUID
    name: str
    """The file's name."""
    score: float
    """In the mode's own measure: the text score, the similarity, or what both were fused to. Hits come in the right
    order; an exact hit that was moved up among the first ten may have a smaller score than the next. Hits of different
    queries cannot be compared by it."""
    ocr: OcrPart | None
    """null: not found by its text."""
    clip: ClipPart | None
    """null: not found by its meaning."""
    lines: tuple[FoundLine, ...]
    """The lines that match, in reading order."""


class SearchAnswer(Answer):
    """The answer of ``GET /search``: one page of hits."""

    mode: Literal[Mode.OCR, Mode.CLIP, Mode.HYBRID]
    """The mode that answered: ocr where hybrid had to do without CLIP."""
    hits: Sequence[Hit]
    """Best first."""
    notes: Sequence[Note]
    """Things that were missing, for instance that hybrid had to do without CLIP."""
    next_cursor: str | None
    """For the next page; null on the last one."""
