"""search.immich.sync follows what Immich marks as changed, without reading every text, and misses no late commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from uuid import UUID, uuid4

import psycopg
import pytest

from search.immich import sync as sync_module
from search.immich.sync import SyncReport, keep_in_sync, sync
from search.store.database import Database, Facts
from search.store.grants import grants
from tests.search.conftest import UnpooledDatabase
from tests.search.immich.library import Library

Step = Callable[[], object]


@pytest.fixture
def library(immich_databases: Database) -> Iterator[Library]:
    library = Library(immich_databases.conninfo)
    yield library
    library.close()


def texts(library: Library) -> dict[UUID, str]:
    return dict(library.connection.execute("SELECT asset_id, text FROM immich_ai.ocr_document").fetchall())


def looks(db: Database, steps: Sequence[Step]) -> None:
    """Have ``keep_in_sync`` look once, and once more after each of ``steps``. Only its first look is thorough."""
    left = iter(steps)

    async def pause(seconds: float) -> None:
        step = next(left, None)
        if step is None:
            raise asyncio.CancelledError
        step()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(keep_in_sync(db, 3600.0, "immich", lambda status: None, pause))


def has_marks_of_lines(library: Library) -> bool:
    """Return whether this Immich marks lines of text, and not only assets."""
    row = library.connection.execute("SELECT to_regclass('public.asset_ocr_audit') IS NOT NULL").fetchone()
    return row is not None and row[0]


def make_marks_old(library: Library) -> None:
    """Have everything that is there changed at the beginning of 2026."""
    execute = library.connection.execute
    execute("ALTER TABLE asset DISABLE TRIGGER USER")
    execute("UPDATE asset SET \"updateId\" = immich_uuid_v7('2026-01-01')")
    execute("ALTER TABLE asset ENABLE TRIGGER USER")
    if has_marks_of_lines(library):
        execute("UPDATE asset_ocr SET \"updateId\" = immich_uuid_v7('2026-01-01')")


def test_a_line_that_an_edit_hid_is_gone_at_the_next_look(immich_databases: Database, library: Library) -> None:
    asset, other = library.upload(), library.upload()
    library.read(asset, ["kept", "cropped away"])
    library.read(other, ["other"])
    looks(immich_databases, [lambda: library.hide(asset, "cropped away")])
    assert texts(library) == {asset: "kept", other: "other"}


def test_a_picture_all_of_whose_lines_are_hidden_has_no_text(immich_databases: Database, library: Library) -> None:
    asset = library.upload()
    library.read(asset, ["cropped away"])
    looks(immich_databases, [lambda: library.hide(asset, "cropped away")])
    assert texts(library) == {asset: ""}


def test_a_change_that_is_committed_after_the_next_look_began_is_not_missed(
    immich_databases: Database, library: Library
) -> None:
    asset = library.upload()
    library.read(asset, ["kept", "cropped away"])
    late = psycopg.connect(immich_databases.conninfo)

    def change() -> None:
        late.execute("UPDATE asset_ocr SET \"isVisible\" = false WHERE text = 'cropped away'")
        late.execute("UPDATE asset SET visibility = visibility WHERE id = %s", (asset,))

    def still_there() -> None:
        assert texts(library) == {asset: "kept\ncropped away"}
        late.commit()

    with late:
        looks(immich_databases, [change, still_there])
    assert texts(library) == {asset: "kept"}


def test_a_change_older_than_the_overlap_waits_for_a_thorough_look(
    immich_databases: Database, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_module, "_OVERLAP", timedelta(0))
    asset = library.upload()
    library.read(asset, ["kept", "cropped away"])
    late = psycopg.connect(immich_databases.conninfo)

    def change() -> None:
        late.execute("UPDATE asset_ocr SET \"isVisible\" = false WHERE text = 'cropped away'")
        late.execute("UPDATE asset SET visibility = visibility WHERE id = %s", (asset,))

    with late:
        looks(immich_databases, [change, late.commit])
    assert texts(library) == {asset: "kept\ncropped away"}
    looks(immich_databases, [])
    assert texts(library) == {asset: "kept"}


def test_lines_that_come_or_go_without_a_new_reading_are_followed_where_immich_marks_them(
    immich_databases: Database, library: Library
) -> None:
    more, less = library.upload(), library.upload()
    library.read(more, ["one"])
    library.read(less, ["one", "two"])
    make_marks_old(library)

    def change() -> None:
        library.connection.execute(
            'INSERT INTO asset_ocr ("assetId", x1, y1, x2, y2, x3, y3, x4, y4, "boxScore", "textScore", text)'
            " VALUES (%s, 0.1, 0.5, 0.4, 0.5, 0.4, 0.6, 0.1, 0.6, 0.9, 0.9, 'two')",
            (more,),
        )
        library.connection.execute("DELETE FROM asset_ocr WHERE \"assetId\" = %s AND text = 'two'", (less,))

    looks(immich_databases, [change])
    marked = has_marks_of_lines(library)
    assert texts(library) == {more: "one\ntwo" if marked else "one", less: "one" if marked else "one\ntwo"}
    looks(immich_databases, [])
    assert texts(library) == {more: "one\ntwo", less: "one"}


def test_texts_are_kept_until_they_are_read_anew_although_their_pictures_change(
    immich_databases: Database, library: Library
) -> None:
    asset = library.upload()
    library.read(asset, ["text"])

    def read_all_anew() -> None:
        library.connection.execute("TRUNCATE asset_ocr")
        library.set(asset, "visibility = visibility")

    looks(immich_databases, [read_all_anew])
    assert texts(library) == {asset: "text"}


def test_a_role_that_may_not_read_the_notes_of_deleted_lines_follows_the_rest(
    immich_databases: Database, library: Library
) -> None:
    name = f"bento_{uuid4().hex[:8]}"
    for statement in grants(library.connection, name):
        if not statement.startswith("--"):
            library.connection.execute(statement.encode())
    if has_marks_of_lines(library):
        library.connection.execute(f"REVOKE SELECT ON asset_ocr_audit FROM {name}".encode())
    try:
        asset = library.upload()
        library.read(asset, ["kept", "cropped away"])
        facts = Facts(immich_databases.source, immich_databases.cutter, ("immich_ai", "public"))
        db = UnpooledDatabase(f"{immich_databases.conninfo} user={name}", facts)
        looks(db, [lambda: library.hide(asset, "cropped away")])
        assert texts(library) == {asset: "kept"}
    finally:
        library.connection.execute(f"DROP OWNED BY {name}".encode())
        library.connection.execute(f"DROP ROLE {name}".encode())


def test_only_what_was_changed_since_then_is_compared(immich_databases: Database, library: Library) -> None:
    before, after = library.upload(), library.upload()
    for asset in (before, after):
        library.read(asset, ["kept", "cropped away"])
    asyncio.run(sync(immich_databases))
    library.hide(before, "cropped away")
    make_marks_old(library)
    library.hide(after, "cropped away")
    assert asyncio.run(sync(immich_databases)) == SyncReport()
    since = datetime(2026, 1, 2, tzinfo=timezone.utc)
    assert asyncio.run(sync(immich_databases, since=since)) == SyncReport(updated=1)
    assert texts(library) == {before: "kept\ncropped away", after: "kept"}
    assert asyncio.run(sync(immich_databases, since=since - timedelta(days=2))) == SyncReport(updated=1)
    assert set(texts(library).values()) == {"kept"}
