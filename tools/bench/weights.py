"""The weights that both servers are measured with: a user's own CLIP where there is one, else CN-CLIP's ViT-B-16 with
random weights.

How long a model takes does not depend on what its weights are, only on their number; whether its answers mean anything
does. Random weights are made once, by the converter's own steps, which need torch and cn-clip (`make bench` installs
both); without those the comparison falls back to cn-clip-tiny, and says so. Faces and OCR are real: packages ship
buffalo_s and PP-OCRv6_small.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from settings import Settings

CLIP = "ViT-B-16"
TINY = "cn-clip-tiny"


@dataclass(frozen=True, slots=True)
class Weights:
    """What to serve, as settings in the environment."""

    environment: Mapping[str, str]
    note: str
    """Which CLIP it is, for the report."""


def weights(folder: Path | None = None) -> Weights:
    """Weights for both servers. ``folder``: a cache folder (``clip/<name>/…``); None: MACHINE_LEARNING_CACHE_FOLDER or
    its default.

    A first call without CLIP there writes 750 MB to ``~/.cache/immich-bento-bench``, in about a minute.
    Raises ``FileNotFoundError`` where a ``folder`` is given and has no CLIP model.
    """
    given = (folder or Settings().cache_folder) / "clip"
    if _is_clip(given / CLIP):
        return _with_clip(given.resolve(), CLIP, f"{CLIP} in {given}")
    if folder is not None:
        raise FileNotFoundError(
            f"{given / CLIP} holds no CLIP model: convert one there (python -m models convert), or leave --models out."
        )
    made = Path("~/.cache/immich-bento-bench/clip").expanduser()
    if _is_clip(made / CLIP) or _can_make():
        return _with_clip(_made(made), CLIP, f"{CLIP} with random weights")
    return _with_clip(
        None, TINY, f"{TINY}, since torch and cn-clip are not installed: CLIP's figures say nothing about a real model"
    )


def _with_clip(root: Path | None, name: str, note: str) -> Weights:
    found = {"CLIP_MODEL": name, "RECOGNITION_MODEL": "buffalo_s", "OCR_MODEL": "PP-OCRv6_small"}
    return Weights(found | ({"CLIP_DOWNLOAD_ROOT": str(root)} if root else {}), note)


def _is_clip(folder: Path) -> bool:
    return all((folder / half / "model.onnx").is_file() for half in ("visual", "textual"))


def _can_make() -> bool:
    return all(importlib.util.find_spec(module) for module in ("torch", "onnx", "cn_clip"))


def _made(root: Path) -> Path:
    """The folder with random weights, made if need be; whole or not at all."""
    if _is_clip(root / CLIP):
        return root
    from tests.cnclip_reference import converted_folder, random_model

    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix="making-") as temporary:
        converted_folder(random_model(), Path(temporary, CLIP))
        shutil.move(str(Path(temporary, CLIP)), root / CLIP)
    return root
