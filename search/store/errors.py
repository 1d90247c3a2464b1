"""The error of a database that cannot be used, and what PostgreSQL's errors say to a caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from errors import ErrorCode, ServiceError

if TYPE_CHECKING:
    import psycopg

STATEMENT_SECONDS = 5
"""Seconds that one query of a search may take."""


class SearchUnavailable(ServiceError):
    """SEARCH_UNAVAILABLE: there is no database, or not one that search can use. The message says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.SEARCH_UNAVAILABLE, message)


class SourceSwitched(SearchUnavailable):
    """The database was switched to another source while it was open: whoever has it open opens it anew."""


@contextmanager
def database_errors() -> Iterator[None]:
    """Raise what PostgreSQL and its client may say within the block as ``SearchUnavailable``, with what to do."""
    import psycopg  # large, and not needed where search is off
    from psycopg_pool import PoolClosed, PoolTimeout

    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        raise SearchUnavailable(
            f"The database took longer than {STATEMENT_SECONDS} s for this search and was stopped. Ask for something "
            "less common, or with fewer alternatives; if every search is slow, the database is too busy."
        ) from error
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedColumn,
        psycopg.errors.UndefinedFunction,
        psycopg.errors.InvalidSchemaName,
    ) as error:
        raise what_is_missing(error) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SearchUnavailable(
            f"The role of DATABASE_URL lacks a right: {error.diag.message_primary}. `python -m search grants` prints "
            "the statements that give it."
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed) as error:
        raise SearchUnavailable(f"The database does not answer ({type(error).__name__}: {error}).") from error


def what_is_missing(error: psycopg.Error) -> SearchUnavailable:
    """Return what a table, column or function that is not there means."""
    what = error.diag.message_primary or str(error)
    if "immich_ai" in what:
        return SearchUnavailable(
            f"The schema of search is not complete: {what}. Run `python -m search migrate`, then restart the service."
        )
    return SearchUnavailable(
        f"This Immich is not known: {what}. docs/search-setup.md has the versions that search works with; a newer "
        "version of this software may know it."
    )
