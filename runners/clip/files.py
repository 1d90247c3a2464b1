"""Reading of the small JSON files in a CLIP folder, with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from errors import ModelUnavailable


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises ``ModelUnavailable`` if it is missing or holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise damaged(path, f"it holds a {type(content).__name__}, not an object")
    return content


def damaged(path: Path, why: str) -> ModelUnavailable:
    """Return the error for a file that cannot be used."""
    return ModelUnavailable(f"{path} cannot be used: {why}. Delete the model's folder so that it is fetched again.")
