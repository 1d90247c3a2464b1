"""A server under load: its address, its processes, and the names under which it has the models that are measured.

Immich's own server knows the names that Immich sends and no others. This service has other models without a download,
and takes any name where a setting chooses the model. So each server is asked for one name after the other.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from tools.bench.client import Client, RequestFailed
from tools.bench.processes import ProcessTree
from tools.bench.report import Cell, Table
from tools.bench.workload import OURS, Names, bodies

CANDIDATES: Mapping[str, Sequence[str]] = {
    "clip": ("ViT-B-32__openai",),
    "face": ("buffalo_s", "buffalo_l"),
    "ocr": ("PP-OCRv6_small", "PP-OCRv5_mobile"),
}
"""Names to try, by the field of ``Names``. What this service has without a download comes first."""
_ASKED: Mapping[str, Mapping[str, Sequence[str]]] = {
    "clip": {"clip": ("clip",)},
    "text": {"clip": ("text",)},
    "face": {"face": ("face",)},
    "ocr": {"ocr": ("ocr",)},
    "mixed": {"clip": ("clip", "text"), "face": ("face",), "ocr": ("ocr",)},
    "joint": {"clip": ("clip",), "face": ("face",), "ocr": ("ocr",)},
}
"""By the task of a benchmark: what is asked under which field of ``Names``."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load."""

    name: str
    url: str
    tree: ProcessTree | None
    """None: its CPU and memory are not known."""
    names: Names = OURS


def find_names(url: str, tasks: Sequence[str], candidates: Mapping[str, Sequence[str]]) -> Names:
    """Return the names under which the server at ``url`` answers ``tasks``, each the first of its ``candidates``.

    One picture or text is sent for each, which loads the models. Raise ``RuntimeError`` if the server cannot be
    reached, or answers a task under no name.
    """
    asked: dict[str, list[str]] = {}
    for task in tasks:
        for field, kinds in _ASKED[task].items():
            asked[field] = [*asked.get(field, []), *(kind for kind in kinds if kind not in asked.get(field, []))]
    return asyncio.run(_found(url, asked, candidates))


async def _found(url: str, asked: Mapping[str, Sequence[str]], candidates: Mapping[str, Sequence[str]]) -> Names:
    async with Client(url) as client:
        try:
            await client.ask("GET", "/ping")
        except RequestFailed as error:
            raise RuntimeError(f"{url} cannot be reached: {error}") from error
        return Names(**{field: await _first(client, url, field, asked[field], candidates[field]) for field in asked})


async def _first(client: Client, url: str, field: str, kinds: Sequence[str], names: Sequence[str]) -> str:
    """Return the first of ``names`` under which all ``kinds`` of requests are answered."""
    refusals = []
    for name in names:
        try:
            for kind in kinds:
                await client.predict(bodies(kind, Names(**{field: name}))[0])
            return name
        except RequestFailed as error:
            refusals.append(f"{name} ({error})")
            client.close()  # uvicorn closes a connection after an error that nobody caught, without saying so
    raise RuntimeError(
        f"{url} answers {' and '.join(kinds)} under none of these names: {'; '.join(refusals)}. Name a model that it "
        f"has with --{field}-model, or leave the task out with --tasks (docs/performance-peer.md)."
    )


def names_table(targets: Sequence[Target]) -> Table:
    """Return the names that ``targets`` were asked for."""
    differ = any(target.names != targets[0].names for target in targets)
    columns = [field.name for field in fields(Names)]
    return Table(
        "Models, by the names that the servers were asked for",
        ("server", *columns),
        tuple((target.name, *(getattr(target.names, name) for name in columns)) for target in targets),
        "The names differ: the weights behind them must not (docs/performance-peer.md)." if differ else "",
    )


def sizes(targets: Sequence[Target], rest: float = 0.0) -> list[float]:
    """Return MB of each of ``targets`` after ``rest`` seconds; NaN where they are not known."""
    time.sleep(rest)
    return [target.tree.pss() if target.tree else math.nan for target in targets]


def memory_table(found: Mapping[str, Sequence[float]]) -> Table:
    """Return MB of one or two servers by when they were looked at."""
    both = all(len(row) == 2 for row in found.values())
    rows: list[tuple[Cell, ...]] = [(when, *row, *([row[0] / row[1]] if both else [])) for when, row in found.items()]
    return Table(
        "Memory: PSS of all processes, MB", ("", "ours", "peer", "ours / peer") if both else ("", "ours"), tuple(rows)
    )
