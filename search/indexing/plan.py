"""The plan for a file: what it needs, by what the index knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from search.indexing.places import Entry
from search.store.records import Known


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run."""

    owner: str = ""
    jobs: int = 4
    """Pictures in flight."""
    models: Mapping[str, str] = field(default_factory=dict)
    """What to compute: task (``clip``, ``ocr``) to the catalog's name of its model."""
    retry_failed: bool = False
    prune: bool = False
    """Remove what is gone even if that is most of the index, or all."""


class Need(Enum):
    """The work that is to be done on a file."""

    NOTHING = "nothing"
    """It is as it was, and all tasks are done."""
    NOTHING_FAILED = "failed"
    """It is as it was, and what is not done has failed before."""
    COMPUTE = "compute"
    """It is as it was, and some task is not done."""
    READ = "read"
    """It is new, or its date or size is another: its content decides."""


@dataclass(frozen=True, slots=True)
class Step:
    """A file and what it needs."""

    entry: Entry
    known: Known | None
    need: Need
    tasks: frozenset[str]
    """What is to be computed if the content is as it was."""


def decide(entry: Entry, known: Known | None, options: Options) -> Step:
    """Return what is to be done with a file of the walk."""
    tasks = options.models.keys()
    if known is None:
        return Step(entry, None, Need.READ, frozenset(tasks))
    missing = frozenset(tasks) - known.done
    # A file that could not be read has failed in every task.
    failed = missing if "read" in known.failed else missing & known.failed
    wanted = missing if options.retry_failed else missing - failed
    # Databases keep microseconds; a place that tells no date has its files read every time.
    if entry.modified is None or entry.size != known.size or entry.modified != known.modified:
        return Step(entry, known, Need.READ, wanted)
    if wanted:
        return Step(entry, known, Need.COMPUTE, wanted)
    return Step(entry, known, Need.NOTHING_FAILED if failed else Need.NOTHING, frozenset())
