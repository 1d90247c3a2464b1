"""``python -m search``: find, migrate, index, sync, reprocess, stats, failed, grants, check, uninstall.

Exit codes: 0 done (files that failed are listed, and remembered); 1 could not be done, or not to its end; 2 the command
line is wrong; 130 interrupted. Results go to standard output, everything else to standard error. Settings are the
service's: docs/settings.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias
from uuid import UUID

from pydantic import ValidationError
from pydantic_settings import SettingsError

from errors import ServiceError
from logs import on_standard_error
from models.catalog import CatalogError
from search.indexing.predictor import CannotGoOn
from search.store.errors import database_errors
from settings import Settings
from settings.problems import what_is_wrong

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
TASKS = ("ocr", "clip")
REDO_TASKS = (*TASKS, "faces")
_SERVICE = "the service (default: this machine's, http://127.0.0.1:<HTTP_PORT>)"

Command: TypeAlias = Callable[[argparse.Namespace, Settings], Awaitable[int]]


def main(arguments: Sequence[str] | None = None, *, program: str = "python -m search") -> int:
    """Run one command; returns its exit code. ``program``: how it was called, for its help."""
    options = parser(program).parse_args(arguments)
    run: Command = options.run
    try:
        with on_standard_error("search", "service"):
            return asyncio.run(_finish(run(options, Settings())))
    except (SettingsError, ValidationError) as error:
        return say(f"Nothing was done: {what_is_wrong(error)}", FAILED)
    except (ServiceError, CannotGoOn, CatalogError) as error:
        return say(str(error), FAILED)
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return say(f"The disk or the network refused: {error}.", FAILED)
    except KeyboardInterrupt:
        return say("Interrupted; the same command goes on from here.", INTERRUPTED)


async def _finish(work: Awaitable[int]) -> int:
    with database_errors():
        return await work


def parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of ``program``'s command line."""
    whole = argparse.ArgumentParser(prog=program, description="Search of immich-bento. More: docs/indexing.md.")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Command, about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(run=run)
        return command

    _add_find(add("find", _find, "Find pictures by the text in them, by their meaning, or by both."))
    add("migrate", _migrate, "Bring the schema of the database up to date.")
    indexing = add(
        "index", _index, "Index pictures and videos: folders, files, or addresses such as s3://bucket/prefix."
    )
    indexing.add_argument("places", nargs="+", metavar="PATH")
    indexing.add_argument("--owner", default="", metavar="NAME", help="whose pictures these are")
    _ask_the_service(indexing)
    indexing.add_argument(
        "--tasks", type=_tasks(TASKS), default=None, metavar="ocr,clip", help="what to compute (default: what can be)"
    )
    indexing.add_argument("--retry-failed", action="store_true", help="try again what failed before")
    indexing.add_argument(
        "--prune", action="store_true", help="remove what is gone even if that is most of the index, or the disk"
    )
    indexing.add_argument(
        "--ray",
        default=None,
        metavar="ADDRESS",
        help="compute on a Ray cluster, not by the service: auto, HOST:PORT, ray://HOST:PORT, or local (docs/ray.md)",
    )
    indexing.add_argument(
        "--ray-cpus",
        type=_jobs,
        default=2,
        metavar="N",
        help="CPUs of each process on the cluster, with --jobs pictures each (default: 2)",
    )
    syncing = add("sync", _sync, "Bring the texts that Immich read up to date.")
    syncing.add_argument("--thorough", action="store_true", help="compare every line, not the dates alone")
    redoing = add("reprocess", _reprocess, "Do pictures again.")
    which = redoing.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", nargs="*", default=[], type=UUID, metavar="ID")
    which.add_argument("--failed", action="store_true", help="those with a failure that is remembered")
    which.add_argument("--lost", action="store_true", help="those that Immich believes done and has no rows of")
    which.add_argument("--all", action="store_true", help="every picture")
    redoing.add_argument(
        "--tasks",
        type=_tasks(REDO_TASKS),
        default=None,
        metavar="ocr,clip,faces",
        help="what to do again (default: ocr,clip; of what is lost: ocr)",
    )
    _ask_the_service(redoing)
    counting = add("stats", _stats, "How many pictures there are, read, empty, failed and waiting.")
    counting.add_argument("--json", action="store_true", help="one JSON object, as GET /stats has it")
    granting = add("grants", _grants, "Print the statements that give a role its rights in this database.")
    granting.add_argument("role", nargs="?", default="bento", metavar="ROLE", help="default: bento")
    add("check", _check, "Print the statements for the rights that DATABASE_URL's role lacks.")
    add("uninstall", _uninstall, "Print the statements that take search out of this database again.")
    failing = add("failed", _failed, "What failed, and why; the latest first.")
    failing.add_argument("--owner", default=None, metavar="NAME")
    failing.add_argument("--limit", type=int, default=100, metavar="N")
    failing.add_argument("--json", action="store_true", help="one JSON list")
    return whole


