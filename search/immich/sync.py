"""Keep the searched texts (``ocr_document``) up to date with what Immich has read. Immich's tables are only read.

Immich sets ``asset_job_status."ocrAt"`` when it has read a picture, after it wrote the lines; a document remembers the
``ocrAt`` that it was made from. Deleted pictures, and pictures whose ``ocrAt`` was taken away, lose their document.
Lines that an edit hides are found among what Immich marks as changed, or by a thorough look.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

import metrics
from errors import ErrorCode, ServiceError
from search.immich.sync_status import SyncStatus
from search.store.database import Connection, Database
from search.store.documents import put_document
from search.store.errors import SourceSwitched, database_errors
from search.store.lexicon import add_words
from search.store.refresh import refresh
from search.store.source import SYNC_LOCK, Source

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

log = logging.getLogger("service")

_BATCH = 200
"""Pictures in one transaction: memory and lost work are bounded by it."""
_THOROUGH_EVERY = 60
"""Times ``every``: how often ``keep_in_sync`` looks at every text, which costs a read of Immich's whole table."""
_OVERLAP = timedelta(minutes=2)
"""Longest time between Immich's mark on a change and the commit of it; what takes longer waits for a thorough look."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """Numbers of pictures that a sync has changed."""

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


async def sync(db: Database, *, thorough: bool = False, since: datetime | None = None) -> SyncReport:
    """Bring the searched texts up to date with Immich's. May be interrupted anywhere; does nothing for our own index.

    ``thorough``: compare the texts themselves too, not only when they were read. ``since``: compare those of what
    Immich marks as changed since then, by the database's clock.
    """
    if db.source is Source.STANDALONE:
        return SyncReport()
    thorough = thorough or db.source is Source.IMMICH_1_134  # which does not keep when it read
    report, after = SyncReport(), UUID(int=0)
    while True:
        async with db.connection() as connection:
            await _lock(connection)
            await _check_source(connection, db)
            rows = await (
                await connection.execute(
                    "SELECT * FROM immich_ai.stale_documents(%s, %s, %s, %s)", (after, _BATCH, thorough, since)
                )
            ).fetchall()
            words: set[str] = set()
            for row in rows:
                report = await _take_over(connection, row, report, words)
            await add_words(connection, words)
        if len(rows) < _BATCH:
            break
        after = rows[-1]["asset_id"]
    async with db.connection() as connection:
        await _lock(connection)
        await _check_source(connection, db)
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
        await add_words(connection, await _put(connection, row, model))


async def keep_in_sync(
    db: Database,
    every: float,
    wanted: str,
    tell: Callable[[SyncStatus], None],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Sync now and every ``every`` seconds; return when the database should be opened anew, for another source.

    What goes wrong is told to ``tell``, counted in a metric, logged (each new reason once), and tried again after
    pauses that double up to ten times ``every``. ``wanted``: the value of SEARCH_SOURCE. ``pause``: waits for as many
    seconds, or fewer where there is news.
    """
    status, rounds, thorough_from = SyncStatus(), 0, 0.0
    looked: datetime | None = None
    while True:
        try:
            with database_errors():
                if await _has_another_source(db, wanted):
                    return
                thorough, begun = time.monotonic() >= thorough_from, await _clock(db)
                report = await sync(db, thorough=thorough, since=None if looked is None else looked - _OVERLAP)
                looked = begun
                if thorough:
                    thorough_from = time.monotonic() + _THOROUGH_EVERY * every
                if rounds == 0:
                    await refresh(db)
            if report != SyncReport():
                log.info("%s", report)
            status, rounds = SyncStatus(synced_at=datetime.now(timezone.utc)), rounds + 1
            metrics.SEARCH_SYNCED.set_to_current_time()
        except SourceSwitched:
            return
        except Exception as error:  # noqa: BLE001 - the loop must outlive any; it is told and logged
            status = _failed(status, error)
        tell(status)
        await pause(every * min(2 ** max(status.failures - 1, 0), 10))


def _failed(before: SyncStatus, error: Exception) -> SyncStatus:
    known = isinstance(error, ServiceError | psycopg.Error)
    reason = f"{type(error).__name__}; the service's log has the details."
    if known:
        reason = str(error).partition("\n")[0].rstrip(".") + "."
    if reason != before.trouble:
        log.warning("Search could not be kept up to date: %s It is tried again.", reason, exc_info=not known)
    metrics.SEARCH_SYNC_FAILURES.inc()
    return SyncStatus(synced_at=before.synced_at, failures=before.failures + 1, trouble=reason)


async def _clock(db: Database) -> datetime:
    """Return the database's time, by which Immich marks what it changes."""
    async with db.connection() as connection:
        row = await (await connection.execute("SELECT clock_timestamp() AS now")).fetchone()
    return row["now"] if row else datetime.now(timezone.utc)


async def _has_another_source(db: Database, wanted: str) -> bool:
    """Return whether the database was switched, or has got Immich's tables while our own index is empty."""
    async with db.connection() as connection:
        row = await (await connection.execute(_SOURCES)).fetchone()
    if row is None or row["stored"] != db.source.value:
        return True
    return wanted == "auto" and db.source is Source.STANDALONE and row["found"] != row["stored"] and not row["own"]


async def _check_source(connection: Connection, db: Database) -> None:
    """Raise ``SourceSwitched`` unless the views show the source that ``db`` was opened for.

    Call it under the lock of ``_lock``, which whoever switches takes too.
    """
    row = await (await connection.execute(_SOURCES)).fetchone()
    if row is None or row["stored"] != db.source.value:
        raise SourceSwitched("The database was switched to another source meanwhile; nothing was changed. Start again.")


async def _lock(connection: Connection) -> None:
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (SYNC_LOCK,))


async def _take_over(connection: Connection, row: Mapping[str, Any], report: SyncReport, words: set[str]) -> SyncReport:
    """Make one document; its words are added to ``words``."""
    try:
        async with connection.transaction():  # a savepoint: one bad text must not hold up the others
            words.update(await _put(connection, row, None))
    except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
        values = (row["asset_id"], ErrorCode.INTERNAL.value, str(error).partition("\n")[0])
        await connection.execute(_FAILED, values)
        return replace(report, failed=report.failed + 1)
    await connection.execute(
        "DELETE FROM immich_ai.failure WHERE subject = %s AND task = 'ocr'", (str(row["asset_id"]),)
    )
    return replace(report, updated=report.updated + 1) if row["known"] else replace(report, added=report.added + 1)


async def _put(connection: AsyncConnection[Any], row: Mapping[str, Any], model: str | None) -> tuple[str, ...]:
    """Write a document; returns its words."""
    made = await put_document(
        connection,
        row["asset_id"],
        row["lines"] or (),
        boxes=row["boxes"] or (),
        model=model,
        read_at=row["read_at"] or datetime.now(timezone.utc),
        source_read_at=row["read_at"],
        source_digest=row["digest"],
    )
    return made.words


_SOURCES = """
SELECT (SELECT value FROM immich_ai.setting WHERE name = 'source') AS stored, immich_ai.detect_source() AS found,
       EXISTS (SELECT FROM immich_ai.asset) AS own
"""
_FAILED = """
INSERT INTO immich_ai.failure (asset_id, task, code, message) VALUES (%s, 'ocr', %s, %s)
ON CONFLICT (subject, task) DO UPDATE SET
    (code, message, attempts, failed_at) = (excluded.code, excluded.message, failure.attempts + 1, now())
"""
