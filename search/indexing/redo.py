"""The tasks that can be done again, and their outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from search.answers import Answer


class RedoTask(str, Enum):
    """A task that can be done again."""

    OCR = "ocr"
    CLIP = "clip"
    FACES = "faces"


class RedoRequest(BaseModel):
    """The body of ``POST /assets/{id}/reprocess``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    tasks: Annotated[Sequence[RedoTask], Field(min_length=1, max_length=3)]
    """Tasks to do again."""


class Redone(Answer):
    """The answer of ``POST /assets/{id}/reprocess``, once everything is written."""

    id: UUID
    done: Sequence[RedoTask]
    """faces: Immich has queued the job."""
    models: Mapping[str, str]
    """The model that did each task here."""
    lines: int | None
    """Lines of text that were read; null if OCR was not asked for."""
