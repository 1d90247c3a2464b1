"""A bar per file on standard error while models are downloaded; nothing where standard error is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from models.download import Progress as Tell


@contextmanager
def shown() -> Iterator[Tell | None]:
    """What to tell of the bytes that come; None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[Path, TaskID] = {}

        def tell(file: Path, have: int, size: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task("/".join(file.parts[-3:]), total=size)
            bars.update(tasks[file], completed=have, total=size)

        yield tell
