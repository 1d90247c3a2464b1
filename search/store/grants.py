"""The rights that search's role needs in a database, and how to take all of search out of it again, as statements.

The one list of them: ``python -m search grants`` and ``uninstall`` print it for the tables that are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from search.store.migrations import SCHEMA, vector_schema

_WRITE = "SELECT, INSERT, UPDATE, DELETE"


@dataclass(frozen=True, slots=True)
class Right:
    """A right to some tables, and what it is for."""

    purpose: str
    privileges: str
    tables: tuple[str, ...]
    """With their schemas. Those that this database does not have are left out."""


RIGHTS = (
    Right(
        "To search.",
        "SELECT",
        (
            *("public.asset", "public.assets", "public.smart_search"),
            *("public.asset_ocr", "public.ocr_info", "public.asset_job_status"),
        ),
    ),
    Right(
        "To follow what Immich reads. Without it the service says that it may not, and searches what is there.",
        "INSERT, UPDATE, DELETE",
        ("immich_ai.ocr_document", "immich_ai.failure"),
    ),
    Right("The same: it lists the words of what is read.", "INSERT", ("immich_ai.word",)),
    Right(
        "To do pictures again, which writes the rows that Immich itself writes.",
        _WRITE,
        ("public.smart_search", "public.asset_ocr", "public.ocr_search", "public.asset_job_status", "public.ocr_info"),
    ),
    Right("To find the pictures whose faces Immich has lost.", "SELECT", ("public.asset_face",)),
    Right(
        "The same: Immich's trigger notes there, with the rights of whoever deletes, of which pictures lines of text "
        "are gone. That is read to follow them sooner.",
        "SELECT, INSERT",
        ("public.asset_ocr_audit",),
    ),
    Right(
        "To do pictures again by the models and limits that Immich is set to, instead of by its defaults. Immich keeps "
        "its passwords for mail and OAuth in the same table.",
        "SELECT",
        ("public.system_metadata",),
    ),
)


def grants(connection: psycopg.Connection[Any], role: str) -> Iterator[str]:
    """Yield the statements, and comments, that give ``role`` its rights in this database."""
    name = _quoted(role)
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
        yield f"CREATE ROLE {name} LOGIN PASSWORD 'choose one';"
    yield f"-- Backups of this database name {name}: in a new cluster, create the role before one is restored."
    schemas = dict.fromkeys((SCHEMA, vector_schema(connection) or "public", "public"))
    yield f"GRANT USAGE ON SCHEMA {', '.join(map(_quoted, schemas))} TO {name};"
    yield f"GRANT SELECT ON ALL TABLES IN SCHEMA {SCHEMA} TO {name};"
    if owner := _owner(connection):
        yield (
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {_quoted(owner)} IN SCHEMA {SCHEMA} GRANT SELECT ON TABLES TO {name};"
            "  -- of later versions"
        )
    there = _tables(connection)
    for right in RIGHTS:
        if tables := [table for table in right.tables if table in there]:
            yield f"-- {right.purpose}"
            yield f"GRANT {right.privileges} ON {', '.join(tables)} TO {name};"


def missing_rights(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield each purpose for which the role of ``connection`` lacks a right on a table that is there, with the
    statements that give it. Reads catalogs alone, which any role may.
    """
    role = _quoted(connection.info.user)
    for right in RIGHTS:
        statements = []
        for table in right.tables:
            lacking = [one for one in right.privileges.split(", ") if not _may(connection, table, one)]
            if lacking:
                statements.append(f"GRANT {', '.join(lacking)} ON {table} TO {role};")
        if statements:
            yield right.purpose, statements


def _may(connection: psycopg.Connection[Any], table: str, privilege: str) -> bool:
    """Return whether this role may, or there is no such table here."""
    row = connection.execute(
        "SELECT coalesce(has_table_privilege(c.oid, %(privilege)s), true) FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname || '.' || c.relname = %(table)s",
        {"table": table, "privilege": privilege},
    ).fetchone()
    return row is None or bool(row[0])


def uninstall(connection: psycopg.Connection[Any]) -> Iterator[str]:
    """Yield the statements, and comments, that take search and the rights of its roles out of this database."""
    roles, there = _roles(connection), _tables(connection)
    yield f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;"
    tables = sorted({table for right in RIGHTS for table in right.tables} & {t for t in there if t[:7] == "public."})
    for role in map(_quoted, roles):
        if tables:
            yield f"REVOKE ALL ON {', '.join(tables)} FROM {role};"
        yield f"REVOKE ALL ON SCHEMA public FROM {role};"
        yield f"-- DROP ROLE {role};  -- where it has no rights in other databases"
    yield "-- The extension vector stays: Immich's own tables may need it."


def _owner(connection: psycopg.Connection[Any]) -> str | None:
    query = "SELECT r.rolname FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = %s"
    row = connection.execute(query, (SCHEMA,)).fetchone()
    return row[0] if row else None


def _roles(connection: psycopg.Connection[Any]) -> Sequence[str]:
    """Return the roles other than its owner that may use our schema."""
    return [row[0] for row in connection.execute(_ROLES, (SCHEMA,))]


def _tables(connection: psycopg.Connection[Any]) -> set[str]:
    rows = connection.execute(
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p') AND n.nspname IN ('public', %s)",
        (SCHEMA,),
    )
    return {row[0] for row in rows}


def _quoted(name: str) -> str:
    return name if name.isidentifier() and name.islower() else sql.Identifier(name).as_string(None)


_ROLES = """
SELECT DISTINCT r.rolname FROM pg_namespace n, LATERAL aclexplode(n.nspacl) a JOIN pg_roles r ON r.oid = a.grantee
WHERE n.nspname = %s AND a.grantee <> n.nspowner ORDER BY 1
"""
