"""The models that answer a search and do a picture again, and whether the vectors that are stored fit them.

CLIP: ``CLIP_MODEL``; without it the model that most vectors of our own index are of, or the one that Immich is set to.
OCR: ``OCR_MODEL``; without it the one that Immich is set to, or the catalog's ``ocr``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from errors import ErrorCode, ServiceError
from models.catalog import Catalog, ModelEntry, ModelKind
from runners.contract import OcrOptions
from search.answers import Answer
from search.immich.settings import DEFAULT_OCR_OPTIONS, immich_settings
from settings import Settings

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.rows import DictRow

_OCR_ALIAS = "ocr"
"""The catalog's name for OCR by whoever names no model; the fork of Immich 1.134 sends it."""
_FORK_OCR_OPTIONS = OcrOptions(min_recognition_score=0.5)
"""Options by which the fork's requests, which have none, are answered (compat/immich/entries.py)."""


class StoredVectors(Answer):
    """A CLIP model that there are vectors of."""

    model: str | None
    """null where the source does not keep it (Immich)."""
    size: int | None
    """Numbers in a vector."""
    vectors: int
    """Number of vectors."""


@dataclass(frozen=True, slots=True)
class ModelsInUse:
    """Names are the catalog's."""

    clip: str | None
    """None: there is no CLIP_MODEL and no vector, or the name is unknown."""
    clip_refusal: ServiceError | None
    """Reason for which ``clip`` is unknown, or cannot be compared with what is stored."""
    ocr: str | None
    """None: Immich is set to a model that the catalog does not know; ``ocr_refusal`` says so."""
    ocr_refusal: ServiceError | None
    ocr_options: OcrOptions

    def clip_or_refuse(self) -> str:
        """Return the CLIP model. Raises ``ServiceError`` STORED_MODEL_DIFFERS, UNKNOWN_MODEL, MODEL_UNAVAILABLE."""
        return _or_refuse(self.clip, self.clip_refusal)

    def ocr_or_refuse(self) -> str:
        """Return the OCR model. Raises ``ServiceError`` UNKNOWN_MODEL."""
        return _or_refuse(self.ocr, self.ocr_refusal)


async def models_in_use(
    connection: AsyncConnection[DictRow], source: str, catalog: Catalog, config: Settings
) -> ModelsInUse:
    """Return the models in use with what is stored now.

    ``source``: the value of a ``search.store.source.Source``.
    """
    if source == "standalone":
        stored = await _stored_beside(connection, config.clip_model, catalog)
        clip, ocr, options = config.clip_model or (stored[0].model if stored else None), _OCR_ALIAS, DEFAULT_OCR_OPTIONS
    else:
        stored, chosen = await stored_vectors(connection, source), await immich_settings(connection)
        clip, ocr, options = config.clip_model or chosen.clip_model, chosen.ocr_model, chosen.ocr_options
    if source == "immich-1.134":
        ocr, options = _OCR_ALIAS, _FORK_OCR_OPTIONS
    clip_found, clip_refusal = _chosen_clip(clip, stored, catalog, config)
    ocr_found, ocr_refusal = _known_ocr(config.ocr_model or ocr, catalog)
    return ModelsInUse(clip_found, clip_refusal, ocr_found, ocr_refusal, options)


async def stored_vectors(connection: AsyncConnection[DictRow], source: str) -> Sequence[StoredVectors]:
    """Count all vectors: of our own index for each model, the most frequent first; of Immich at most one model."""
    if source == "standalone":
        found = await connection.execute(_COUNT_OWN)
        return [StoredVectors(**row) for row in await found.fetchall()]
    found = await connection.execute(_COUNT_IMMICH)
    return [StoredVectors(model=None, size=row["size"], vectors=row["vectors"]) for row in await found.fetchall()]


async def _stored_beside(connection: AsyncConnection[DictRow], asked: str, catalog: Catalog) -> Sequence[StoredVectors]:
    """Return the models of our own index.

    Nothing is counted if it is enough to know that there are vectors of the one ``asked`` for.
    """
    if asked:
        name = catalog.find(ModelKind.CLIP, asked).name  # CLIP_MODEL is checked at start
        found = await connection.execute("select from immich_ai.embedding where model = %s limit 1", (name,))
        if found.rowcount:
            return ()
    return await stored_vectors(connection, "standalone")


_COUNT_OWN = """
select model, count(*) as vectors, min(vector_dims(vector)) as size from immich_ai.embedding group by model order by
vectors desc, model
"""
# pgvector keeps the size of a column as its type modifier; -1 is none.
_COUNT_IMMICH = """
select nullif(atttypmod, -1) as size, (select count(*) from immich_ai.source_embedding) as vectors
from pg_attribute where attrelid = to_regclass('public.smart_search') and attname = 'embedding'
"""


def _known_ocr(asked: str, catalog: Catalog) -> tuple[str | None, ServiceError | None]:
    try:
        return catalog.find(ModelKind.OCR, asked).name, None
    except ServiceError as unknown:
        return None, unknown


def _chosen_clip(
    asked: str | None, stored: Sequence[StoredVectors], catalog: Catalog, config: Settings
) -> tuple[str | None, ServiceError | None]:
    if asked is None:
        return None, None
    try:
        entry = catalog.find(ModelKind.CLIP, asked)
    except ServiceError as unknown:
        return None, unknown
    return entry.name, _misfit(entry, stored, "CLIP_MODEL" if config.clip_model else "the CLIP model in use,")


def _misfit(entry: ModelEntry, stored: Sequence[StoredVectors], chosen_by: str) -> ServiceError | None:
    """Return why ``entry`` cannot be used beside what is stored; None if it can. ``chosen_by``: for messages."""
    for one in stored:
        if one.model is None and one.size is not None and one.size != entry.embedding_size:
            return ServiceError(
                ErrorCode.STORED_MODEL_DIFFERS,
                f"Immich keeps vectors of {one.size} numbers, but {chosen_by} {entry.name} makes "
                f"{entry.embedding_size}. Choose a CLIP "
                f"model of {entry.embedding_size} numbers in Immich and run its job Smart Search for all, or set "
                "CLIP_MODEL to one of "
                f"{one.size}.",
            )
    names = [one.model for one in stored if one.model is not None]
    if names and entry.name not in names:
        return ServiceError(
            ErrorCode.STORED_MODEL_DIFFERS,
            f"The stored vectors are of {', '.join(names)}, none of {chosen_by} {entry.name}. "
            f"Index again with it (`python -m search index`), or set CLIP_MODEL={names[0]}.",
        )
    return None


def _or_refuse(name: str | None, refusal: ServiceError | None) -> str:
    if refusal is not None:  # a new one for each time it is raised: one that is raised twice would gather tracebacks
        raise ServiceError(refusal.code, refusal.message)
    if name is None:
        raise ServiceError(
            ErrorCode.MODEL_UNAVAILABLE,
            "No CLIP model is in use, and no vector is stored: set CLIP_MODEL and index the pictures.",
        )
    return name
