"""``python -m immich_bento``, in the image and in ``.venv/bin`` also ``immich-bento``.

Each command is imported when it is called: ``serve`` becomes another process, and must not pay for the others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from settings.version import VERSION

PROGRAM = "immich-bento"


@dataclass(frozen=True, slots=True)
class Part:
    """One command, with a command line of its own."""

    name: str
    about: str
    run: Callable[[Sequence[str], str], int]
    """Takes what follows the command's name, and the command as it was typed; returns the exit code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first of ``arguments`` names; return its exit code, 2 where there is none."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Machine learning for Immich, and search in its pictures.",
        epilog=f"`{PROGRAM} COMMAND --help` tells more of a command.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for part in PARTS:
        commands.add_parser(part.name, help=part.about, add_help=False)
    chosen = parser.parse_args(given[:1]).command
    part = next(part for part in PARTS if part.name == chosen)
    return part.run(given[1:], f"{PROGRAM} {part.name}")


def _serve(arguments: Sequence[str], program: str) -> int:
    from immich_bento.serve import serve

    return serve(arguments)


def _models(arguments: Sequence[str], program: str) -> int:
    from models.command import main as models

    return models(arguments, program=program)


def _search(arguments: Sequence[str], program: str) -> int:
    from search.command.main import main as search

    return search(arguments, program=program)


def _doctor(arguments: Sequence[str], program: str) -> int:
    from immich_bento.doctor.command import main as doctor

    return doctor(arguments, program=program)


def _completion(arguments: Sequence[str], program: str) -> int:
    from immich_bento.completion import main as completion

    return completion(arguments, program=program, names=[part.name for part in PARTS])


PARTS = (
    Part("serve", "Start the service.", _serve),
    Part("models", "List, fetch, convert, verify and remove models.", _models),
    Part("search", "Search, index, and look after the index.", _search),
    Part("doctor", "Check this set-up and say what to do.", _doctor),
    Part("completion", "Print what makes a shell complete these commands.", _completion),
)
