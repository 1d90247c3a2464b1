"""The database that search reads and writes: which one, whose pictures, and connections to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import orjson
import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection, sql
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from search.embedded.server import EmbeddedServer
from search.store import migrations
from search.store.errors import STATEMENT_SECONDS, SearchUnavailable, what_is_missing
from search.store.source import Source, Switch, choose_source, setting
from settings import Settings

if TYPE_CHECKING:
    from psycopg.abc import QueryNoTemplate

log = logging.getLogger("service")

Connection: TypeAlias = AsyncConnection[DictRow]
Cutter: TypeAlias = Literal["zhparser", "jieba"]

_ROOTS_FOLDER = Path("/var/lib/immich-bento")
_POOL_SIZE = 8
"""Connections of each pool."""
_GET_TIMEOUT = 10.0
"""Seconds to wait for a connection before the caller is told that search is unavailable."""
_RECONNECT_TIMEOUT = 3.0
"""Seconds of growing pauses, after which the pool starts anew with short ones. With its default, five minutes, search
was away for most of a minute after the database was back.
"""
_OLDEST, _NEWEST = 14, 18
_OLDEST_PGVECTOR = (0, 5)


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about a database that a look at it brings."""

    source: Source
    cutter: Cutter
    search_path: tuple[str, ...]


