"""What the tests of search share: databases, each fresh, on one embedded server (and on that of TEST_DATABASE_URL,
where it is set).

A database is copied from one that was migrated once for the session, which takes a tenth of a second. Fixtures:

    database          our own index, empty
    immich_database   beside the tables of Immich 2.5, which are empty
    immich_databases  the same, and once more beside those of 3.1
    fork_database     beside those of 1.134's fork

TEST_DATABASE_URL: a role that may create databases, on a server with pgvector. Tests then run twice, as [embedded] and
[server].
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from search.embedded.server import EmbeddedServer
from search.store.database import Connection, Database, examine
from tools.harness.open_folder import open_folder

HERE = Path(__file__).resolve().parent
IMMICHS = {
    "2.5": ("immich/tables_2_5.sql",),
    "3.1": ("immich/tables_2_5.sql", "immich/tables_3_1.sql"),
}
"""Files with the tables of each version; what is known of 3.3 is as in 3.1."""
SERVERS = ("embedded", "server") if os.environ.get("TEST_DATABASE_URL") else ("embedded",)


class UnpooledDatabase(Database):
    """A database whose every connection is new, so that one may be used in several event loops."""

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with await AsyncConnection.connect(self.conninfo, row_factory=dict_row) as connection:
            await self._configure(connection)
            yield connection

    @contextlib.asynccontextmanager
    async def _reader(self) -> AsyncIterator[Connection]:
        async with await AsyncConnection.connect(self.conninfo, row_factory=dict_row, autocommit=True) as connection:
            await self._configure_reading(connection)
            yield connection


@dataclass
class Server:
    """Where databases are made: templates once, copies for tests."""

    conninfo: str
    templates: dict[tuple[str, ...], str] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)

    def _execute(self, *statements: sql.Composed) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def _create(self, template: str) -> str:
        name = f"test_{os.getpid()}_{next(self.numbers)}"
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop(self, name: str) -> None:
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def of(self, name: str) -> str:
        return make_conninfo(self.conninfo, dbname=name)

    def empty(self) -> str:
        """Make a database with nothing in it and return its conninfo."""
        return self.of(self._create("template0"))

    def copy(self, tables: tuple[str, ...]) -> str:
        """Make a database with our schema, beside Immich's tables of these files; return its name."""
        if tables not in self.templates:
            template = self._create("template0")
            if tables:
                with psycopg.connect(self.of(template), autocommit=True) as connection:
                    connection.execute("CREATE EXTENSION vector")
                    for file in tables:
                        connection.execute((HERE / file).read_bytes())
            examine(self.of(template), "auto", migrate=True)
            self.templates[tables] = template
        return self._create(self.templates[tables])


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[EmbeddedServer]:
    """Yield one embedded PostgreSQL for the session."""
    with open_folder() as folder:
        server = EmbeddedServer(folder)
        with psycopg.connect(server.start(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # nothing of it is to last
            connection.execute("SELECT pg_reload_conf()")
        yield server
        server.close()


@pytest.fixture(scope="session", params=SERVERS)
def postgresql(request: pytest.FixtureRequest, embedded_server: EmbeddedServer) -> Iterator[Server]:
    server = Server(embedded_server.start() if request.param == "embedded" else os.environ["TEST_DATABASE_URL"])
    yield server
    for template in server.templates.values():
        server.drop(template)


def _database(postgresql: Server, *tables: str) -> Iterator[Database]:
    name = postgresql.copy(tables)
    conninfo = postgresql.of(name)
    yield UnpooledDatabase(conninfo, examine(conninfo, "auto", migrate=False))
    postgresql.drop(name)


@pytest.fixture
def database(postgresql: Server) -> Iterator[Database]:
    """Return our own index, empty."""
    yield from _database(postgresql)


@pytest.fixture
def immich_database(postgresql: Server) -> Iterator[Database]:
    """Return search beside the tables of Immich 2.5, which are empty."""
    yield from _database(postgresql, *IMMICHS["2.5"])


@pytest.fixture(params=IMMICHS)
def immich_databases(request: pytest.FixtureRequest, postgresql: Server) -> Iterator[Database]:
    """Return search beside the tables of each Immich that differs in those that search touches."""
    yield from _database(postgresql, *IMMICHS[request.param])


@pytest.fixture
def fork_database(postgresql: Server) -> Iterator[Database]:
    """Return search beside the tables of 1.134's fork, which are empty."""
    yield from _database(postgresql, "immich/tables_1_134.sql")
