"""search.immich.sync: the searched texts follow what Immich reads, re-reads, hides and deletes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from search.immich import sync as sync_module
from search.immich.sync import SyncReport, copy_document, keep_in_sync, sync
from search.immich.sync_status import SyncStatus
from search.store.database import Database, examine
from search.store.documents import Searched, put_document
from search.store.errors import SourceSwitched
from search.store.source import Source
from tests.search.immich.library import START, Library


@pytest.fixture
def library(immich_database: Database) -> Iterator[Library]:
    library = Library(immich_database.conninfo)
    yield library
    library.close()


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_module, "_BATCH", 3)


def run(db: Database, *, thorough: bool = False) -> SyncReport:
    return asyncio.run(sync(db, thorough=thorough))


def texts(library: Library) -> dict[UUID, str]:
    return dict(library.connection.execute("SELECT asset_id, text FROM immich_ai.ocr_document").fetchall())


def counts(library: Library) -> tuple[int, ...]:
    row = library.connection.execute(
        "SELECT assets, read, empty, failed, waiting FROM immich_ai.count_documents()"
    ).fetchone()
    assert row is not None
    return row


def test_an_upload_waits_then_is_read_or_empty(immich_database: Database, library: Library) -> None:
    waiting, read, empty = (library.upload() for _ in range(3))
    library.read(read, ["发票", "TOTAL 12.50"])
    library.read(empty, [])
    assert run(immich_database) == SyncReport(added=2)
    assert texts(library) == {read: "发票\nTOTAL 12.50", empty: ""}
    assert counts(library) == (3, 1, 1, 0, 1)
    assert run(immich_database) == SyncReport()
    assert waiting not in texts(library)


def test_reading_again_replaces_the_text_also_by_less_of_it_and_by_none(
    immich_database: Database, library: Library
) -> None:
    asset = library.upload()
    library.read(asset, ["one", "two"])
    run(immich_database)
    library.read(asset, ["one"])
    assert run(immich_database) == SyncReport(updated=1)
    assert texts(library) == {asset: "one"}
    library.read(asset, [])
    run(immich_database)
    assert texts(library) == {asset: ""}


def test_what_is_deleted_or_is_to_be_read_anew_is_dropped_and_what_is_in_the_trash_is_kept(
    immich_database: Database, library: Library
) -> None:
    deleted, reset, trashed = (library.upload() for _ in range(3))
    for asset in (deleted, reset, trashed):
        library.read(asset, ["text"])
    run(immich_database)
    library.delete(deleted)
    library.connection.execute('UPDATE asset_job_status SET "ocrAt" = NULL WHERE "assetId" = %s', (reset,))
    library.set(trashed, '"deletedAt" = now()')
    assert run(immich_database) == SyncReport(removed=2)
    assert set(texts(library)) == {trashed}


def test_the_first_force_run_of_ocr_keeps_texts_until_they_are_read_anew(
    immich_database: Database, library: Library
) -> None:
    asset = library.upload()
    library.read(asset, ["text"])
    run(immich_database)
    library.connection.execute("TRUNCATE asset_ocr")  # what "OCR: all" does first; "ocrAt" stays
    assert run(immich_database) == SyncReport()
    assert texts(library) == {asset: "text"}


def test_a_line_that_an_edit_hid_is_found_by_a_thorough_look(immich_database: Database, library: Library) -> None:
    asset, other = library.upload(), library.upload()
    library.read(asset, ["kept", "cropped away"])
    library.read(other, ["other"])
    run(immich_database)
    library.connection.execute("UPDATE asset_ocr SET \"isVisible\" = false WHERE text = 'cropped away'")
    assert run(immich_database) == SyncReport()
    assert run(immich_database, thorough=True) == SyncReport(updated=1)
    assert texts(library) == {asset: "kept", other: "other"}
    assert run(immich_database, thorough=True) == SyncReport()


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("thorough", [False, True])
def test_more_than_one_batch_is_taken_over_whole(immich_database: Database, library: Library, thorough: bool) -> None:
    assets = [library.upload() for _ in range(8)]
    for n, asset in enumerate(assets):
        library.read(asset, [f"text {n}"])
    assert run(immich_database, thorough=thorough) == SyncReport(added=8)
    assert texts(library) == {asset: f"text {n}" for n, asset in enumerate(assets)}


@pytest.mark.usefixtures("small_batches")
def test_a_sync_that_was_cut_off_goes_on_where_it_was(
    immich_database: Database, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(8):
        library.read(library.upload(), [f"text {n}"])
    calls = 0

    async def dies_at_the_fifth(*args: Any, **kwargs: Any) -> Searched:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise psycopg.OperationalError("the server went away")
        return await put_document(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(sync_module, "put_document", dies_at_the_fifth)
        with pytest.raises(psycopg.OperationalError):
            run(immich_database)
    assert len(texts(library)) == 3  # whole batches only
    assert run(immich_database) == SyncReport(added=5)


def test_a_text_that_postgresql_refuses_does_not_hold_up_the_others(
    immich_database: Database, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = library.upload(), library.upload()
    library.read(bad, ["bad"])
    library.read(good, ["good"])

    async def refuses(connection: Any, asset_id: UUID, lines: list[str], **kwargs: Any) -> Searched:
        if lines == ["bad"]:
            await connection.execute("SELECT 1 / 0")
        return await put_document(connection, asset_id, lines, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(sync_module, "put_document", refuses)
        assert run(immich_database) == SyncReport(added=1, failed=1)
        assert counts(library) == (2, 1, 0, 1, 0)
        run(immich_database)
    [(attempts, message)] = library.connection.execute("SELECT attempts, message FROM immich_ai.failure").fetchall()
    assert (attempts, message) == (2, "division by zero")
    assert run(immich_database) == SyncReport(added=1)
    assert counts(library) == (2, 2, 0, 0, 0)


def test_two_that_sync_at_once_take_each_text_over_once(immich_database: Database, library: Library) -> None:
    for n in range(20):
        library.read(library.upload(), [f"text {n}"])

    async def both() -> tuple[SyncReport, SyncReport]:
        return await asyncio.gather(sync(immich_database), sync(immich_database))

    reports = asyncio.run(both())
    assert sum(report.added for report in reports) == 20
    assert sum(report.updated for report in reports) == 0


def test_one_document_is_copied_or_dropped_as_the_transaction_sees_it(
    immich_database: Database, library: Library
) -> None:
    asset = library.upload()
    library.read(asset, ["text"])

    async def copy() -> None:
        async with immich_database.connection() as connection:
            await copy_document(connection, asset, model="PP-OCRv6_small")

    asyncio.run(copy())
    assert library.connection.execute("SELECT text, model FROM immich_ai.ocr_document").fetchall() == [
        ("text", "PP-OCRv6_small")
    ]
    assert run(immich_database, thorough=True) == SyncReport()
    library.connection.execute("DELETE FROM asset_job_status")
    asyncio.run(copy())
    assert texts(library) == {}


def test_the_forks_texts_are_compared_as_it_does_not_say_when_it_read_them(fork_database: Database) -> None:
    library = Library(fork_database.conninfo, assets="assets")
    asset, gone = library.upload(), library.upload()
    library.read_by_the_fork(asset, ["一", "二"])
    library.read_by_the_fork(gone, [])
    assert run(fork_database) == SyncReport(added=2)
    assert texts(library) == {asset: "一\n二", gone: ""}
    assert run(fork_database) == SyncReport()
    library.read_by_the_fork(asset, ["一"])
    library.delete(gone)
    assert run(fork_database) == SyncReport(updated=1, removed=1)
    assert texts(library) == {asset: "一"}
    library.close()


def test_nothing_is_synced_into_our_own_index(database: Database) -> None:
    async def story() -> SyncReport:
        async with database.connection() as connection:
            await put_document(connection, uuid4(), ["ours"], model="m", read_at=START)
        return await sync(database, thorough=True)

    assert asyncio.run(story()) == SyncReport()
    with psycopg.connect(database.conninfo) as connection:
        assert connection.execute("SELECT count(*) FROM immich_ai.ocr_document").fetchone() == (1,)


def test_the_loop_goes_on_after_an_error_says_each_reason_once_and_tells_how_it_is(
    immich_database: Database, library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    asset = library.upload()
    library.read(asset, ["text"])
    library.connection.execute("ALTER TABLE asset_ocr RENAME COLUMN text TO words")

    told: list[SyncStatus] = []

    async def story() -> None:
        loop = asyncio.create_task(keep_in_sync(immich_database, 0.01, "auto", told.append))
        while not caplog.records:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        library.connection.execute("ALTER TABLE asset_ocr RENAME COLUMN words TO text")
        while asset not in texts(library):
            await asyncio.sleep(0.01)
        while told[-1].failures:
            await asyncio.sleep(0.01)
        loop.cancel()

    with caplog.at_level("INFO", logger="service"):
        asyncio.run(story())
    warnings = [
        record.getMessage() for record in caplog.records if record.name == "service" and record.levelname == "WARNING"
    ]
    assert len(warnings) == 1
    assert "This Immich is not known" in warnings[0]
    assert told[0].failures == 1
    assert "does not exist" in str(told[0].trouble)
    assert (told[-1].failures, told[-1].trouble) == (0, None)
    assert told[-1].synced_at is not None


def test_the_loop_goes_on_after_an_error_of_ours(
    immich_database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = iter([True, False])

    async def sync_or_fail(db: Database, **how: object) -> SyncReport:
        if next(broken):
            raise ZeroDivisionError
        raise SourceSwitched("Enough.")

    monkeypatch.setattr(sync_module, "sync", sync_or_fail)
    told: list[SyncStatus] = []
    asyncio.run(keep_in_sync(immich_database, 0.01, "auto", told.append))
    assert "ZeroDivisionError" in str(told[0].trouble)
    assert any(record.exc_info for record in caplog.records)


def test_the_loop_ends_where_the_database_got_another_source(database: Database, immich_database: Database) -> None:
    with psycopg.connect(immich_database.conninfo, autocommit=True) as connection:
        connection.execute("SELECT immich_ai.use_source('standalone')")
    asyncio.run(asyncio.wait_for(keep_in_sync(immich_database, 0.01, "auto", lambda status: None), 10))
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        connection.execute((Path(__file__).parent / "tables_2_5.sql").read_bytes())
    asyncio.run(asyncio.wait_for(keep_in_sync(database, 0.01, "auto", lambda status: None), 10))
    assert examine(database.conninfo, "auto", migrate=True).source is Source.IMMICH


def test_a_sync_deletes_nothing_where_the_source_is_not_its_own(immich_database: Database, library: Library) -> None:
    asset = library.upload()
    library.read(asset, ["发票"])
    asyncio.run(sync(immich_database))
    library.connection.execute("SELECT immich_ai.use_source('standalone')")
    with pytest.raises(SourceSwitched):
        asyncio.run(sync(immich_database))
    assert asset in texts(library)


def test_documents_of_our_own_index_outlive_a_time_with_immich(immich_database: Database, library: Library) -> None:
    own = uuid4()
    library.connection.execute(
        "INSERT INTO immich_ai.asset (id, uri, kind, size, modified, content_hash)"
        " VALUES (%s, '/a', 'image', 1, now(), '')",
        (own,),
    )

    async def story() -> None:
        async with immich_database.connection() as connection:
            await put_document(connection, own, ["ours"], model="m", read_at=START)
        await sync(immich_database, thorough=True)

    asyncio.run(story())
    assert own in texts(library)
