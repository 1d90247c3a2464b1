"""``python -m bench NAME``: run one benchmark and print its tables, or JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench import batching, ping, routing, tasks, transport
from bench.report import Neighbours, machine, to_json, to_text

BENCHMARKS = {"batching": batching, "ping": ping, "transport": transport, "routing": routing, "tasks": tasks}


def parser() -> argparse.ArgumentParser:
    """One subcommand per benchmark, each with its own options."""
    top = argparse.ArgumentParser(prog="python -m bench", description="Benchmarks of immich-bento.")
    names = top.add_subparsers(dest="name", metavar="NAME")
    for name, module in BENCHMARKS.items():
        summary = (module.__doc__ or "").split("\n", 1)[0]
        sub = names.add_parser(name, help=summary, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.add_argument("--json", action="store_true", help="print JSON in place of tables")
        module.add_options(sub)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what ``arguments`` (default: the command line) name. Returns the exit status."""
    options = parser().parse_args(arguments)
    if options.name is None:
        parser().print_help()
        return 0
    where, neighbours = machine(), Neighbours()
    tables = BENCHMARKS[options.name].run(options)
    where["other processes' CPU, %"] = neighbours.percent()
    print((to_json if options.json else to_text)(options.name, where, tables))
    return 0


if __name__ == "__main__":  # processes that the benchmarks spawn import this module too
    sys.exit(main())
