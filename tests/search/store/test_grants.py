"""The statements for roles, and Immich's backup with and without them in a new cluster."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from immich_bento.doctor.database import check_database
from search.command.main import main
from search.embedded.server import EmbeddedServer
from search.embedded.setup import Programs
from search.immich.sync import SyncReport, sync
from search.store.database import Database, Facts, examine
from search.store.grants import RIGHTS, grants, missing_rights, uninstall
from search.store.source import Source
from settings import Settings
from tests.search.conftest import HERE, UnpooledDatabase
from tests.search.immich.library import Library
from tools.harness.open_folder import open_folder
from tools.harness.server import ROOT

if TYPE_CHECKING:
    pass


_TABLES = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('public', 'immich_ai')"


@pytest.fixture
def immich(immich_database: Database) -> Iterator[Library]:
    """Yield an Immich 3.1 with one picture that was read and embedded."""
    library = Library(immich_database.conninfo)
    library.connection.execute((HERE / "immich" / "tables_3_1.sql").read_bytes())
    asset = library.upload(name="发票.jpg")
    library.read(asset, ["发票"])
    library.embed(asset, [1.0] + [0.0] * 511)
    asyncio.run(sync(immich_database))
    yield library
    library.close()


@pytest.fixture
def role(immich: Library) -> Iterator[str]:
    """Yield a role with the rights that are printed."""
    name = f"bento_{uuid4().hex[:8]}"
    run(immich.connection, grants(immich.connection, name))
    yield name
    immich.connection.execute(f"DROP OWNED BY {name}")
    immich.connection.execute(f"DROP ROLE {name}")


def run(connection: psycopg.Connection, statements: Iterator[str]) -> None:
    for statement in list(statements):
        if not statement.startswith("--"):
            connection.execute(statement.encode())


def test_the_rights_are_those_of_the_tables_that_are_there(immich: Library, fork_database: Database) -> None:
    newest = "\n".join(grants(immich.connection, "bento"))
    assert "GRANT SELECT, INSERT ON public.asset_ocr_audit TO bento;" in newest
    assert "GRANT SELECT ON public.system_metadata TO bento;" in newest
    assert "ocr_info" not in newest
    with psycopg.connect(fork_database.conninfo) as connection:
        fork = "\n".join(grants(connection, 'Odd "role"'))
    assert 'CREATE ROLE "Odd ""role""" LOGIN' in fork
    assert "public.ocr_info" in fork
    assert "asset_ocr_audit" not in fork


