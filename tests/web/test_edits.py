"""Pictures that were edited in Immich: the page shows what the edit has left, and boxes where the lines are now."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from search.query.answers import TextLine
from tests.search.indexing.redoing import rows
from tests.web.library import Library
from tests.web.pages import KEY, session_of
from web.edits import on_edited
from web.immich import PlacedText

TURNED = [0.9, 0.1, 0.9, 0.5, 0.8, 0.5, 0.8, 0.1]


def told(text: str, box: list[float]) -> dict[str, object]:
    """Return a line as Immich tells of it."""
    corners = zip(("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4"), box, strict=True)
    return {"id": "x", "text": text, "boxScore": 0.9, "textScore": 0.9, **dict(corners)}


def add(library: Library, *, edited: bool) -> UUID:
    asset = library.add(library.ann, "发票", "上海")
    rows(library.database, 'update public.asset set "isEdited" = %s where id = %s', edited, asset)
    library.lines[asset] = [told("发票", TURNED)]
    return asset


def boxes(lines: list[dict[str, Any]]) -> dict[str, list[float] | None]:
    return {line["text"]: line["box"] for line in lines}


@pytest.mark.parametrize("with_key", [False, True], ids=["session", "key"])
def test_boxes_are_where_immich_shows_the_lines(library: Library, with_key: bool) -> None:
    asset = add(library, edited=True)
    pages = library.pages(immich_api_key=library.ann.token)
    headers = KEY if with_key else session_of(library.ann)
    shown = pages.get(f"assets/{asset}", headers)
    assert boxes(shown["lines"]) == {"发票": TURNED, "上海": None}
    (hit,) = pages.get("search?q=ocr:发票", headers)["hits"]
    assert boxes(hit["lines"]) == {"发票": TURNED}


def test_of_pictures_that_were_not_edited_immich_is_not_asked(library: Library) -> None:
    asset = add(library, edited=False)
    shown = library.pages().get(f"assets/{asset}", session_of(library.ann))
    assert None not in boxes(shown["lines"]).values()
    assert not any(seen.target.endswith("/ocr") for seen in library.immich.seen)


def test_an_immich_before_2_5_has_no_edits(library: Library) -> None:
    asset = add(library, edited=True)
    rows(library.database, 'alter table public.asset drop column "isEdited"')
    shown = library.pages().get(f"assets/{asset}", session_of(library.ann))
    assert None not in boxes(shown["lines"]).values()


def test_where_immich_does_not_tell_there_is_no_box(library: Library) -> None:
    asset = add(library, edited=True)
    pages = library.pages()  # without a key of a user
    assert boxes(pages.get(f"assets/{asset}")["lines"]) == {"发票": None, "上海": None}
    (hit,) = pages.get("search?q=ocr:发票")["hits"]
    assert boxes(hit["lines"]) == {"发票": None}


def test_the_picture_is_the_edited_one(library: Library) -> None:
    asset = add(library, edited=True)
    for size in ("thumbnail", "preview"):
        library.pages().ask("GET", f"/ai/api/assets/{asset}/picture?size={size}", session_of(library.ann))
        assert library.immich.seen[-1].target == f"/api/assets/{asset}/thumbnail?size={size}&edited=true"


def test_lines_of_one_text_get_a_box_each() -> None:
    lines = [
        TextLine(n=n, text=text, box=(0.0,) * 8, box_score=None, text_score=None)
        for n, text in enumerate(("一", "一", "二"))
    ]
    placed = [PlacedText("一", [0.1] * 8), PlacedText("一", [0.2] * 8)]
    assert [line.box for line in on_edited(lines, placed)] == [(0.1,) * 8, (0.2,) * 8, None]
