"""Writes checkpoints by hand: archives and lists of tensors that ``torch.save`` would never make."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._utils import _rebuild_tensor_v2


@dataclass(frozen=True)
class Storage:
    """A run of numbers, as the list of tensors describes it."""

    key: str = "0"
    count: Any = 4
    kind: Any = torch.FloatStorage


@dataclass(frozen=True)
class Crafted:
    """A tensor, as the list of tensors describes it."""

    storage: Any = Storage()
    offset: Any = 0
    shape: Any = (2, 2)
    strides: Any = (2, 1)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_tensor_v2, (self.storage, self.offset, self.shape, self.strides, False, OrderedDict())


class _Pickler(pickle.Pickler):
    def persistent_id(self, item: Any) -> Any:
        return ("storage", item.kind, item.key, "cpu", item.count) if isinstance(item, Storage) else None


def pickled(document: Any) -> bytes:
    """Return the list of tensors of a checkpoint that holds ``document``."""
    buffer = io.BytesIO()
    _Pickler(buffer, 2).dump(document)
    return buffer.getvalue()


def crafted(path: Path, document: Any, members: Mapping[str, bytes] | None = None, *, compression: int = 0) -> Path:
    """Write a checkpoint that holds ``document``. ``members``: besides 16 bytes in ``data/0``, or in their place."""
    content = {"data.pkl": pickled(document), "byteorder": b"little", "data/0": bytes(range(16)), **(members or {})}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(f"archive/{name}", data)
    return path
