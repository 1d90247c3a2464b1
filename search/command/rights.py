"""``python -m search grants`` and ``uninstall``: statements for the owner of the database, printed, never run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import psycopg

from search.store.errors import SearchUnavailable
from search.store.grants import grants, uninstall
from settings import Settings


async def print_statements(config: Settings, role: str | None) -> int:
    """Print what gives ``role`` its rights, or (None) what takes search out of the database again.

    Raises ``ServiceError`` SEARCH_UNAVAILABLE.
    """
    print("\n".join(await asyncio.to_thread(_statements, config, role)))  # noqa: T201
    return 0


def _statements(config: Settings, role: str | None) -> Sequence[str]:
    """Return the statements for ``role``, or those that uninstall. Reads catalogs alone, which any role may."""
    if config.database_url is None:
        raise SearchUnavailable(
            "The embedded database has no roles. To remove search, stop the service and delete SEARCH_FOLDER; with "
            "DATABASE_URL this prints statements for that database."
        )
    try:
        with psycopg.connect(config.database_url.get_secret_value(), connect_timeout=10) as connection:
            return list(uninstall(connection) if role is None else grants(connection, role))
    except psycopg.OperationalError as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise SearchUnavailable(f"The database of search cannot be used: {reason}. Check DATABASE_URL.") from error
