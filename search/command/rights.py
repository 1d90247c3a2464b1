"""``python -m search grants``, ``check`` and ``uninstall``: statements for the owner of the database, printed, never
run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg

from search.store.errors import SearchUnavailable
from search.store.grants import grants, missing_rights, uninstall
from settings import Settings

T = TypeVar("T")


async def check(config: Settings) -> int:
    """Print the rights that DATABASE_URL's role lacks, with the statements that give them; return 1 if there are any.

    Raises ``ServiceError`` SEARCH_UNAVAILABLE.
    """
    missing = await asyncio.to_thread(_of_database, config, lambda connection: list(missing_rights(connection)))
    for purpose, statements in missing:
        print("\n".join([f"-- Missing: {purpose}", *statements]))  # noqa: T201
    if not missing:
        print("-- The role of DATABASE_URL may do all that search does.")  # noqa: T201
    return 1 if missing else 0


async def print_statements(config: Settings, role: str | None) -> int:
    """Print what gives ``role`` its rights, or (None) what takes search out of the database again.

    Raises ``ServiceError`` SEARCH_UNAVAILABLE.
    """
    print("\n".join(await asyncio.to_thread(_statements, config, role)))  # noqa: T201
    return 0


def _statements(config: Settings, role: str | None) -> Sequence[str]:
    """Return the statements for ``role``, or those that uninstall. Reads catalogs alone, which any role may."""
    return _of_database(config, lambda c: list(uninstall(c) if role is None else grants(c, role)))


def _of_database(config: Settings, read: Callable[[psycopg.Connection[Any]], T]) -> T:
    """Return what ``read`` makes of a connection to DATABASE_URL."""
    if config.database_url is None:
        raise SearchUnavailable(
            "The embedded database has no roles. To remove search, stop the service and delete SEARCH_FOLDER; with "
            "DATABASE_URL this prints statements for that database."
        )
    try:
        with psycopg.connect(config.database_url.get_secret_value(), connect_timeout=10) as connection:
            return read(connection)
    except psycopg.OperationalError as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise SearchUnavailable(f"The database of search cannot be used: {reason}. Check DATABASE_URL.") from error
