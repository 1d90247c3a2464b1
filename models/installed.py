"""Files that are on this machine for other reasons: those of installed Python packages, and BentoML's model store."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path


def package_folder(package: str) -> Path | None:
    """The folder of an installed package, found without importing it; None where it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def store_name(model_name: str) -> str:
    """The name of a model's tag in BentoML's store, which knows lower case only."""
    return model_name.lower()


def store_folder(model_name: str) -> Path | None:
    """The folder of the latest version of a model in BentoML's model store; None where there is none.

    Nothing is written: BentoML creates its folders when it is first asked, so it is not asked where the model's folder does not exist.
    """
    home = Path(os.environ.get("BENTOML_HOME") or "~/bentoml").expanduser()
    if not (home / "models" / store_name(model_name)).is_dir():
        return None
    import bentoml
    from bentoml.exceptions import BentoMLException

    try:
        return Path(bentoml.models.get(store_name(model_name)).path)
    except BentoMLException:  # a folder without a version, or one that is being written
        return None