def test_the_commands_print_them(
    immich: Library, immich_database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", immich_database.conninfo)
    assert main(["grants", "bento"]) == 0
    assert capsys.readouterr().out.splitlines() == list(grants(immich.connection, "bento"))
    assert main(["uninstall"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "DROP SCHEMA IF EXISTS immich_ai CASCADE;"


def test_the_check_names_what_is_missing_with_the_statement(
    immich: Library,
    immich_database: Database,
    role: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{immich_database.conninfo} user={role}")
    assert main(["check"]) == 0
    capsys.readouterr()
    immich.connection.execute(f"REVOKE INSERT ON public.asset_ocr_audit FROM {role}")
    immich.connection.execute(f"REVOKE UPDATE, DELETE ON public.asset_ocr FROM {role}")
    assert main(["check"]) == 1
    printed = capsys.readouterr().out
    assert f"GRANT INSERT ON public.asset_ocr_audit TO {role};" in printed
    assert f"GRANT UPDATE, DELETE ON public.asset_ocr TO {role};" in printed
    run(immich.connection, (line for line in printed.splitlines() if not line.startswith("--")))
    assert main(["check"]) == 0


def test_the_check_names_each_right_on_each_table_of_each_immich(immich_databases: Database) -> None:
    name = f"bento_{uuid4().hex[:8]}"
    with psycopg.connect(immich_databases.conninfo, autocommit=True) as owner:
        run(owner, grants(owner, name))
        conninfo = f"{immich_databases.conninfo} user={name}"
        there = {row[0] for row in owner.execute(_TABLES)}
        tried = set()
        try:
            for right in RIGHTS:
                for table in right.tables:
                    for privilege in right.privileges.split(", ") if table in there else ():
                        owner.execute(f"REVOKE {privilege} ON {table} FROM {name}".encode())
                        with psycopg.connect(conninfo) as connection:
                            found = [line for _, lines in missing_rights(connection) for line in lines]
                        statement = f"GRANT {privilege} ON {table} TO {name};"
                        assert set(found) == {statement}
                        owner.execute(statement.encode())
                        tried.add(table)
            with psycopg.connect(conninfo) as connection:
                assert not list(missing_rights(connection))
        finally:
            owner.execute(f"DROP OWNED BY {name}".encode())
            owner.execute(f"DROP ROLE {name}".encode())
    assert {"public.asset", "public.asset_ocr", "public.system_metadata", "immich_ai.word"} < tried
    assert ("public.asset_ocr_audit" in tried) == ("public.asset_ocr_audit" in there)


def test_the_docs_show_what_is_printed(immich: Library) -> None:
    text = (ROOT / "docs/search-setup.md").read_text(encoding="utf-8")
    block = re.search(r"```sql\n(CREATE ROLE bento.*?)```", text, re.DOTALL)
    assert block is not None
    owner = conninfo_to_dict(immich.connection.info.dsn).get("user", "postgres")
    printed = [line.replace(f"ROLE {owner} ", "ROLE owner ") for line in grants(immich.connection, "bento")]
    assert block[1].splitlines() == printed


def test_a_role_with_the_printed_rights_can_open_follow_and_write(
    immich: Library, immich_database: Database, role: str
) -> None:
    conninfo = f"{immich_database.conninfo} user={role}"
    assert examine(conninfo, "auto", migrate=True).source is Source.IMMICH
    facts = Facts(immich_database.source, immich_database.cutter, ("immich_ai", "public"))
    immich.read(immich.upload(), ["收据"])
    assert asyncio.run(sync(UnpooledDatabase(conninfo, facts))).added == 1
    with psycopg.connect(conninfo) as connection:
        connection.execute("DELETE FROM public.asset_ocr")
        assert connection.execute("SELECT count(*) FROM public.system_metadata").fetchone() == (0,)
        connection.rollback()


def test_a_sync_by_a_role_that_may_only_search_says_which_right_it_lacks(
    immich: Library,
    immich_database: Database,
    role: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    immich.read(immich.upload(), ["收据"])
    immich.connection.execute(f"REVOKE INSERT, UPDATE, DELETE ON immich_ai.ocr_document FROM {role}".encode())
    monkeypatch.setenv("DATABASE_URL", f"{immich_database.conninfo} user={role}")
    assert main(["sync"]) == 1
    said = capsys.readouterr().err
    assert "permission denied for table ocr_document" in said
    assert "search grants" in said
    assert "Traceback" not in said


def test_the_doctor_names_each_right_that_is_missing_with_its_statement(
    immich: Library, immich_database: Database, role: str
) -> None:
    config = Settings(database_url=SecretStr(f"{immich_database.conninfo} user={role}"), api_auth_key=SecretStr("key"))
    assert [finding.level.value for finding in check_database(config)] == ["good"] * 3
    immich.connection.execute(f"REVOKE INSERT ON public.asset_ocr_audit FROM {role}".encode())
    immich.connection.execute(f"REVOKE SELECT, DELETE ON public.ocr_search FROM {role}".encode())
    todos = [finding.todo for finding in check_database(config) if finding.level.value == "warning"]
    assert any(f"GRANT SELECT, DELETE ON public.ocr_search TO {role};" in todo for todo in todos)
    assert any(f"GRANT INSERT ON public.asset_ocr_audit TO {role};" in todo for todo in todos)


def test_without_usage_of_the_schema_the_grants_are_named_and_not_a_migration(immich_database: Database) -> None:
    name = f"nobody_{uuid4().hex[:8]}"
    with psycopg.connect(immich_database.conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN".encode())
        try:
            with pytest.raises(Exception, match="search grants") as refused:
                examine(f"{immich_database.conninfo} user={name}", "auto", migrate=True)
            assert "migrate" not in str(refused.value)
        finally:
            connection.execute(f"DROP ROLE {name}".encode())


class Cluster:
    """A new PostgreSQL, with the programs that Immich backs up and restores by."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.conninfo = server.start()
        self._programs = Programs.installed(server.data)

    def dump(self, conninfo: str, *options: str) -> str:
        return self._run("pg_dump", "--clean", "--if-exists", *options, "-d", conninfo).stdout

    def restore(self, dump: str, name: str) -> subprocess.CompletedProcess[str]:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        options = ("--single-transaction", "-v", "ON_ERROR_STOP=1", "-q", "-d", self.of(name))
        return self._run("psql", *options, input=dump, check=False)

    def of(self, name: str) -> str:
        return make_conninfo(self.conninfo, dbname=name)

    def _run(self, program: str, *options: str, **more: object) -> subprocess.CompletedProcess[str]:
        command = [str(self._programs.folder / program), *options]
        environment = {**os.environ, "PGOPTIONS": "-c client_min_messages=error"}
        arguments: dict[str, object] = {"check": True, "capture_output": True, "text": True, "env": environment} | more
        return subprocess.run(command, **arguments)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with open_folder() as folder:
        server = EmbeddedServer(folder)
        yield Cluster(server)
        server.close()


def restored(cluster: Cluster, name: str) -> Database:
    conninfo = cluster.of(name)
    return UnpooledDatabase(conninfo, examine(conninfo, "auto", migrate=True))


def documents(conninfo: str) -> list[tuple[UUID, str]]:
    with psycopg.connect(conninfo) as connection:
        return connection.execute("SELECT asset_id, text FROM immich_ai.ocr_document").fetchall()


def test_a_backup_with_the_role_restores_where_the_role_is(
    immich: Library, immich_database: Database, role: str, cluster: Cluster
) -> None:
    dump = cluster.dump(immich_database.conninfo)
    refused = cluster.restore(dump, "without_role")
    assert refused.returncode != 0
    assert f'role "{role}" does not exist' in refused.stderr
    with psycopg.connect(cluster.conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role}".encode())
    done = cluster.restore(dump, "with_role")
    assert (done.returncode, done.stderr) == (0, "")
    assert documents(cluster.of("with_role")) == documents(immich_database.conninfo) != []
    assert asyncio.run(sync(restored(cluster, "with_role"), thorough=True)) == SyncReport()


def test_a_backup_without_our_schema_restores_and_is_synced_again(
    immich: Library, immich_database: Database, cluster: Cluster
) -> None:
    done = cluster.restore(cluster.dump(immich_database.conninfo, "--exclude-schema=immich_ai"), "without_schema")
    assert (done.returncode, done.stderr) == (0, "")
    database = restored(cluster, "without_schema")
    assert asyncio.run(sync(database)).added == 1
    assert documents(database.conninfo) == documents(immich_database.conninfo)


def test_after_uninstalling_nothing_of_search_is_in_the_backup(
    immich: Library, immich_database: Database, role: str, cluster: Cluster
) -> None:
    statements = list(uninstall(immich.connection))
    assert any(role in statement for statement in statements)
    run(immich.connection, iter(statements))
    dump = cluster.dump(immich_database.conninfo)
    assert role not in dump
    assert "immich_ai" not in dump
    done = cluster.restore(dump, "uninstalled")
    assert (done.returncode, done.stderr) == (0, "")
