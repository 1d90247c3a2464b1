"""A folder that every user may enter, as temporary ones are not: PostgreSQL runs as somebody else where we are root."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_folder() -> Iterator[Path]:
    """Yield a new folder that others may enter and only we write to; removed with all that is in it."""
    path = Path(tempfile.mkdtemp(prefix="immich-bento-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)
