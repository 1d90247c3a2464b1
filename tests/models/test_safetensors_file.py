"""A ``.safetensors`` file is a stranger's: whatever its header says, nothing outside of the file is read."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from models.convert.refusal import ConversionRefused
from models.convert.safetensors_file import read_safetensors


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 3) + b"{}}",
        struct.pack("<Q", 2) + b"[]",
        *(
            (lambda text: struct.pack("<Q", len(text)) + text + bytes(16))(json.dumps({"a": item}).encode())
            for item in (
                {"dtype": "F32", "shape": [2], "data_offsets": [0, 400]},
                {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]},
                {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]},
                {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]},
                {"dtype": "X", "shape": [4], "data_offsets": [0, 16]},
                {"dtype": "F32"},
            )
        ),
    ],
)
def test_a_hostile_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConversionRefused, match="no safetensors file"):
        read_safetensors(path)
