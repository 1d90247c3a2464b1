"""The database of search: whether it can be reached, is up to date, and gives this role its rights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from errors import ServiceError
from immich_bento.doctor.finding import Finding, good, skipped, warning, wrong
from search.store.database import embedded_folder
from search.store.grants import missing_rights
from search.store.migrations import SCHEMA, pending, vector_schema
from settings import Settings

_OLDEST = 140000


def check_database(config: Settings) -> Iterator[Finding]:
    """Yield what is found. Reads catalogs alone, which any role may; nothing is changed or started."""
    if not config.search_enabled:
        yield skipped("database", "search is switched off (SEARCH_ENABLED=false)")
        return
    if config.api_auth_key is None and not config.immich_url:
        yield skipped("database", "the service does not search without a key", "Set API_AUTH_KEY to have search.")
    if config.database_url is None:
        folder = embedded_folder(config)
        there = "is there" if folder.exists() else "is made when search first starts"
        yield good("database", f"the embedded one; its folder {folder} {there}")
        return
    try:
        conninfo = config.database_url.get_secret_value()
        conninfo_to_dict(conninfo)
        with psycopg.connect(conninfo, connect_timeout=10, application_name="immich-bento doctor") as connection:
            yield from _check(connection)
    except psycopg.ProgrammingError:  # it quotes the address, password and all
        yield wrong("database", "DATABASE_URL cannot be read", "Write `postgresql://user:password@host:5432/database`.")
    except psycopg.OperationalError as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        yield wrong("database", f"it cannot be reached: {reason}", "Check DATABASE_URL, and that the server runs.")


def _check(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    info = connection.info
    version = f"PostgreSQL {info.server_version // 10000}, database {info.dbname}, as {info.user}"
    if info.server_version < _OLDEST:
        yield wrong("database", version, "Use PostgreSQL 14 to 18.")
        return
    yield good("database", version)
    if vector_schema(connection) is None:
        yield wrong(
            "pgvector", "the extension vector is not in this database",
            "As a superuser: CREATE EXTENSION vector SCHEMA public;",
        )  # fmt: skip
        return
    yield _schema(connection)
    yield from _rights(connection)


def _schema(connection: psycopg.Connection[Any]) -> Finding:
    try:
        lacking = pending(connection)
    except psycopg.errors.InsufficientPrivilege:
        connection.rollback()
        return wrong(
            "schema", f"{connection.info.user} may not read the schema {SCHEMA}",
            f"As its owner: run what `python -m search grants {connection.info.user}` prints.",
        )  # fmt: skip
    except ServiceError as error:
        return wrong("schema", error.message, "Install the newer version of this service.")
    if lacking:
        return wrong(
            "schema", f"{SCHEMA} lacks {', '.join(lacking)}",
            "Run `python -m search migrate` as the owner of the database (DATABASE_URL with its name).",
        )  # fmt: skip
    return good("schema", f"{SCHEMA} is up to date")


def _rights(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Yield one finding for each purpose for which a right is missing, with the statements that give it."""
    missing = list(missing_rights(connection))
    for purpose, statements in missing:
        yield warning("rights", f"missing: {purpose}", "As the owner of the tables: " + " ".join(statements))
    if not missing:
        yield good("rights", f"{connection.info.user} may do all that search does")
