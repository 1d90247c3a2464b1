"""Programs that the tests run, of this Python's environment or of the machine."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def find_program(name: str) -> str | None:
    """Return the path of the program ``name``: beside this Python, where pip installs them, else on the path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)
