"""The database, asked patiently: what it could not do because it was away is done again when it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, TypeVar

import psycopg

from errors import ErrorCode, ServiceError
from search.indexing.predictor import FIRST_WAIT, LONGEST_WAIT, CannotGoOn
from search.store.database import Database
from search.store.index import Connection

P = ParamSpec("P")
T = TypeVar("T")


class RetryingDatabase:
    """A database whose transactions are repeated as long as it is away. Each must be one that does no harm when done
    twice.
    """

    def __init__(self, database: Database, *, give_up_after: float = 600.0) -> None:
        """Use ``database``. ``give_up_after``: seconds after which this gives up."""
        self._database = database
        self._give_up_after = give_up_after

    async def run(
        self, work: Callable[Concatenate[Connection, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``work`` on a connection and the rest of the arguments, and return its result. Raises ``CannotGoOn``."""
        began, wait = time.monotonic(), FIRST_WAIT
        while True:
            try:
                async with self._database.connection() as connection:
                    return await work(connection, *args, **kwargs)
            except (psycopg.OperationalError, psycopg.InterfaceError, ServiceError) as error:
                if isinstance(error, ServiceError) and error.code is not ErrorCode.SEARCH_UNAVAILABLE:
                    raise
                if time.monotonic() - began > self._give_up_after:
                    raise CannotGoOn(
                        f"The database has been away for {self._give_up_after:g} s: {str(error).strip()}"
                    ) from error
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
