"""Brings a database to the schema that this code was written for: the files of sql/, in order, each once.

yoyo-migrations reads and splits the files and keeps the list of what was applied, in the tables _yoyo_* of our own
schema. What it leaves open is closed here: its lock is a row that a killed process leaves behind, so ours is an
advisory lock, which PostgreSQL gives up with the connection; and it marks a migration as applied after committing it,
so here both are one transaction.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import parse_uri
from yoyo.migrations import Migration, MigrationList

from search.store.unavailable import SearchUnavailable

log = logging.getLogger("service")

FOLDER = Path(__file__).resolve().parents[2] / "sql"
SCHEMA = "immich_ai"
LOCK = 0x696D6D6963680001
"""Key of the advisory lock under which the schema is changed: "immich" in ASCII, and 1."""


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo's backend over a connection that exists, with PostgreSQL's own lock."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._given = connection
        super().__init__(parse_uri("postgresql+psycopg://"), "_yoyo_migrations")

    def connect(self, dburi: object) -> psycopg.Connection[Any]:
        return self._given

    @contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:
        yield  # migrate() holds the advisory lock around all of it

    def apply_atomically(self, migration: Migration) -> None:
        """The statements of the migration and the note that it was applied, in one transaction."""
        with self.transaction():
            migration.process_steps(self, "apply")
            # Not into yoyo's log table: it asks the system for a user name and DNS for a host name, and neither need
            # have an answer.
            self.mark_one(migration, log=False)


def migrate(conninfo: str, folder: Path = FOLDER) -> tuple[str, ...]:
    """Apply what ``folder`` has and the database at ``conninfo`` has not; return the names of what was applied, in
    order.

    Blocks: while another process migrates, and as long as the statements take. Raises ``ServiceError``
    SEARCH_UNAVAILABLE where pgvector is missing, where the role may not do it, and where the database is ahead of the
    code.
    """
    try:
        with psycopg.connect(conninfo, autocommit=True, application_name="immich-bento migrate") as connection:
            if not pending(connection, folder):
                return ()
            connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
            _prepare(connection)
            return _apply(_Backend(connection), _files(folder))
    except psycopg.errors.InsufficientPrivilege as error:
        raise SearchUnavailable(
            f"The role {conninfo_to_dict(conninfo).get('user', '')!r} may not change the schema {SCHEMA} "
            f"({_first_line(error)})."
            " Run `python -m search migrate` once as the owner of the database; searching needs SELECT alone "
            "(docs/search-setup.md)."
        ) from error


def pending(connection: psycopg.Connection[Any], folder: Path = FOLDER) -> tuple[str, ...]:
    """Names of the migrations that the database still lacks. Reads only; raises ``ServiceError`` where the database is
    ahead.
    """
    names = [migration.id for migration in _files(folder)]
    if connection.execute("SELECT to_regclass('immich_ai._yoyo_migrations')").fetchone() in (None, (None,)):
        return tuple(names)
    applied = {row[0] for row in connection.execute("SELECT migration_id FROM immich_ai._yoyo_migrations")}
    _refuse_newer(applied - set(names))
    return tuple(name for name in names if name not in applied)


def _files(folder: Path) -> MigrationList:
    found = read_migrations(glob.escape(str(folder)))
    return MigrationList(
        [migration for migration in found if migration.is_raw_sql()]
    )  # the package's __init__.py is not one


def _prepare(connection: psycopg.Connection[Any]) -> None:
    """The schema and the extension: what the numbered files take for granted. yoyo's tables land in the first schema of
    the path.
    """
    if connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", (SCHEMA,)).fetchone() is None:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
    if vector_schema(connection) is None:
        try:
            connection.execute("CREATE EXTENSION vector")
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
            raise SearchUnavailable(
                "This PostgreSQL has no pgvector. Install it (https://github.com/pgvector/pgvector#installation),"
                " or leave DATABASE_URL empty to use the embedded database, which has it."
            ) from error
    schema = vector_schema(connection)
    connection.execute(
        sql.SQL("SET search_path TO {}, {}, public").format(sql.Identifier(SCHEMA), sql.Identifier(schema or "public"))
    )


def vector_schema(connection: psycopg.Connection[Any]) -> str | None:
    """The schema that pgvector is installed in, or None where it is not."""
    row = connection.execute(
        "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
    ).fetchone()
    return row[0] if row else None


def _apply(backend: _Backend, migrations: MigrationList) -> tuple[str, ...]:
    backend.ensure_internal_schema_updated()
    applied = {row[0] for row in backend.execute("SELECT migration_id FROM immich_ai._yoyo_migrations").fetchall()}
    _refuse_newer(applied - {migration.id for migration in migrations})
    done = []
    for migration in sorted(backend.to_apply(migrations), key=lambda one: one.id):
        backend.apply_atomically(migration)
        done.append(migration.id)
    if done:
        log.info("Database brought up to date: %s.", ", ".join(done))
    return tuple(done)


def _refuse_newer(unknown: set[str]) -> None:
    if unknown:
        raise SearchUnavailable(
            f"The database was set up by a newer version of this software: it has {', '.join(sorted(unknown))}, which "
            "is unknown here."
            " Install that version, or restore a backup from before the upgrade."
        )


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
