"""The command line of the benchmarks: ``python -m tools.bench NAME`` runs one and prints its tables, or JSON.

``python -m tools.bench --url …`` stands for ``python -m tools.bench compare --url …``.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from tools.bench import (
    against,
    bar,
    batching,
    clip_models,
    compare,
    container,
    first_start,
    gpu,
    indexing,
    interactive,
    memory,
    memory_limit,
    overview,
    parts,
    ping,
    routing,
    scaling,
    start,
    tasks,
    transport,
)
from tools.bench.reading import quality as reading_quality
from tools.bench.report import Neighbours, machine, to_json, to_text
from tools.bench.search import kinds as search_kinds
from tools.bench.search import quality as search_quality
from tools.bench.search import slow as search_slow
from tools.bench.search import speed as search_speed

BENCHMARKS: dict[str, ModuleType] = {
    "all": overview,
    "compare": compare,
    "against": against,
    "interactive": interactive,
    "memory": memory,
    "start": start,
    "scaling": scaling,
    "batching": batching,
    "ping": ping,
    "transport": transport,
    "routing": routing,
    "tasks": tasks,
    "parts": parts,
    "clip-models": clip_models,
    "first-start": first_start,
    "container": container,
    "memory-limit": memory_limit,
    "gpu": gpu,
    "indexing": indexing,
    "reading": reading_quality,
    "bar": bar,
    "search-quality": search_quality,
    "search-kinds": search_kinds,
    "search-speed": search_speed,
    "search-slow": search_slow,
}


def parser() -> argparse.ArgumentParser:
    """Return the parser: one subcommand per benchmark, each with its own options."""
    top = argparse.ArgumentParser(prog="python -m tools.bench", description="Benchmarks of immich-bento.")
    names = top.add_subparsers(dest="name", metavar="NAME")
    for name, module in BENCHMARKS.items():
        summary = (module.__doc__ or "").split("\n", 1)[0]
        sub = names.add_parser(
            name, help=summary, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        sub.add_argument(
            "--json", nargs="?", const="-", metavar="FILE", help="write JSON to FILE too; without FILE, print it alone"
        )
        module.add_options(sub)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what ``arguments`` (default: the command line) name, and return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0].startswith("--") and given[0] != "--help":
        given.insert(0, "compare")
    options = parser().parse_args(given)
    if options.name is None:
        parser().print_help()
        return 0
    benchmark, where, neighbours = BENCHMARKS[options.name], machine(), Neighbours()
    tables = benchmark.run(options)
    if benchmark is not compare:  # the servers that it is given are other processes too
        where["other processes' CPU, %"] = neighbours.percent()
    if options.json != "-":
        print(to_text(options.name, where, tables))
    if options.json:
        report = to_json(options.name, where, tables)
        print(report) if options.json == "-" else Path(options.json).write_text(report + "\n")
    return 0


if __name__ == "__main__":  # processes that the benchmarks spawn import this module too
    signal.signal(
        signal.SIGTERM, lambda number, frame: sys.exit(128 + number)
    )  # servers that were started are stopped on the way out
    sys.exit(main())
