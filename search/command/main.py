"""``python -m search``: migrate, index, sync, reprocess, stats, failed, grants, uninstall.

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
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from errors import ServiceError
from logs import on_standard_error
from models.catalog import CatalogError
from search.indexing.predictor import CannotGoOn
from search.store.errors import database_errors
from settings import Settings
from settings.problems import what_is_wrong

if TYPE_CHECKING:
    from search.store.records import Failed
    from search.store.statistics import Statistics

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
TASKS = ("ocr", "clip")
REDO_TASKS = (*TASKS, "faces")

Command: TypeAlias = Callable[[argparse.Namespace, Settings], Awaitable[int]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args(arguments)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search", description="Search of immich-bento. More: docs/indexing.md."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Command, about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(run=run)
        return command

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
    add("stats", _stats, "How many pictures there are, read, empty, failed and waiting.")
    granting = add("grants", _grants, "Print the statements that give a role its rights in this database.")
    granting.add_argument("role", nargs="?", default="bento", metavar="ROLE", help="default: bento")
    add("uninstall", _uninstall, "Print the statements that take search out of this database again.")
    failing = add("failed", _failed, "What failed, and why; the latest first.")
    failing.add_argument("--owner", default=None, metavar="NAME")
    failing.add_argument("--limit", type=int, default=100, metavar="N")
    return parser


def _ask_the_service(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--url", default=None, help="the service (default: this machine's, http://127.0.0.1:<HTTP_PORT>)"
    )
    command.add_argument("--jobs", type=_jobs, default=4, metavar="N", help="pictures in flight (default: 4)")
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


async def _migrate(options: argparse.Namespace, config: Settings) -> int:
    from search.store.database import open_database
    from search.store.source import Switch

    async with await open_database(config, switch=Switch.ALWAYS) as database:
        source, cutter = database.source.value, database.cutter
    print(f"The database is up to date; search reads {source}, words are cut by {cutter}.")  # noqa: T201
    return OK


async def _index(options: argparse.Namespace, config: Settings) -> int:
    from search.command.index import index

    return await index(options, config)


async def _sync(options: argparse.Namespace, config: Settings) -> int:
    from search.immich.sync import sync
    from search.store.database import open_database
    from search.store.source import Source

    async with await open_database(config) as database:
        if database.source is Source.STANDALONE:
            return say(
                "There is no Immich in this database to take texts from; `python -m search index` reads pictures "
                "itself.",
                FAILED,
            )
        print(await sync(database, thorough=options.thorough))  # noqa: T201
    return OK


async def _reprocess(options: argparse.Namespace, config: Settings) -> int:
    from search.command.reprocess import redo

    return await redo(options, config)


async def _grants(options: argparse.Namespace, config: Settings) -> int:
    from search.command.rights import print_statements

    return await print_statements(config, options.role)


async def _uninstall(options: argparse.Namespace, config: Settings) -> int:
    from search.command.rights import print_statements

    return await print_statements(config, None)


async def _stats(options: argparse.Namespace, config: Settings) -> int:
    from models.catalog import load_catalog
    from search.store.database import open_database
    from search.store.source import Switch
    from search.store.statistics import statistics

    async with await open_database(config, switch=Switch.NEVER) as database:
        _print_statistics(await statistics(database, load_catalog(config.model_catalog), config))
    return OK


async def _failed(options: argparse.Namespace, config: Settings) -> int:
    from search.store.database import open_database
    from search.store.index import failures
    from search.store.source import Switch

    async with await open_database(config, switch=Switch.NEVER) as database, database.connection() as connection:
        _print_failures(await failures(connection, owner=options.owner, limit=options.limit))
    return OK


def _print_failures(found: Sequence[Failed]) -> None:
    """Print a table on a terminal, else a line each, with tabs between."""
    table = Table("when", "owner", "file", "task", "tries", "why")
    rows = [
        (
            one.failed_at.astimezone().strftime("%Y-%m-%d %H:%M"),
            *(one.owner, one.uri or str(one.asset_id), one.task, str(one.attempts), one.message),
        )
        for one in found
    ]
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    if not found:
        say("Nothing has failed.", OK)
    elif console.is_terminal:
        console.print(table)
    else:
        print("\n".join("\t".join(" ".join(cell.split()) for cell in row) for row in rows))  # noqa: T201


def _print_statistics(found: Statistics) -> None:
    table = Table(show_header=False)
    rows = {
        "pictures from": found.source,
        "words cut by": found.cutter,
        "pictures": f"{found.assets:,}",
        "with text": f"{found.read:,}",
        "without text": f"{found.empty:,}",
        "waiting to be read": f"{found.waiting:,}",
        "embedded": f"{found.embedded:,}",
        "failed": f"{found.failed:,}",
        **({} if found.lost is None else {"perhaps lost": f"{found.lost:,}"}),
        "models": ", ".join(name for name in (found.models.clip, found.models.ocr) if name) or "none",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
    for note in found.notes:
        say(note.message, OK)


def say(line: str, code: int) -> int:
    """Tell the person, on standard error."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201
    return code
