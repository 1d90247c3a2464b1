"""Whatever a checkpoint's bytes are, it is read or refused: there is no third way out."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections import OrderedDict
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.convert.checkpoint import read_checkpoint
from models.convert.refusal import ConversionRefused
from models.convert.torch_pickle import NotReadable, PickledTensor, read_pickle
from tests.models.crafted_checkpoints import Crafted, crafted, pickled


def good_checkpoint() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.pt")
        state = {"module.a": torch.ones(2, 3), "module.b": torch.nn.Parameter(torch.zeros(4).half())}
        torch.save({"epoch": 15, "state_dict": OrderedDict(state), "optimizer": {"state": {}, "lr": 0.1}}, path)
        return path.read_bytes()


GOOD = good_checkpoint()
PICKLE = pickled({"epoch": 1.5, "state_dict": OrderedDict(a=Crafted()), "more": [None, True, ("x",), {"y": 2**40}]})
CHANGES = st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=4), st.integers(0, 4)), min_size=1, max_size=6)
"""Where a file is changed, what is written there, and how many bytes are taken away for it."""


PLAIN = (dict, list, tuple, str, int, float, bool, type(None), PickledTensor)


def refusal(path: Path) -> str | None:
    """Return why the file is not read; None where it is."""
    try:
        for tensor in read_checkpoint(path).values():
            tensor.read()
    except ConversionRefused as error:
        return str(error)
    return None


def changed(content: bytes, changes: list[tuple[int, bytes, int]]) -> bytes:
    for place, new, old in changes:
        place %= len(content) + 1
        content = content[:place] + new + content[place + old :]
    return content


@settings(max_examples=400, deadline=None)
@given(CHANGES)
def test_a_changed_checkpoint_is_read_or_refused(changes: list[tuple[int, bytes, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.pt")
        path.write_bytes(changed(GOOD, changes))
        assert str(path) in (refusal(path) or str(path))


@settings(max_examples=400, deadline=None)
@given(CHANGES)
def test_a_changed_list_of_tensors_is_read_or_refused(changes: list[tuple[int, bytes, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = crafted(Path(folder, "a.pt"), {}, {"data.pkl": changed(PICKLE, changes)})
        assert str(path) in (refusal(path) or str(path))


INSTRUCTIONS = (
    b"(", b"}", b"]", b")", b"N", b"\x88", b"K\1", b"X\1\0\0\0a", b"q\0", b"h\0", b"t", b"\x85", b"\x86", b"\x87",
    b"R", b"b", b"Q", b"s", b"u", b"a", b"e", b"\x93", b"\x94", b"ctorch\nFloatStorage\n", b"2", b"0",
    b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch\nSize\n", b"cnumpy\ndtype\n", b"c_codecs\nencode\n", b"cnumpy.core.multiarray\nscalar\n",
)  # fmt: skip
"""Of pickles, those that checkpoints use and some that they must not."""


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(INSTRUCTIONS), max_size=40))
def test_instructions_in_any_order_are_read_or_refused(instructions: list[bytes]) -> None:
    content, found = b"\x80\x02" + b"".join(instructions) + b".", None
    with contextlib.suppress(NotReadable):
        found = read_pickle(content)
    assert isinstance(found, PLAIN)


@settings(max_examples=200, deadline=None)
@given(CHANGES)
def test_a_changed_safetensors_file_is_read_or_refused(changes: list[tuple[int, bytes, int]]) -> None:
    header = b'{"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"format": "pt"}}'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(changed(struct.pack("<Q", len(header)) + header + bytes(24), changes))
        assert str(path) in (refusal(path) or str(path))