def _add_find(finding: argparse.ArgumentParser) -> None:
    finding.add_argument(
        "query", nargs="+", metavar="QUERY", help="as typed into the search bar: `ocr:` asks for text alone"
    )
    finding.add_argument("--mode", choices=["auto", "ocr", "clip", "hybrid"], default="auto", help="default: auto")
    finding.add_argument("--owner", default=None, metavar="NAME", help="only this person's pictures")
    finding.add_argument("--limit", type=int, default=20, metavar="N", help="most hits, 1 to 100 (default: 20)")
    finding.add_argument("--url", default=None, help=_SERVICE)
    finding.add_argument("--json", action="store_true", help="one JSON object, as GET /search has it")


def _ask_the_service(command: argparse.ArgumentParser) -> None:
    command.add_argument("--url", default=None, help=_SERVICE)
    command.add_argument(
        "--jobs", type=_jobs, default=4, metavar="N", help="pictures in flight, of each process (default: 4)"
    )
    command.add_argument("--no-progress", action="store_true", help="no bar")


def _tasks(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        asked = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
        if not asked or set(asked) - set(known):
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of {', '.join(known)}")
        return asked

    return parse


def _jobs(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 64")
    return int(text)


async def _find(options: argparse.Namespace, config: Settings) -> int:
    from search.command.find import print_found

    return await print_found(options, config)


async def _migrate(options: argparse.Namespace, config: Settings) -> int:
    from search.store.database import open_database
    from search.store.refresh import refresh
    from search.store.source import Switch

    async with await open_database(config, switch=Switch.ALWAYS) as database:
        await refresh(database)
        source, cutter = database.source.value, database.cutter
    print(f"The database is up to date; search reads {source}, words are cut by {cutter}.")  # noqa: T201
    return OK


async def _index(options: argparse.Namespace, config: Settings) -> int:
    from search.command.index import index

    return await index(options, config)


async def _sync(options: argparse.Namespace, config: Settings) -> int:
    from search.immich.sync import sync
    from search.store.database import open_database
    from search.store.refresh import refresh
    from search.store.source import Source

    async with await open_database(config) as database:
        if database.source is Source.STANDALONE:
            return say(
                "There is no Immich in this database to take texts from; `python -m search index` reads pictures "
                "itself.",
                FAILED,
            )
        print(await sync(database, thorough=options.thorough))  # noqa: T201
        await refresh(database)
    return OK


async def _reprocess(options: argparse.Namespace, config: Settings) -> int:
    from search.command.reprocess import redo

    return await redo(options, config)


async def _grants(options: argparse.Namespace, config: Settings) -> int:
    from search.command.rights import print_statements

    return await print_statements(config, options.role)


async def _check(options: argparse.Namespace, config: Settings) -> int:
    from search.command.rights import check

    return await check(config)


async def _uninstall(options: argparse.Namespace, config: Settings) -> int:
    from search.command.rights import print_statements

    return await print_statements(config, None)


async def _stats(options: argparse.Namespace, config: Settings) -> int:
    from models.catalog import load_catalog
    from search.command.tables import print_model, print_statistics
    from search.store.database import open_database
    from search.store.source import Switch
    from search.store.statistics import statistics

    async with await open_database(config, switch=Switch.NEVER) as database:
        found = await statistics(database, load_catalog(config.model_catalog), config)
    (print_model if options.json else print_statistics)(found)
    return OK


async def _failed(options: argparse.Namespace, config: Settings) -> int:
    from search.command.tables import print_failures
    from search.store.database import open_database
    from search.store.index import failures
    from search.store.source import Switch

    async with await open_database(config, switch=Switch.NEVER) as database, database.connection() as connection:
        print_failures(await failures(connection, owner=options.owner, limit=options.limit), as_json=options.json)
    return OK


def say(line: str, code: int) -> int:
    """Tell the person, on standard error."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201
    return code
