"""Questions of the release workflow to the tree: ``python -m tools.image.release check TAG BASE``, and ``… notes``.

It runs on a Python with no packages installed.
"""

from __future__ import annotations

import argparse
import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = ROOT / "CHANGELOG.md"
_BASE = re.compile(r"\S*python:3\.11-slim\S*@sha256:[0-9a-f]{64}")


def version() -> str:
    """Return the project's version, from the file alone: the package ``settings`` needs pydantic."""
    found: str = runpy.run_path(str(ROOT / "settings/version.py"))["VERSION"]
    return found


def check(tag: str, base: str) -> None:
    """Raise ``ValueError`` unless ``tag`` is the version's, the changelog has its notes, and ``base`` has a digest."""
    if tag != f"v{version()}":
        raise ValueError(f"The tag is {tag}, but settings/version.py says {version()}: tag the commit v{version()}.")
    if not _BASE.fullmatch(base):
        raise ValueError(
            f"The variable PYTHON_IMAGE of the repository is {base or 'empty'}. Set it to the base with its digest, "
            "python:3.11-slim@sha256:…: `docker buildx imagetools inspect python:3.11-slim` tells it."
        )
    notes(CHANGELOG.read_text(encoding="utf-8"), version())


def notes(changelog: str, number: str) -> str:
    """Return the part of version ``number``, without its heading. Raise ``ValueError`` where there is none."""
    found = re.search(rf"^## \[{re.escape(number)}\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"CHANGELOG.md has no part for {number}: give *Unreleased* its number and date first.")
    return found[1].strip() + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the release, or print its notes; return 1 with a sentence where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.image.release", description=check.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checked = commands.add_parser("check", help="compare the tag with the version, and the base with what is needed")
    checked.add_argument("tag", help="the git tag, v<version>")
    checked.add_argument("base", help="the base image with its digest")
    commands.add_parser("notes", help="print the version's part of CHANGELOG.md")
    options = parser.parse_args(arguments)
    try:
        if options.command == "check":
            check(options.tag, options.base)
        else:
            sys.stdout.write(notes(CHANGELOG.read_text(encoding="utf-8"), version()))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
