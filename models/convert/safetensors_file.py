"""Reads a ``.safetensors`` file without copying it: 8 bytes, a JSON header, raw data (github.com/huggingface/safetensors#format)."""

from __future__ import annotations

import json
import math
import mmap
import struct
from pathlib import Path
from typing import Any

from models.convert.refusal import ConversionRefused

_LONGEST_HEADER = 100 * 2**20
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}
_TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}


def read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors by name, mapped from the file. Raises ``ConversionRefused`` where it is none, ``OSError``."""
    import torch

    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _LONGEST_HEADER:
                raise ValueError(f"its header would be {length:,} bytes long")
            header = json.loads(file.read(length))
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        header.pop("__metadata__", None)
        tensors = {}
        for name, item in header.items():
            dtype, shape, (begin, end) = item["dtype"], [int(side) for side in item["shape"]], item["data_offsets"]
            count = math.prod(shape)
            if min([begin, *shape]) < 0 or end - begin != count * _BYTES[dtype] or 8 + length + end > len(data):
                raise ValueError(f"{name} does not lie within the file")
            kind = getattr(torch, _TORCH_NAMES[dtype])
            tensors[name] = torch.frombuffer(data, dtype=kind, count=count, offset=8 + length + begin).reshape(shape) if count else None
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ConversionRefused(f"{path} is no safetensors file, or a damaged one: {error!r}. Download it again.") from error
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}
