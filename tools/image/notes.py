"""``python -m tools.image.notes``: print the notes of the release, which are the version's part of CHANGELOG.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from settings.version import VERSION

CHANGELOG = Path(__file__).resolve().parents[2] / "CHANGELOG.md"


def notes(changelog: str, version: str) -> str:
    """Return the part of ``version``, without its heading. Raises ``ValueError`` where there is none."""
    found = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"CHANGELOG.md has no part for {version}: give *Unreleased* its number and date first.")
    return found[1].strip() + "\n"


def main() -> int:
    """Print the notes; return 1 where the changelog has none."""
    try:
        sys.stdout.write(notes(CHANGELOG.read_text(encoding="utf-8"), VERSION))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
