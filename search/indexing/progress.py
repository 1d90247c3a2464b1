"""The progress of a run, for a person: a bar on standard error while it goes, a table of what it came to at its end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from search.indexing.places import Place
from search.indexing.run import Tally
from search.indexing.worker import FileWorker
from search.store.records import Problem

_EVERY = 0.2
"""Seconds between looks at the tally."""
_SHOWN = 20
"""Failures in the table; the rest are in the database."""


class _Rate(ProgressColumn):
    """Files a second, lately."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.1f}/s")


@contextlib.asynccontextmanager
async def progress_bar(
    tally: Tally, worker: FileWorker, places: Sequence[Place], console: Console
) -> AsyncIterator[None]:
    """Show a bar while the block runs. The total is counted meanwhile, by a second walk."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    ended, counted = threading.Event(), _Count()
    counting = asyncio.create_task(asyncio.to_thread(counted.count, places, ended))
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("Indexing", total=None, note="")

        async def follow() -> None:
            while True:
                total = counted.files if counting.done() else None
                bars.update(
                    bar, completed=tally.done, total=total and max(total, tally.done), note=_note(tally, worker)
                )
                await asyncio.sleep(_EVERY)

        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            ended.set()
            following.cancel()
            await asyncio.gather(following, counting, return_exceptions=True)


class _Count:
    def __init__(self) -> None:
        self.files = 0

    def count(self, places: Sequence[Place], ended: threading.Event) -> None:
        for place in places:
            for _ in place.walk(lambda folder, why: None):
                self.files += 1
                if ended.is_set():
                    return


def _note(tally: Tally, worker: FileWorker) -> str:
    return worker.waiting or (f"{tally.failed:,} failed" if tally.failed else "")


def report(tally: Tally, console: Console, *, seconds: float) -> None:
    """Print what a run did on ``console``."""
    parts = {
        "computed": tally.computed,
        "unchanged": tally.unchanged,
        "touched, with the same content": tally.touched,
        "moved": tally.moved,
        "removed": tally.removed,
        "failed": tally.failed,
        "failed before, not tried again": tally.failed_before,
    }
    told = ", ".join(f"{number:,} {what}" for what, number in parts.items() if number or what == "computed")
    console.print(f"{tally.seen:,} files in {seconds:,.0f} s: {told}.", highlight=False, soft_wrap=True)
    if tally.failures:
        _print_failures(list(tally.failures)[-_SHOWN:], console)
        console.print(
            "All of it: `python -m search failed`. Another try: `--retry-failed`.", highlight=False, soft_wrap=True
        )
    for warning in tally.warnings:
        console.print(Text(warning), soft_wrap=True)


def _print_failures(failures: Sequence[tuple[str, Problem]], console: Console) -> None:
    """Print a table on a terminal, else a line each."""
    table = Table("file", "task", "why", title="What failed", title_justify="left")
    for uri, problem in failures:
        table.add_row(Text(uri, overflow="fold"), problem.task, Text(problem.message))
        if not console.is_terminal:
            console.print(Text(f"{uri}: {problem.task}: {problem.message}"), soft_wrap=True)
    if console.is_terminal:
        console.print(table)
