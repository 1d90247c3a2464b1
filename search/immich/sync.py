"""Keeps the searched texts (``ocr_document``) up to date with what Immich has read. Immich's tables are only read.

Immich sets ``asset_job_status."ocrAt"`` when it has read a picture, after it wrote the lines; a document remembers the
``ocrAt`` that it was made from. Deleted pictures, and pictures whose ``ocrAt`` was taken away, lose their document.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from errors import ErrorCode, ServiceError
from search.store.database import Connection, Database, Source
from search.store.documents import put_document

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("service")

_LOCK = 0x696D6D6963680002
"""Key of the advisory lock: one process at a time copies texts."""
_BATCH = 200
"""Pictures in one transaction: memory and lost work are bounded by it."""
_THOROUGH_EVERY = 60
"""Rounds of ``keep_in_sync`` between looks at every text, which cost a read of Immich's whole table."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did, in pictures."""

    added: int = 0
    updated: int = 0
    removed: int = 0
    failed: int = 0
    """Texts that PostgreSQL would not take; the table ``failure`` has the reasons."""

    def __str__(self) -> str:
        failed = f", {self.failed} could not be taken over" if self.failed else ""
        return (
            f"Texts of {self.added} pictures added, {self.updated} brought up to date, {self.removed} dropped{failed}."
        )


async def sync(db: Database, *, thorough: bool = False) -> SyncReport:
    """Bring the searched texts up to date with Immich's. May be interrupted anywhere; does nothing for our own index.

    ``thorough``: compare the texts themselves too, not only when they were read.
    """
    if db.source is Source.STANDALONE:
        return SyncReport()
    thorough = thorough or db.source is Source.IMMICH_1_134  # which does not keep when it read
    report, after = SyncReport(), UUID(int=0)
    while True:
        async with db.connection() as connection:
            await _lock(connection)
            rows = await (
                await connection.execute(
                    "SELECT * FROM immich_ai.stale_documents(%s, %s, %s)", (after, _BATCH, thorough)
                )
            ).fetchall()
            for row in rows:
                report = await _take_over(connection, row, report)
        if len(rows) < _BATCH:
            break
        after = rows[-1]["asset_id"]
    async with db.connection() as connection:
        await _lock(connection)
        dropped = await (await connection.execute("SELECT immich_ai.drop_deleted() AS removed")).fetchone()
    return replace(report, removed=dropped["removed"] if dropped else 0)


async def copy_document(connection: AsyncConnection[Any], asset_id: UUID, *, model: str | None = None) -> None:
    """Make the document of one picture from Immich's rows as this transaction sees them, or drop it where Immich has
    not read it.

    ``model``: the OCR model, where the caller knows it. ``connection`` has rows as mappings.
    """
    rows = await connection.execute("SELECT * FROM immich_ai.source_document WHERE asset_id = %s", (asset_id,))
    row = await rows.fetchone()
    if row is None:
        await connection.execute("DELETE FROM immich_ai.ocr_document WHERE asset_id = %s", (asset_id,))
    else:
        await _put(connection, row, model)


async def keep_in_sync(db: Database, every: float) -> None:
    """``sync`` now and every ``every`` seconds, for ever. What goes wrong is logged, each new reason once, and tried
    again.
    """
    trouble, rounds = "", 0
    while True:
        try:
            report = await sync(db, thorough=rounds % _THOROUGH_EVERY == 0)
            if report != SyncReport():
                log.info("%s", report)
            trouble, rounds = "", rounds + 1
        except (ServiceError, psycopg.Error) as error:
            reason = str(error).partition("\n")[0]
            if reason != trouble:
                log.warning(
                    "Immich's texts could not be taken over: %s. It is tried again every %g s.",
                    reason.rstrip("."),
                    every,
                )
            trouble = reason
        await asyncio.sleep(every)


async def _lock(connection: Connection) -> None:
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


async def _take_over(connection: Connection, row: Mapping[str, Any], report: SyncReport) -> SyncReport:
    try:
        async with connection.transaction():  # a savepoint: one bad text must not hold up the others
            await _put(connection, row, None)
    except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
        values = (row["asset_id"], ErrorCode.INTERNAL.value, str(error).partition("\n")[0])
        await connection.execute(_FAILED, values)
        return replace(report, failed=report.failed + 1)
    await connection.execute(
        "DELETE FROM immich_ai.failure WHERE subject = %s AND task = 'ocr'", (str(row["asset_id"]),)
    )
    return replace(report, updated=report.updated + 1) if row["known"] else replace(report, added=report.added + 1)


async def _put(connection: AsyncConnection[Any], row: Mapping[str, Any], model: str | None) -> None:
    await put_document(
        connection,
        row["asset_id"],
        row["lines"] or (),
        model=model,
        read_at=row["read_at"] or datetime.now(timezone.utc),
        source_read_at=row["read_at"],
        source_digest=row["digest"],
    )


_FAILED = """
INSERT INTO immich_ai.failure (asset_id, task, code, message) VALUES (%s, 'ocr', %s, %s)
ON CONFLICT (subject, task) DO UPDATE SET
    (code, message, attempts, failed_at) = (excluded.code, excluded.message, failure.attempts + 1, now())
"""
