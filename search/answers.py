"""The base of search's answers. Each answer is one pydantic model, made where its content is found out and
serialised as it is by the HTTP API; the docstrings of its fields are the descriptions in docs/openapi.json.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """The base of everything that is answered."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Note(Answer):
    """Something that the answer had to do without."""

    code: str
    """A stable name of what happened: later versions may have further ones."""
    message: str


class Problem(Answer):
    """The answer in place of every error."""

    detail: str
    """A sentence that says what happened, and what to do."""
    code: str
    """A stable name of what happened."""
