"""Search's life within the service: its database is opened in the background, kept up to date with Immich, and closed
at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from errors import ErrorCode, ServiceError
from search.http.pace import SyncPace
from settings import Settings

if TYPE_CHECKING:
    from search.immich.sync_status import SyncStatus
    from search.store.database import Database

log = logging.getLogger("service")

_RETRY_AFTER = 5.0
"""Seconds between attempts to open a database."""


class SearchLife:
    """The database of requests, from the start of the service to its end."""

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._database: Database | None = None
        self._trouble: str | None = None
        self._task: asyncio.Task[None] | None = None
        self.sync: SyncStatus | None = None
        self.pace = SyncPace()

    def start(self) -> None:
        """Begin to open the database; returns at once. Nothing at all happens unless ``SEARCH_ENABLED``, or while
        nobody may search: by the key, or as a user of Immich.
        """
        config = self._config
        as_user_of_immich = config.immich_url and (config.search_bar != "off" or config.page_enabled)
        if config.search_enabled and config.api_auth_key is None and not as_user_of_immich:
            log.info(
                "Search is not started: nobody may search without a key. Set API_AUTH_KEY, or IMMICH_URL for users of "
                "Immich, or SEARCH_ENABLED=false to silence this."
            )
        elif config.search_enabled:
            self._task = asyncio.create_task(self._run())

    def database(self) -> Database:
        """Return the open database. Raises ``ServiceError`` SEARCH_UNAVAILABLE with the reason while there is none."""
        if self._database is not None:
            return self._database
        if not self._config.search_enabled:
            raise ServiceError(
                ErrorCode.SEARCH_UNAVAILABLE,
                "Search is switched off: set SEARCH_ENABLED=true and start the service again.",
            )
        raise ServiceError(
            ErrorCode.SEARCH_UNAVAILABLE, self._trouble or "Search is still starting. Try again shortly."
        )

    async def close(self) -> None:
        """Close the database; the embedded one stops with its last user."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._database is not None:
            database, self._database = self._database, None
            await database.close()

    async def _run(self) -> None:
        # Imported here, because words and their dictionary are large.
        from search.immich.sync import keep_in_sync

        while True:
            before, self._database = self._database, await self._open()
            if before is not None:
                with contextlib.suppress(Exception):  # its connections end with it either way
                    await before.close()
            database = self._database
            log.info("Search is ready: pictures of %s, words cut by %s.", database.source.value, database.cutter)
            await self._tell_of_other_vectors(database)
            await keep_in_sync(
                database, self._config.search_sync_seconds, self._config.search_source, self._tell, self.pace.pause
            )
            log.info("The database has another source now; it is opened anew.")

    async def _tell_of_other_vectors(self, database: Database) -> None:
        """Log why searches by meaning are refused, if the stored vectors are of another CLIP model than that in use."""
        import psycopg

        from models.catalog import load_catalog
        from search.store.models_in_use import models_in_use

        catalog = load_catalog(self._config.model_catalog)
        try:
            async with database.connection() as connection:
                models = await models_in_use(connection, database.source.value, catalog, self._config)
        except (ServiceError, psycopg.Error) as error:
            log.warning("The vectors that are stored could not be looked at: %s", error)
            return
        if models.clip_refusal is not None:
            log.warning("Only searches for text are answered. %s", models.clip_refusal.message)

    def _tell(self, status: SyncStatus) -> None:
        self.sync = status

    async def _open(self) -> Database:
        """Return the database as soon as it can be opened. Each new reason why it cannot is logged once."""
        from search.store.database import open_database

        while True:
            try:
                return await open_database(self._config)
            except ServiceError as error:
                if error.message != self._trouble:
                    log.warning("There is no search yet: %s It is tried again every %g s.", error.message, _RETRY_AFTER)
                self._trouble = error.message
            except Exception:
                if self._trouble is None:
                    log.exception("There is no search yet. It is tried again every %g s.", _RETRY_AFTER)
                self._trouble = "The database could not be opened; the service's log has the details."
            await asyncio.sleep(_RETRY_AFTER)
