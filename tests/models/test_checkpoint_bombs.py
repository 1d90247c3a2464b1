"""A small checkpoint does not become large: what is made of it is bounded, not only what is read."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path

import pytest

from models.convert.checkpoint import read_checkpoint
from models.convert.refusal import ConversionRefused
from models.convert.torch_pickle import NotReadable, read_pickle
from models.convert.zip_directory import NotReadable as DamagedArchive
from models.convert.zip_directory import _wide
from tests.models.crafted_checkpoints import Crafted, Storage, crafted

_LIST = b"\x80\x02](" + b"K\x01" * 10_000 + b"eq\0"
"""A list of 10,000 numbers, memoised."""
_PAIRS = b"\x80\x02](" + b"K\x01K\x02\x86" * 10_000 + b"eq\0"
_WIDE_PAIRS = b"\x80\x02](" + b"K\x01" * 1000 + b"eq\1" + b"](" + b"h\1" * 1000 + b"eq\0"
"""A list of one list of 1,000 numbers, again and again."""
BOMBS = {
    "dictionaries": b"\x80\x02" + b"}" * 8_000_000 + b".",
    "lists": b"\x80\x02" + b"]" * 8_000_000 + b".",
    "sizes of one list": _LIST + b"(" + b"ctorch\nSize\nh\0\x85R" * 20_000 + b"t.",
    "sizes of one text": b"\x80\x02X\x10\x27\0\0"
    + b"a" * 10_000
    + b"q\0("
    + b"ctorch\nSize\nh\0\x85R" * 20_000
    + b"t.",
    "dictionaries of one list": _PAIRS + b"(" + b"ccollections\nOrderedDict\nh\0\x85R" * 20_000 + b"t.",
    "dictionaries of lists that are no pairs": _WIDE_PAIRS + b"ccollections\nOrderedDict\nh\0\x85R.",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_list_of_tensors_that_becomes_large_is_refused_while_it_is_small(bomb: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(NotReadable, match=r"more than 1,000,000 parts|is damaged"):
            read_pickle(bomb)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_keys_that_would_make_a_dictionary_slow_are_refused() -> None:
    prime = 2**61 - 1  # of Python's hash of a number
    key = (prime * 3).to_bytes(9, "little")
    with pytest.raises(NotReadable, match="a key that is a huge number"):
        read_pickle(b"\x80\x02}(\x8a\x09" + key + b"Nu.")
    assert read_pickle(b"\x80\x02}(\x8a\x02\xff\x7fNu.") == {2**15 - 1: None}


def test_a_long_list_of_tensors_is_not_read_at_all(tmp_path: Path) -> None:
    path = crafted(tmp_path / "a.pt", {}, {"data.pkl": bytes(9_000_000)})
    with pytest.raises(ConversionRefused, match="has 9,000,000 bytes"):
        read_checkpoint(path)


def test_a_machine_without_memory_for_it_refuses_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr("models.convert.torch_pickle.read_pickle", full)
    with pytest.raises(ConversionRefused, match=r"a\.pt was not read: .* takes more memory than there is"):
        read_checkpoint(crafted(tmp_path / "a.pt", {"state_dict": {"a": Crafted()}}))


@pytest.mark.parametrize("value", ["[" * 3 + "]" * 3 + "," + "[],", "{},", '"",'])
def test_a_header_of_safetensors_is_bounded(tmp_path: Path, value: str) -> None:
    header = b'{"a": [' + value.encode() * 2_000_000 + b"0]}"
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ConversionRefused, match=r"its header would be [\d,]+ bytes long"):
        read_checkpoint(path)


def test_a_tensor_of_many_axes_is_refused_at_once(tmp_path: Path) -> None:
    item = {"dtype": "F32", "shape": [1] * 50_000, "data_offsets": [0, 4]}
    header = json.dumps({"a": item}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(ConversionRefused, match="'a' has 50,000 axes"):
        read_checkpoint(path)


def test_tensors_that_skip_most_of_the_numbers_that_they_span_are_refused(tmp_path: Path) -> None:
    storage = Storage(count=250_000)
    tensors = {str(number): Crafted(storage, 0, (2,), (240_000,)) for number in range(43)}
    path = crafted(tmp_path / "a.pt", {"state_dict": tensors}, {"data/0": bytes(1_000_000)})
    with pytest.raises(ConversionRefused, match="its tensors are larger than the file"):
        read_checkpoint(path)
    path = crafted(tmp_path / "b.pt", {"state_dict": {"a": tensors["0"]}}, {"data/0": bytes(1_000_000)})
    assert read_checkpoint(path)["a"].read().tolist() == [0, 0]


def test_sizes_are_found_behind_many_empty_fields() -> None:
    empty = struct.pack("<HH", 2, 0)
    extra = empty * 16_000 + struct.pack("<HHQQQ", 1, 24, 2**33, 2**33, 2**34)
    assert _wide(extra, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF) == (2**33, 2**33, 2**34)
    with pytest.raises(DamagedArchive, match="a member's size is missing"):
        _wide(extra[:-8], 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