class Database:
    """Pools of connections to one database. Made by ``open_database``; belongs to the event loop that it was opened
    in.
    """

    def __init__(self, conninfo: str, facts: Facts, server: EmbeddedServer | None = None) -> None:
        self.conninfo = conninfo
        self.source = facts.source
        self.cutter = facts.cutter
        self._search_path = facts.search_path
        self._server = server
        self._starting = asyncio.Lock()
        self._pool = self._new_pool("search")
        self._reading = self._new_pool("search reading", autocommit=True)

    def _new_pool(self, name: str, *, autocommit: bool = False) -> AsyncConnectionPool[Connection]:
        """Return a pool. ``autocommit``: of connections for ``rows``."""
        connecting = {"application_name": "immich-bento", "connect_timeout": 10, "autocommit": autocommit}
        return AsyncConnectionPool(
            self.conninfo,
            kwargs={"row_factory": dict_row, **connecting},
            min_size=0,
            max_size=_POOL_SIZE,
            timeout=_GET_TIMEOUT,
            open=False,
            configure=self._configure_reading if autocommit else self._configure,
            check=_check,  # one that died with the server is replaced, not handed out
            name=name,
            reconnect_timeout=_RECONNECT_TIMEOUT,
        )

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Open a connection inside a transaction: committed at the end, rolled back if an error leaves the block.

        Rows are dicts. Raises ``ServiceError`` SEARCH_UNAVAILABLE if the database cannot be reached; an embedded one
        that has died is started again.
        """
        async with self._taken(self._pool) as connection, connection:  # the pool replaces its close()
            yield connection

    async def rows(self, statement: QueryNoTemplate, values: Mapping[str, Any]) -> list[DictRow]:
        """Return the rows of one statement that only reads, as a search does: by a plan that each connection makes
        once, and in one way to the database and back.

        Raises as ``connection`` does, and what psycopg raises: QueryCanceled after ``STATEMENT_SECONDS``.
        """
        async with self._reader() as connection:
            cursor = await connection.execute(statement, values, prepare=True)
            return await cursor.fetchall()

    @contextlib.asynccontextmanager
    async def _reader(self) -> AsyncIterator[Connection]:
        async with self._taken(self._reading) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def _taken(self, pool: AsyncConnectionPool[Connection]) -> AsyncIterator[Connection]:
        await self._revive()
        try:
            connection = await pool.getconn()
        except (PoolTimeout, PoolClosed) as error:
            raise SearchUnavailable(
                f"No connection to the database of search within {_GET_TIMEOUT:.0f} s: it is down,"
                f" or all of its {_POOL_SIZE} connections are busy. Try again shortly."
            ) from error
        try:
            yield connection
        finally:
            await pool.putconn(connection)

    async def _revive(self) -> None:
        server = self._server
        if server is None or server.running():
            return
        async with self._starting:
            if not server.running():
                log.warning("The embedded PostgreSQL has stopped; starting it again.")
                await asyncio.to_thread(server.start)

    async def _configure(self, connection: Connection) -> None:
        path = sql.SQL(", ").join(map(sql.Identifier, self._search_path))
        await connection.execute(sql.SQL("SET search_path TO {}").format(path))
        await register_vector_async(connection)  # looks the type up in the search path
        set_json_loads(orjson.loads, connection)  # the lines of each hit come as JSON
        await connection.commit()

    async def _configure_reading(self, connection: Connection) -> None:
        await self._configure(connection)
        # One plan is right for all pages, and takes as long to make as a rare word takes to find.
        await connection.execute("SET plan_cache_mode TO force_generic_plan")
        await connection.execute(f"SET statement_timeout TO '{STATEMENT_SECONDS}s'")

    async def __aenter__(self) -> Database:
        """Return the database, which is closed at the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Start the pools; no connection is made until one is asked for."""
        await self._pool.open(wait=False)
        await self._reading.open(wait=False)

    async def close(self) -> None:
        """Close all connections, and stop the embedded server if no other process uses it."""
        await self._pool.close()
        await self._reading.close()
        if self._server is not None:
            await asyncio.to_thread(self._server.close)


async def _check(connection: Connection) -> None:
    """Raise what psycopg raises for a connection that is lost.

    A server that goes says so: only where something has come is it asked, which takes as long as finding a rare word.
    """
    come = select.poll()
    come.register(connection.fileno(), select.POLLIN)
    if come.poll(0):
        await AsyncConnectionPool.check_connection(connection)


async def open_database(config: Settings, *, migrate: bool = True, switch: Switch = Switch.IF_HARMLESS) -> Database:
    """Open the database that ``config`` names: checked, its schema up to date, its source chosen.

    ``migrate``: bring the schema up to date first, which takes a role that owns it; without, a role that may only read
    is enough. ``switch``: when another source than the database is set up for may be chosen. Raises ``ServiceError``
    SEARCH_UNAVAILABLE with what is wrong and what to do.
    """
    server = None if config.database_url is not None else EmbeddedServer(embedded_folder(config))
    try:
        conninfo = config.database_url.get_secret_value() if config.database_url is not None else None
        if server is not None:
            conninfo = await asyncio.to_thread(server.start)
        assert conninfo is not None  # noqa: S101
        facts = await asyncio.to_thread(examine, conninfo, config.search_source, migrate, switch)
        database = Database(conninfo, facts, server)
        await database.open()
    except BaseException:
        if server is not None:
            await asyncio.to_thread(server.close)
        raise
    return database


def embedded_folder(config: Settings) -> Path:
    """Return SEARCH_FOLDER; unless it is set, root's is /var/lib/immich-bento, as PostgreSQL runs as another user, who
    may not enter /root.
    """
    if os.geteuid() == 0 and "search_folder" not in config.model_fields_set:
        return _ROOTS_FOLDER
    return config.search_folder


def examine(conninfo: str, wanted: str, migrate: bool, switch: Switch = Switch.IF_HARMLESS) -> Facts:
    """Check the database, bring it up to date if ``migrate``, point it at the source ``wanted`` (a value of
    SEARCH_SOURCE). Blocks.
    """
    try:
        with psycopg.connect(
            conninfo, autocommit=True, connect_timeout=10, application_name="immich-bento"
        ) as connection:
            _check_versions(connection)
            changed = bool(migrations.migrate(conninfo)) if migrate else False
            if missing := migrations.pending(connection):
                raise SearchUnavailable(
                    f"The database lacks {', '.join(missing)}. Run `python -m search migrate` as its owner first."
                )
            _check_pgvector(connection)
            source = choose_source(connection, wanted, switch, may_write=migrate, changed=changed)
            cutter = setting(connection, "cutter")
            schema = migrations.vector_schema(connection) or "public"
    except psycopg.OperationalError as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise SearchUnavailable(
            f"The database of search cannot be used: {reason}. Check DATABASE_URL and that it runs."
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SearchUnavailable(
            f"The role of DATABASE_URL lacks a right: {error.diag.message_primary}. `python -m search grants` prints "
            "the statements that give it."
        ) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction) as error:
        raise what_is_missing(error) from error
    path = dict.fromkeys((migrations.SCHEMA, schema, "public"))
    return Facts(source, cast(Cutter, cutter), tuple(path))


def _check_versions(connection: psycopg.Connection[Any]) -> None:
    major = connection.info.server_version // 10000
    if major < _OLDEST:
        raise SearchUnavailable(f"The database is PostgreSQL {major}; search needs {_OLDEST} to {_NEWEST}.")
    if major > _NEWEST:
        log.warning("The database is PostgreSQL %d; this was tested with %d to %d.", major, _OLDEST, _NEWEST)


def _check_pgvector(connection: psycopg.Connection[Any]) -> None:
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    version = row[0] if row else "none"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < _OLDEST_PGVECTOR:
        raise SearchUnavailable(
            f"The database has pgvector {version}; search needs 0.5 or newer. Upgrade it, then `ALTER EXTENSION "
            "vector UPDATE`."
        )
