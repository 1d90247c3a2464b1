"""The report of a benchmark: tables and the machine they were measured on, as text or JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import psutil

Cell: TypeAlias = "str | int | float"


@dataclass(frozen=True, slots=True)
class Table:
    """One table. Units stand in the columns' names."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    detail: bool = False
    """For JSON alone."""


def progress(text: str) -> None:
    """Print on stderr how far a long run has come; stdout has the report alone."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def milliseconds(seconds: Sequence[float], percentile: float) -> float:
    """Return a percentile (0 to 100) of durations in seconds, in ms; NaN if there are none."""
    return float(np.percentile(seconds, percentile)) * 1000 if len(seconds) else float("nan")


def machine() -> dict[str, Cell]:
    """Describe the machine and the versions that are measured, and how busy it was just before.

    How busy: the mean length of the run queue in the last minute.
    """
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "bentoml": version("bentoml"),
        "onnxruntime": version("onnxruntime"),
        "openvino": version("openvino"),
    }


class Neighbours:
    """The share of the machine that other processes take from now on.

    A benchmark that shares its cores measures its neighbours too.
    """

    def __init__(self) -> None:
        self._started, self._busy, self._ours = time.perf_counter(), _busy_seconds(), _our_seconds()

    def percent(self) -> float:
        """Return the CPU time of all but this process and its ended children, in % of all cores."""
        busy, ours = _busy_seconds() - self._busy, _our_seconds() - self._ours
        available = (time.perf_counter() - self._started) * (os.cpu_count() or 1)
        return round(max(0.0, busy - ours) / available * 100, 1)


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _our_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    known = {"avx512f": "AVX-512", "avx512_bf16": "AVX512-BF16", "avx512_vnni": "VNNI", "amx_bf16": "AMX-BF16"}
    return ", ".join([model, *(name for flag, name in known.items() if flag in flags)])


def to_json(name: str, where: Mapping[str, Cell], tables: Sequence[Table]) -> str:
    """Return one JSON object: ``benchmark``, ``machine``, ``tables``. Figures that are not known (NaN) are null."""
    report = {"benchmark": name, "machine": where, "tables": [asdict(table) for table in tables]}
    return json.dumps(_known(report), ensure_ascii=False, indent=1)


def _known(value: Any) -> Any:
    """Replace NaN, which JSON lacks, by null."""
    if isinstance(value, dict):
        return {key: _known(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_known(part) for part in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def to_text(name: str, where: Mapping[str, Cell], tables: Sequence[Table]) -> str:
    """Return Markdown tables, aligned for the terminal; those of detail are left out."""
    head = f"# {name}: " + ", ".join(f"{key} {value}" for key, value in where.items())
    return "\n\n".join([head, *(_markdown(table) for table in tables if not table.detail)])


def _markdown(table: Table) -> str:
    cells = [table.columns, *(tuple(map(_cell, row)) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        first, *rest = (
            text.ljust(width) if at == 0 else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = (
        "|"
        + "|".join("-" * (width + 2) if at == 0 else "-" * (width + 1) + ":" for at, width in enumerate(widths))
        + "|"
    )
    return "\n".join(
        [
            f"## {table.title}",
            "",
            line(cells[0]),
            rule,
            *map(line, cells[1:]),
            *(["", table.note] if table.note else []),
        ]
    )


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
