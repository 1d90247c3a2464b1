"""search.store.database: which database, its checks, and what becomes of connections when it goes away."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from search.embedded.server import EmbeddedServer
from search.store import database as database_module
from search.store.database import Database, Facts, embedded_folder, examine, open_database
from search.store.errors import STATEMENT_SECONDS, SearchUnavailable
from search.store.source import Source, Switch
from settings import Settings
from tools.harness.open_folder import open_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as path:
        yield path


async def one(db: Database, query: str) -> object:
    async with db.connection() as connection:
        row = await (await connection.execute(query)).fetchone()
        return next(iter(row.values())) if row else None


def test_the_source_is_found_by_the_tables_that_are_there(
    database: Database, immich_database: Database, fork_database: Database
) -> None:
    assert (database.source, immich_database.source, fork_database.source) == (
        Source.STANDALONE,
        Source.IMMICH,
        Source.IMMICH_1_134,
    )


def test_a_source_whose_tables_are_missing_is_refused(database: Database) -> None:
    with pytest.raises(SearchUnavailable, match="SEARCH_SOURCE is immich"):
        examine(database.conninfo, "immich", migrate=True)


def test_our_own_index_may_be_kept_beside_immichs_tables(immich_database: Database) -> None:
    conninfo = immich_database.conninfo
    assert examine(conninfo, "standalone", migrate=True, switch=Switch.ALWAYS).source is Source.STANDALONE
    with pytest.raises(SearchUnavailable, match="another source"):
        examine(conninfo, "immich", migrate=False)
    assert examine(conninfo, "immich", migrate=True, switch=Switch.ALWAYS).source is Source.IMMICH


def test_only_the_person_switches_between_sources_that_have_pictures(immich_database: Database) -> None:
    conninfo = immich_database.conninfo
    for switch in (Switch.NEVER, Switch.IF_HARMLESS):
        with pytest.raises(SearchUnavailable, match=r"another source \(immich\).*search migrate"):
            examine(conninfo, "standalone", migrate=True, switch=switch)
        assert examine(conninfo, "auto", migrate=True, switch=switch).source is Source.IMMICH
    examine(conninfo, "standalone", migrate=True, switch=Switch.ALWAYS)
    assert examine(conninfo, "auto", migrate=True, switch=Switch.NEVER).source is Source.STANDALONE
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO immich_ai.asset (uri, kind, size, modified, content_hash) VALUES ('/a', 'image', 1, now(), '')"
        )
    assert examine(conninfo, "auto", migrate=True).source is Source.STANDALONE
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("DELETE FROM immich_ai.asset")
    assert examine(conninfo, "auto", migrate=True).source is Source.IMMICH


def test_an_immich_that_lost_its_tables_or_columns_is_not_known(immich_database: Database) -> None:
    conninfo = immich_database.conninfo
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("ALTER TABLE smart_search RENAME TO embeddings")
    with pytest.raises(SearchUnavailable, match="This Immich is not known"):
        examine(conninfo, "auto", migrate=True)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("ALTER TABLE embeddings RENAME TO smart_search")
        connection.execute("ALTER TABLE smart_search RENAME COLUMN embedding TO vector")
        connection.execute("UPDATE immich_ai.setting SET value = 'standalone' WHERE name = 'source'")
    with pytest.raises(SearchUnavailable, match=r"This Immich is not known.*embedding"):
        examine(conninfo, "auto", migrate=True)


def test_a_block_is_one_transaction(database: Database) -> None:
    insert = "INSERT INTO immich_ai.setting VALUES ('a', 'b')"

    async def fails() -> None:
        async with database.connection() as connection:
            await connection.execute(insert)
            raise ZeroDivisionError

    async def story() -> object:
        with pytest.raises(ZeroDivisionError):
            await fails()
        return await one(database, "SELECT count(*) FROM immich_ai.setting WHERE name = 'a'")

    assert asyncio.run(story()) == 0


def test_the_pool_replaces_connections_that_died(database: Database) -> None:
    async def story() -> None:
        db = Database(database.conninfo, Facts(database.source, database.cutter, ("immich_ai", "public")))
        await db.open()
        pid = await one(db, "SELECT pg_backend_pid()")
        assert pid == await one(db, "SELECT pg_backend_pid()")
        with psycopg.connect(database.conninfo, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        assert pid != await one(db, "SELECT pg_backend_pid()")
        assert await one(db, "SELECT current_setting('search_path')") == "immich_ai, public"
        await db.close()

    asyncio.run(story())


def test_rows_come_by_connections_of_their_own_that_are_replaced_when_they_die(database: Database) -> None:
    settings = """
        SELECT pg_backend_pid() AS pid, current_setting('search_path') AS path,
               current_setting('plan_cache_mode') AS plan, current_setting('statement_timeout') AS timeout
        WHERE %(asked)s
    """

    async def story() -> None:
        db = Database(database.conninfo, Facts(database.source, database.cutter, ("immich_ai", "public")))
        await db.open()
        (before,) = await db.rows(settings, {"asked": True})
        assert await db.rows(settings, {"asked": False}) == []
        assert (before["path"], before["plan"]) == ("immich_ai, public", "force_generic_plan")
        assert before["timeout"] == f"{STATEMENT_SECONDS}s"
        assert await one(db, "SELECT current_setting('statement_timeout')") == "0"
        with psycopg.connect(database.conninfo, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (before["pid"],))
        (after,) = await db.rows(settings, {"asked": True})
        assert after | {"pid": 0} == before | {"pid": 0}
        assert after["pid"] != before["pid"]
        await db.close()

    asyncio.run(story())


def test_a_database_that_is_away_is_an_error_that_says_so_and_comes_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_GET_TIMEOUT", 0.2)
    facts = Facts(database.source, database.cutter, ("immich_ai", "public"))

    async def story() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            db = Database(f"host=127.0.0.1 port={closed.getsockname()[1]} dbname=x", facts)
            await db.open()
            with pytest.raises(SearchUnavailable, match="down, or all"):
                await one(db, "SELECT 1")
            await db.close()
        with pytest.raises(SearchUnavailable):
            await one(db, "SELECT 1")

    asyncio.run(story())


def test_the_embedded_database_is_opened_revived_and_stopped(folder: Path) -> None:
    async def story() -> None:
        db = await open_database(Settings(search_folder=folder))
        assert db.source is Source.STANDALONE
        await one(db, "SELECT set_config('application_name', 'x', false)")
        async with db.connection() as connection:
            await connection.execute("INSERT INTO immich_ai.setting VALUES ('kept', 'yes')")
        os.kill(int((folder / "postgresql" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        while EmbeddedServer(folder).running():
            await asyncio.sleep(0.02)
        answers = await asyncio.gather(
            *(one(db, "SELECT value FROM immich_ai.setting WHERE name = 'kept'") for _ in range(4))
        )
        assert answers == ["yes"] * 4
        second = await open_database(Settings(search_folder=folder))
        await db.close()
        assert await one(second, "SELECT 1") == 1
        await second.close()

    asyncio.run(story())
    assert not EmbeddedServer(folder).running()


def test_an_opening_that_fails_stops_the_embedded_server(folder: Path) -> None:
    with pytest.raises(SearchUnavailable, match="SEARCH_SOURCE"):
        asyncio.run(open_database(Settings(search_folder=folder, search_source="immich")))
    assert not EmbeddedServer(folder).running()


@pytest.mark.parametrize("url", ["postgresql://user:secret@127.0.0.1:1/x", "postgresql://user:secret@/x?host=/nowhere"])
def test_an_address_that_leads_nowhere_is_an_error_without_the_password(url: str) -> None:
    with pytest.raises(SearchUnavailable, match="cannot be used") as caught:
        asyncio.run(open_database(Settings(database_url=SecretStr(url))))
    assert "secret" not in caught.value.message


def test_a_database_without_the_schema_is_not_changed_unless_asked(embedded_server: EmbeddedServer) -> None:
    conninfo = make_conninfo(embedded_server.start(), dbname="postgres")
    with pytest.raises(SearchUnavailable, match="python -m search migrate"):
        examine(conninfo, "auto", migrate=False)
    with psycopg.connect(conninfo) as connection:
        assert connection.execute("SELECT FROM pg_namespace WHERE nspname = 'immich_ai'").fetchone() is None


def test_a_role_that_may_only_read_can_open_a_database_that_is_up_to_date(immich_database: Database) -> None:
    role = f"reader_{uuid4().hex[:8]}"
    with psycopg.connect(immich_database.conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA immich_ai TO {role}")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA immich_ai TO {role}")
        try:
            facts = examine(f"{immich_database.conninfo} user={role}", "auto", migrate=True)
            assert facts.source is Source.IMMICH
        finally:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("version", ["0.4.4", "none"])
def test_an_old_pgvector_is_refused(database: Database, version: str) -> None:
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        connection.execute("UPDATE pg_extension SET extversion = %s WHERE extname = 'vector'", (version,))
    with pytest.raises(SearchUnavailable, match="needs 0"):
        examine(database.conninfo, "auto", migrate=False)


def test_an_old_postgresql_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_OLDEST", 99)
    with pytest.raises(SearchUnavailable, match="search needs 99"):
        examine(database.conninfo, "auto", migrate=False)


def test_roots_default_folder_is_one_that_postgresql_may_enter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert embedded_folder(Settings()) == Path("/var/lib/immich-bento")
    assert embedded_folder(Settings(search_folder=tmp_path)) == tmp_path
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert embedded_folder(Settings()) == Settings().search_folder
