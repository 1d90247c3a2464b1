"""Writers of files that are no CN-CLIP checkpoint, each in its own way."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from tests.cnclip_reference import official_checkpoint


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("hostile-was-here",)


def hostile(path: Path, model: Any) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1), "b": Hostile()}}, path)


def hostile_legacy(path: Path, model: Any) -> None:
    path.write_bytes(pickle.dumps(Hostile()))


def truncated(path: Path, model: Any) -> None:
    official_checkpoint(model, path)
    path.write_bytes(path.read_bytes()[:100_000])


def web_page(path: Path, model: Any) -> None:
    path.write_text("<html>404</html>")


def empty(path: Path, model: Any) -> None:
    path.write_bytes(b"")


def of_another_form(path: Path, model: Any) -> None:
    torch.save([torch.zeros(1)], path)


def lacking(path: Path, model: Any) -> None:
    torch.save({"state_dict": {k: v for k, v in model.state_dict().items() if k != "visual.proj"}}, path)


def of_other_shapes(path: Path, model: Any) -> None:
    torch.save({"state_dict": {**model.state_dict(), "visual.proj": torch.zeros(3, 3)}}, path)


def of_unknown_names(path: Path, model: Any) -> None:
    torch.save({"state_dict": {**model.state_dict(), "visual.extra": torch.zeros(3)}}, path)


def not_finite(path: Path, model: Any) -> None:
    torch.save({"state_dict": {**model.state_dict(), "visual.proj": model.visual.proj.detach() * float("nan")}}, path)
