"""The source: whose pictures are searched, and when that may change.

Views hide the source (``sql/0002_sources.sql``). To switch them is to search other pictures, so that only two things
do it: ``python -m search migrate``, and an opening of a database in which nothing would be searched differently: our
own index is empty, or Immich itself has changed its tables.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import Any

import psycopg

from search.store.errors import SearchUnavailable

log = logging.getLogger("service")

SYNC_LOCK = 0x696D6D6963680002
"""Key of the advisory lock of whoever copies Immich's texts, or switches the source."""


class Source(str, Enum):
    """The tables whose pictures are searched: the values of SEARCH_SOURCE."""

    STANDALONE = "standalone"
    IMMICH = "immich"
    IMMICH_1_134 = "immich-1.134"


class Switch(Enum):
    """The conditions on which an opening of a database may switch it to another source."""

    NEVER = "never"
    """Commands that only read."""
    IF_HARMLESS = "if harmless"
    """Nothing that is searched now is hidden by it."""
    ALWAYS = "always"
    """The person asked for it."""


def choose_source(
    connection: psycopg.Connection[Any], wanted: str, switch: Switch, *, may_write: bool, changed: bool
) -> Source:
    """Return the source that is searched from now on, and switch the views to it where that is needed and allowed.

    ``wanted``: a value of SEARCH_SOURCE. ``may_write``: the role may own the schema. ``changed``: the schema was
    brought up to date just now, so that the views are made anew. Raises ``ServiceError`` SEARCH_UNAVAILABLE.
    """
    stored, found = Source(setting(connection, "source") or "standalone"), detected_source(connection)
    keep = switch is Switch.NEVER and wanted == "auto"
    target = stored if keep else _target(connection, wanted, stored, found)
    if target is not stored and switch is not Switch.ALWAYS:
        harmless = _is_harmless(connection, stored, target)
        if switch is Switch.NEVER or not harmless:
            raise SearchUnavailable(
                f"The database is set up to search another source ({stored.value}) than SEARCH_SOURCE={wanted} asks "
                f"for ({target.value}). `python -m search migrate`, run with these settings, switches it; or set "
                f"SEARCH_SOURCE={stored.value}."
            )
    if changed or target is not stored:
        if not may_write:
            raise SearchUnavailable(
                f"The database is set up for another source than {target.value}. Run `python -m search migrate` as its "
                "owner."
            )
        _use(connection, target)
    return target


def detected_source(connection: psycopg.Connection[Any]) -> Source:
    """Return whose tables are in the database."""
    row = connection.execute("SELECT immich_ai.detect_source()").fetchone()
    return Source(row[0] if row else Source.STANDALONE.value)


def setting(connection: psycopg.Connection[Any], name: str) -> str | None:
    """Return a value of the table ``setting``, or None where there is none."""
    row = connection.execute("SELECT value FROM immich_ai.setting WHERE name = %s", (name,)).fetchone()
    return row[0] if row else None


def _target(connection: psycopg.Connection[Any], wanted: str, stored: Source, found: Source) -> Source:
    if wanted != "auto":
        target = Source(wanted)
        if target not in (found, Source.STANDALONE):
            raise SearchUnavailable(
                f"SEARCH_SOURCE is {target.value}, but the database has no tables of it (it looks like: {found.value})."
            )
        return target
    if stored is not Source.STANDALONE and found is Source.STANDALONE:
        raise SearchUnavailable(
            "This Immich is not known: search was set up for its pictures, and the tables asset, smart_search and "
            "asset_ocr are not all there any more. A newer version of this software may know it. If Immich was removed "
            "from the database, set SEARCH_SOURCE=standalone and run `python -m search migrate`."
        )
    if stored is Source.STANDALONE and found is not stored and _has_own_pictures(connection):
        return stored
    return found


def _is_harmless(connection: psycopg.Connection[Any], stored: Source, target: Source) -> bool:
    if stored is Source.STANDALONE:
        return not _has_own_pictures(connection)
    return target is not Source.STANDALONE  # Immich was upgraded


def _has_own_pictures(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT EXISTS (SELECT FROM immich_ai.asset)").fetchone()
    return row is not None and bool(row[0])


def _use(connection: psycopg.Connection[Any], source: Source) -> None:
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (SYNC_LOCK,))  # not in the middle of a sync
        connection.execute("SELECT immich_ai.use_source(%s)", (source.value,))
    log.info("Search reads the source %s.", source.value)
