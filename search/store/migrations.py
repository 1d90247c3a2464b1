"""Bring a database to the schema that this code was written for: the files of sql/, in order, each once.

A file and its mark in ``immich_ai.migration`` are one transaction, under an advisory lock, which PostgreSQL gives up
with the connection: a killed migration leaves nothing half done, and no lock. Databases that yoyo-migrations set up,
which earlier versions used, keep their marks.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from search.store.errors import SearchUnavailable

log = logging.getLogger("service")

FOLDER = Path(__file__).resolve().parents[2] / "sql"
SCHEMA = "immich_ai"
LOCK = 0x696D6D6963680001
"""Key of the advisory lock under which the schema is changed: "immich" in ASCII, and 1."""

_YOYO = ("_yoyo_migrations", "_yoyo_log", "_yoyo_version", "yoyo_lock")
"""The tables that yoyo-migrations kept in our schema."""


def migrate(conninfo: str, folder: Path = FOLDER) -> tuple[str, ...]:
    """Apply what ``folder`` has and the database at ``conninfo`` has not; return the names of what was applied, in
    order.

    Blocks: while another process migrates, and as long as the statements take. Raises ``ServiceError``
    SEARCH_UNAVAILABLE where pgvector is missing, where the role may not do it, and where the database is ahead of the
    code.
    """
    with psycopg.connect(conninfo, autocommit=True, application_name="immich-bento migrate") as connection:
        if not pending(connection, folder) and _exists(connection, "migration"):
            return ()
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
            _create_schema(connection)
            _create_marks(connection)
            names = pending(connection, folder)
            for name in names:
                _apply(connection, folder, name)
        except psycopg.errors.InsufficientPrivilege as error:
            raise SearchUnavailable(
                f"The role {connection.info.user!r} may not change the schema {SCHEMA} ({error.diag.message_primary})."
                " Run `python -m search migrate` once as the owner of the database; searching needs SELECT alone "
                "(docs/search-setup.md)."
            ) from error
        return names


def pending(connection: psycopg.Connection[Any], folder: Path = FOLDER) -> tuple[str, ...]:
    """Return the names of the migrations that the database still lacks, in order.

    Reads only. Raises ``ServiceError`` SEARCH_UNAVAILABLE where the database is ahead of the code.
    """
    names = sorted(path.stem for path in folder.glob("*.sql"))
    applied = _applied(connection)
    if unknown := applied - set(names):
        raise SearchUnavailable(
            f"The database was set up by a newer version of this software: it has {', '.join(sorted(unknown))}, which "
            "is unknown here. Install that version, or restore a backup from before the upgrade."
        )
    return tuple(name for name in names if name not in applied)


def vector_schema(connection: psycopg.Connection[Any]) -> str | None:
    """Return the schema that pgvector is installed in, or None where it is not."""
    row = connection.execute(
        "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
    ).fetchone()
    return row[0] if row else None


def _applied(connection: psycopg.Connection[Any]) -> set[str]:
    if _exists(connection, "migration"):
        return {row[0] for row in connection.execute("SELECT name FROM immich_ai.migration")}
    if _exists(connection, _YOYO[0]):
        return {row[0] for row in connection.execute("SELECT migration_id FROM immich_ai._yoyo_migrations")}
    return set()


def _exists(connection: psycopg.Connection[Any], table: str) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (f"{SCHEMA}.{table}",)).fetchone()
    return row is not None and bool(row[0])


def _create_schema(connection: psycopg.Connection[Any]) -> None:
    """Create what the numbered files take for granted, the schema and pgvector, and set the search path to both."""
    if connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", (SCHEMA,)).fetchone() is None:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
    if vector_schema(connection) is None:
        _create_pgvector(connection)
    schema = vector_schema(connection) or "public"
    connection.execute(sql.SQL("SET search_path TO {}, {}, public").format(*map(sql.Identifier, (SCHEMA, schema))))


def _create_pgvector(connection: psycopg.Connection[Any]) -> None:
    try:
        connection.execute("CREATE EXTENSION vector SCHEMA public")
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
        raise SearchUnavailable(
            "This PostgreSQL has no pgvector. Install it (https://github.com/pgvector/pgvector#installation),"
            " or leave DATABASE_URL empty to use the embedded database, which has it."
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SearchUnavailable(
            f"The database {connection.info.dbname!r} has no pgvector yet, and only a superuser may create it. Run "
            "`CREATE EXTENSION vector SCHEMA public;` in that database as one (such as postgres), then "
            "`python -m search migrate` again."
        ) from error


def _create_marks(connection: psycopg.Connection[Any]) -> None:
    """Create the table of what was applied; marks of yoyo-migrations move into it."""
    if _exists(connection, "migration"):
        return
    with connection.transaction():
        applied = _applied(connection)
        connection.execute(
            "CREATE TABLE immich_ai.migration (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        for name in sorted(applied):
            connection.execute("INSERT INTO immich_ai.migration (name) VALUES (%s)", (name,))
        for table in _YOYO:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(SCHEMA, table)))


def _apply(connection: psycopg.Connection[Any], folder: Path, name: str) -> None:
    with connection.transaction():
        connection.execute((folder / f"{name}.sql").read_bytes())
        connection.execute("INSERT INTO immich_ai.migration (name) VALUES (%s)", (name,))
    log.info("Database brought up to date: %s.", name)
