"""Reads a ``.safetensors`` file: 8 bytes, a JSON header, raw numbers (github.com/huggingface/safetensors#format)."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from models.convert.refusal import ConversionRefused, shown
from models.convert.tensor import BYTES, MOST_AXES, StoredTensor, contiguous

_LONGEST_HEADER = 4 * 2**20
"""Bytes; that of ViT-H-14 has some 100,000."""
_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors by name; their numbers stay in the file.

    Raises ``ConversionRefused`` where it is no such file, ``OSError``.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_LONGEST_HEADER, size):
                raise ValueError(f"its header would be {length:,} bytes long")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {name: _stored(path, name, item, 8 + length, size) for name, item in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise ConversionRefused(
            f"{path} is no safetensors file, or a damaged one: {str(error)[:200]}. Download it again."
        ) from error


def _stored(path: Path, name: str, item: Any, start: int, size: int) -> StoredTensor:
    dtype, shape, (begin, end) = _TYPES[item["dtype"]], tuple(item["shape"]), item["data_offsets"]
    if len(shape) > MOST_AXES:
        raise ValueError(f"{shown(name)} has {len(shape):,} axes")
    if not all(type(number) is int and 0 <= number < 2**48 for number in (begin, end, *shape)):
        raise ValueError(f"the shape of {shown(name)} is damaged")
    if end - begin != math.prod(shape) * BYTES[dtype] or start + end > size:
        raise ValueError(f"{shown(name)} does not lie within the file")
    return StoredTensor(path, dtype, start + begin, shape, contiguous(shape))
