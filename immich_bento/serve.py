"""``immich-bento serve``: check what BentoML would stumble over, then become ``bentoml serve``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from immich_bento.folders import folder_problem, writable_temporary_folder

ROOT = Path(__file__).resolve().parents[1]


def serve(arguments: Sequence[str]) -> int:
    """Replace this process by ``bentoml serve`` with ``arguments``; return 1 where it cannot start.

    In an image it serves the Bento that ``BENTO_PATH`` names, elsewhere this project.
    """
    problem = folder_problem(os.environ)
    if problem is None:
        _become_bentoml(arguments)
    print(f"immich-bento does not start: {problem}", file=sys.stderr, flush=True)  # noqa: T201
    return 1


def _become_bentoml(arguments: Sequence[str]) -> NoReturn:
    temporary = writable_temporary_folder(os.environ)
    if temporary is not None:
        os.environ["TMPDIR"] = temporary
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    bento = os.environ.get("BENTO_PATH") or str(ROOT)
    if bento == str(ROOT):
        os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", "serve", *arguments, bento])  # noqa: S606
