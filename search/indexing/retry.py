"""One file tried again that could not be read before, so that it never became an asset."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Literal
from uuid import UUID

from errors import ErrorCode, ServiceError
from search.indexing import file_contents
from search.indexing.formats import Kind
from search.indexing.places import Entry, PlaceError, place, shown_uri
from search.indexing.recompute import Recompute
from search.store.database import Database
from search.store.index import put_asset, put_problem
from search.store.models_in_use import ModelsInUse
from search.store.records import File, Problem
from settings import Settings

_NO_DATE = datetime.fromtimestamp(0, timezone.utc)


async def retry_file(
    database: Database, owner: str, uri: str, recompute: Recompute, models: ModelsInUse, config: Settings
) -> UUID:
    """Read, embed and index the file; return its id. Where it fails, one more attempt is remembered.

    Raises ``ServiceError``: UNREADABLE_PICTURE, PICTURE_TOO_LARGE, BODY_TOO_LARGE, and what ``recompute`` raises.
    """
    clip, ocr = models.clip_or_refuse(), models.ocr_or_refuse()
    try:
        entry, contents, picture = await asyncio.to_thread(_read, uri, config)
    except ServiceError as error:
        async with database.connection() as connection:
            await put_problem(connection, owner, uri, Problem("read", error.code.value, error.message))
        raise
    vector = await recompute.embed(picture, clip)
    text = await recompute.read(picture, ocr, models.ocr_options)
    kind: Literal["image", "video"] = "video" if entry.kind is Kind.VIDEO else "image"
    file = File(owner, uri, kind, entry.size, entry.modified or _NO_DATE, contents.hash)
    async with database.connection() as connection:
        return await put_asset(connection, file, vector=vector, text=text)


def _read(uri: str, config: Settings) -> tuple[Entry, file_contents.Contents, bytes]:
    """Return the file as its folder lists it, what it holds, and the bytes to compute on.

    Raises ``ServiceError``.
    """
    with file_contents.refusals_of_the_place(uri):
        try:
            entry = next(place(uri).walk(lambda folder, why: None), None)
        except PlaceError as error:
            raise ServiceError(ErrorCode.UNREADABLE_PICTURE, str(error)) from error
        if entry is None or entry.uri != uri:
            raise ServiceError(
                ErrorCode.UNREADABLE_PICTURE, f"The file {shown_uri(uri)} is not there, or not one that is indexed."
            )
        contents = file_contents.read(uri, entry.kind, entry.size, config)
        return entry, contents, file_contents.picture(uri, contents, config)
