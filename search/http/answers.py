"""What search's HTTP API is asked and what it answers, as pydantic models: checked on the way in, and described in
docs/openapi.json.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain NUL, which PostgreSQL cannot keep")
    return text


_Text = Annotated[str, AfterValidator(_without_nul)]
Box = Annotated[list[float], Field(min_length=8, max_length=8)]


class Asked(BaseModel):
    """Anything that a caller sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SearchParameters(Asked):
    """The query of ``GET /search``."""

    q: str = Field(
        description="What to look for, as a person types it. `ocr:` before it asks for text alone. docs/search.md has "
        "the rest."
    )
    mode: Literal["auto", "ocr", "clip", "hybrid"] = Field(
        "auto",
        description="`ocr`: the text in pictures; `clip`: their meaning; `hybrid`: both; `auto`: hybrid, or ocr if q "
        "says `ocr:`.",
    )
    owner: _Text | None = Field(
        None, max_length=200, description="Only this person's pictures; without it everybody's."
    )
    limit: int = Field(20, ge=1, le=100, description="Most hits of one answer.")
    cursor: _Text | None = Field(
        None, max_length=2000, description="The `next_cursor` of the answer before, to go on where it ended."
    )


class ReprocessBody(Asked):
    """The body of ``POST /assets/{id}/reprocess``."""

    tasks: list[Literal["ocr", "clip", "faces"]] = Field(min_length=1, max_length=3, description="What to do again.")


class Answer(BaseModel):
    """Anything that is answered."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class OcrPart(Answer):
    """Why the text of a picture was found."""

    rank: int = Field(description="Place in the list of texts, from 1.")
    score: float = Field(description="0 to 1.")
    exact: bool = Field(description="Whether the text holds the query as it was typed.")


class ClipPart(Answer):
    """Why the meaning of a picture was found."""

    rank: int = Field(description="Place in the list of meanings, from 1.")
    similarity: float = Field(description="Cosine of the angle between the vectors of query and picture.")


class TextLine(Answer):
    """One line of text in a picture."""

    n: int = Field(description="Place in reading order, from 1.")
    text: str
    box: Box | None = Field(
        description="x1, y1 … x4, y4: clockwise from the top left of the text, as fractions of the picture's width "
        "and height."
    )
    box_score: float | None = Field(description="0 to 1: that there is text.")
    text_score: float | None = Field(description="0 to 1: that the text is this.")


class FoundLine(TextLine):
    """A line of text that matches the query."""

    spans: list[tuple[int, int]] = Field(description="Start and end of what matches, in characters of `text`.")


class Hit(Answer):
    """One picture that was found."""

    id: UUID
    name: str = Field(description="The file's name.")
    score: float = Field(description="In the mode's own measure; hits of different queries cannot be compared by it.")
    ocr: OcrPart | None = Field(description="null: not found by its text.")
    clip: ClipPart | None = Field(description="null: not found by its meaning.")
    lines: list[FoundLine] = Field(description="The lines that match, in reading order.")


class Note(Answer):
    """Something that the answer had to do without."""

    code: str
    message: str


class SearchAnswer(Answer):
    """The answer of ``GET /search``."""

    mode: Literal["ocr", "clip", "hybrid"] = Field(
        description="What answered: ocr where hybrid had to do without CLIP."
    )
    hits: list[Hit] = Field(description="Best first.")
    notes: list[Note] = Field(description="What was missing, for instance that hybrid had to do without CLIP.")
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class AssetText(Answer):
    """The answer of ``GET /assets/{id}/ocr``."""

    id: UUID
    name: str
    read: bool = Field(description="false: not read yet. true without lines: read, and there was no text.")
    read_at: datetime | None
    model: str | None = Field(description="What read it, where that is known.")
    text: str = Field(description="The lines, joined by newlines.")
    lines: list[TextLine]


class ModelNames(Answer):
    """The models in use, by the catalog's names."""

    clip: str | None = Field(
        description="Embeds queries and pictures; null: none is chosen or it is unknown. `notes` says more."
    )
    ocr: str | None = Field(description="Reads pictures that are done again; null: unknown, and `notes` says more.")


class StoredModel(Answer):
    """A CLIP model that there are vectors of."""

    model: str | None = Field(description="null where the source does not keep it (Immich).")
    size: int | None = Field(description="Numbers in a vector.")
    vectors: int


class StatsAnswer(Answer):
    """The answer of ``GET /stats``."""

    source: Literal["standalone", "immich", "immich-1.134"]
    cutter: Literal["jieba", "zhparser"] = Field(description="What cuts Chinese text to words.")
    assets: int = Field(description="Pictures and videos that can be found.")
    read: int = Field(description="Of these, read with some text found.")
    empty: int = Field(description="Of these, read with no text found.")
    failed: int = Field(description="Files with a failure that is not mended; in the standalone source alone.")
    waiting: int = Field(description="Of the assets, neither read nor failed.")
    embedded: int = Field(description="Of the assets, with a CLIP vector.")
    models: ModelNames
    stored_models: list[StoredModel]
    notes: list[Note]


class ReprocessAnswer(Answer):
    """The answer of ``POST /assets/{id}/reprocess``, once everything is written."""

    id: UUID
    done: list[Literal["ocr", "clip", "faces"]] = Field(description="faces: Immich has queued the job.")
    models: dict[str, str] = Field(description="The model that did each task here.")
    lines: int | None = Field(description="How many lines of text were read; null if OCR was not asked for.")


class Problem(Answer):
    """Every error's answer."""

    detail: str
    code: str
