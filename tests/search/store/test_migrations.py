"""search.store.migrations: each file once, in order, whole or not at all, by one process at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from search.store import migrations
from search.store.errors import SearchUnavailable
from search.store.migrations import LOCK, migrate, pending

if TYPE_CHECKING:
    from tests.search.conftest import Server


@pytest.fixture
def empty(postgresql: Server) -> Iterator[str]:
    """Yield the conninfo of a database with nothing in it."""
    conninfo = postgresql.empty()
    yield conninfo
    postgresql.drop(str(conninfo_to_dict(conninfo)["dbname"]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "0001_first", "CREATE TABLE immich_ai.first (n integer); INSERT INTO immich_ai.first VALUES (1);")
    write(tmp_path, "0002_second", "INSERT INTO immich_ai.first VALUES (2);")
    return tmp_path


def write(folder: Path, name: str, statements: str) -> None:
    (folder / f"{name}.sql").write_text(statements, encoding="utf-8")


def rows(conninfo: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        return connection.execute(query).fetchall()


def test_each_file_is_applied_once_and_in_order(empty: str, folder: Path) -> None:
    assert migrate(empty, folder) == ("0001_first", "0002_second")
    assert migrate(empty, folder) == ()
    write(folder, "0003_third", "INSERT INTO immich_ai.first VALUES (3);")
    assert migrate(empty, folder) == ("0003_third",)
    assert rows(empty, "SELECT n FROM immich_ai.first") == [(1,), (2,), (3,)]


def test_our_own_files_make_a_schema_of_ours_and_leave_public_alone(empty: str) -> None:
    names = migrate(empty)
    assert names == tuple(sorted(path.stem for path in migrations.FOLDER.glob("*.sql")))
    assert rows(empty, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'") == []
    owned = rows(
        empty,
        "SELECT count(*) FROM pg_proc p WHERE pronamespace = 'immich_ai'::regnamespace AND proname = "
        "'index_embeddings'",
    )
    assert owned == [(1,)]


def test_a_file_that_fails_leaves_nothing_behind_and_those_before_it_stay(empty: str, folder: Path) -> None:
    write(folder, "0003_third", "INSERT INTO immich_ai.first VALUES (3); SELECT nonsense;")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        migrate(empty, folder)
    assert rows(empty, "SELECT n FROM immich_ai.first") == [(1,), (2,)]
    write(folder, "0003_third", "INSERT INTO immich_ai.first VALUES (4);")
    assert migrate(empty, folder) == ("0003_third",)
    assert rows(empty, "SELECT n FROM immich_ai.first") == [(1,), (2,), (4,)]


def test_two_that_migrate_at_once_wait_for_each_other(empty: str, folder: Path) -> None:
    write(folder, "0003_third", "DO $$ BEGIN PERFORM pg_sleep(0.2); END $$; INSERT INTO immich_ai.first VALUES (3);")
    done: list[tuple[str, ...]] = []
    threads = [threading.Thread(target=lambda: done.append(migrate(empty, folder))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [(), (), ("0001_first", "0002_second", "0003_third")]
    assert rows(empty, "SELECT n FROM immich_ai.first") == [(1,), (2,), (3,)]


def test_a_killed_migration_leaves_no_lock_and_nothing_half_done(empty: str, folder: Path) -> None:
    write(folder, "0003_third", "INSERT INTO immich_ai.first VALUES (3); DO $$ BEGIN PERFORM pg_sleep(600); END $$;")
    errors: list[Exception] = []

    def killed() -> None:
        try:
            migrate(empty, folder)
        except psycopg.OperationalError as error:
            errors.append(error)

    thread = threading.Thread(target=killed)
    thread.start()
    sleeping = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = "
        "'PgSleep'"
    )
    while thread.is_alive() and not rows(empty, sleeping):
        pass
    thread.join()
    assert len(errors) == 1
    write(folder, "0003_third", "INSERT INTO immich_ai.first VALUES (3);")
    assert migrate(empty, folder) == ("0003_third",)
    assert rows(empty, "SELECT n FROM immich_ai.first") == [(1,), (2,), (3,)]
    assert rows(empty, f"SELECT pg_try_advisory_lock({LOCK})") == [(True,)]


def test_a_database_ahead_of_the_code_is_refused(empty: str, folder: Path) -> None:
    migrate(empty, folder)
    (folder / "0002_second.sql").unlink()
    with pytest.raises(SearchUnavailable, match="0002_second"):
        migrate(empty, folder)
    with psycopg.connect(empty) as connection, pytest.raises(SearchUnavailable, match="newer version"):
        pending(connection, folder)


def test_functions_with_semicolons_quotes_and_comments_in_them_arrive_whole(empty: str, folder: Path) -> None:
    write(
        folder,
        "0003_third",
        """-- A comment; with a semicolon, and 100% of 发票.
        CREATE FUNCTION immich_ai.odd(n integer) RETURNS text LANGUAGE plpgsql AS $body$
        DECLARE
            part text := 'a;b''c';
        BEGIN
            -- BEGIN; END;
            IF n > 0 THEN
                CASE n WHEN 1 THEN part := part || ';$$'; ELSE NULL; END CASE;
            END IF;
            EXECUTE format($sql$ SELECT %L || '%%' $sql$, part) INTO part;
            FOR i IN 1..2 LOOP part := part || i; END LOOP;
            RETURN part || '发票';
        END;
        $body$;
        INSERT INTO immich_ai.first VALUES (3);
        """,
    )
    migrate(empty, folder)
    assert rows(empty, "SELECT immich_ai.odd(1)") == [("a;b'c;$$%12发票",)]
    assert rows(empty, "SELECT count(*) FROM immich_ai.first") == [(3,)]


def test_a_role_that_may_not_create_a_schema_is_told_what_to_do(empty: str, folder: Path) -> None:
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS may_nothing")
        connection.execute("CREATE ROLE may_nothing LOGIN")
        try:
            with pytest.raises(SearchUnavailable, match="python -m search migrate"):
                migrate(f"{empty} user=may_nothing", folder)
        finally:
            connection.execute("DROP ROLE may_nothing")


def test_a_database_that_yoyo_migrated_keeps_its_marks_and_is_not_migrated_again(empty: str, folder: Path) -> None:
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE SCHEMA immich_ai")
        for file in sorted(folder.glob("*.sql")):
            connection.execute(file.read_bytes())
        connection.execute((Path(__file__).parent / "yoyo_marks.sql").read_bytes())
        assert pending(connection, folder) == ()
    write(folder, "0003_third", "INSERT INTO immich_ai.first VALUES (3);")
    assert migrate(empty, folder) == ("0003_third",)
    assert migrate(empty, folder) == ()
    assert rows(empty, "SELECT n FROM immich_ai.first") == [(1,), (2,), (3,)]
    tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'immich_ai' ORDER BY 1"
    assert rows(empty, tables) == [("first",), ("migration",)]


def test_a_database_that_yoyo_migrated_and_is_ahead_is_refused(empty: str, folder: Path) -> None:
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA immich_ai")
        connection.execute((Path(__file__).parent / "yoyo_marks.sql").read_bytes())
    (folder / "0002_second.sql").unlink()
    with pytest.raises(SearchUnavailable, match="0002_second"):
        migrate(empty, folder)


def test_an_owner_who_may_not_create_pgvector_is_told_who_may(empty: str, folder: Path) -> None:
    name = str(conninfo_to_dict(empty)["dbname"])
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("CREATE ROLE plain_owner LOGIN")
        connection.execute(f"ALTER DATABASE {name} OWNER TO plain_owner")
        try:
            with pytest.raises(SearchUnavailable, match=r"superuser.*CREATE EXTENSION vector SCHEMA public"):
                migrate(f"{empty} user=plain_owner", folder)
            connection.execute("CREATE EXTENSION vector SCHEMA public")
            assert migrate(f"{empty} user=plain_owner", folder) == ("0001_first", "0002_second")
        finally:
            connection.execute(f"ALTER DATABASE {name} OWNER TO CURRENT_USER")
            connection.execute("REASSIGN OWNED BY plain_owner TO CURRENT_USER")
            connection.execute("DROP ROLE plain_owner")
