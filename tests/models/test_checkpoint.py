"""A checkpoint is a stranger's file: it is read as data, or refused in a sentence; nothing in it is run or unpacked."""

from __future__ import annotations

import codecs
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.convert.checkpoint import read_checkpoint
from models.convert.refusal import ConversionRefused
from tests.models.crafted_checkpoints import Crafted, Storage, crafted, pickled

NUMBERS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def read(path: Path) -> dict[str, Any]:
    return {name: tensor.read() for name, tensor in read_checkpoint(path).items()}


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool],
)
def test_tensors_of_every_type_are_read_as_they_were_saved(tmp_path: Path, dtype: Any) -> None:
    tensor = torch.from_numpy(NUMBERS).to(dtype)
    torch.save({"state_dict": {"module.a": tensor}}, tmp_path / "a.pt")
    expected = tensor.float() if dtype == torch.bfloat16 else tensor
    np.testing.assert_array_equal(read(tmp_path / "a.pt")["a"], expected.numpy())


def test_views_parameters_scalars_and_empty_tensors_are_read_as_they_were_saved(tmp_path: Path) -> None:
    whole = torch.from_numpy(NUMBERS)
    state = OrderedDict(
        transposed=whole.transpose(0, 2), part=whole[1, 1:, ::2], scalar=torch.tensor(2.5), empty=torch.zeros(0, 3)
    )
    state["parameter"] = torch.nn.Parameter(torch.ones(3))
    torch.save(state, tmp_path / "a.pt")
    found = read(tmp_path / "a.pt")
    assert set(found) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy())


def test_plain_values_and_an_optimizer_beside_the_weights_are_left_out(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    document = {
        "epoch": 3, "step": 2**40, "name": "mine", "loss": 0.5, "best": None, "flags": [True, (1, "x")],
        "optimizer": optimizer.state_dict(), "state_dict": layer.state_dict(),
    }  # fmt: skip
    torch.save(document, tmp_path / "a.pt")
    assert set(read(tmp_path / "a.pt")) == {"weight", "bias"}


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numbers_of_numpys_are_left_out_too(tmp_path: Path, module: bytes) -> None:
    """QA-CLIP's checkpoints have some beside the weights; numpy before 2 called their module otherwise."""
    document = {"state_dict": {"a": Crafted()}, "best": np.float64(0.5), "optimizer": [{"lr": np.float32(1e-5)}]}
    now = f"{np.float64.__reduce__(np.float64(0))[0].__module__}".encode()
    assert now in pickled(document)
    content = pickled(document).replace(b"c" + now + b"\n", b"c" + module + b"\n")
    assert set(read(crafted(tmp_path / "a.pt", {}, {"data.pkl": content}))) == {"a"}


def test_a_state_dict_of_its_own_may_have_plain_values_in_it(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "epoch": 3, "text": "x"}, tmp_path / "a.pt")
    assert set(read(tmp_path / "a.pt")) == {"a"}


def test_only_the_tensor_that_is_asked_for_is_in_memory(tmp_path: Path) -> None:
    torch.save({f"{number}": torch.zeros(1_000_000) for number in range(8)}, tmp_path / "a.pt")
    tracemalloc.start()
    try:
        for tensor in read_checkpoint(tmp_path / "a.pt").values():
            assert tensor.read().nbytes == 4_000_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


# --- what is refused --------------------------------------------------------------------------------------------------


class Hostile:
    def __init__(self, what: Any, *arguments: Any) -> None:
        self._call = what, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize(
    ("thing", "complaint"),
    [
        (Hostile(os.mkdir, "hostile-was-here"), "asks for '.*mkdir'"),
        (Hostile(eval, "open('hostile-was-here', 'w')"), "asks for '.*eval'"),
        (Hostile(torch.load, "a.pt"), "asks for 'torch.serialization.load'"),
        (np.arange(3), "asks for 'numpy.*reconstruct'"),
        (np.dtype("f8"), "keeps a name"),
        (Hostile(codecs.encode, "code", "rot13"), "keeps a name"),
        (Hostile(OrderedDict, Hostile(os.getcwd)), "asks for"),
        ({1, 2}, "asks for '.*set'"),
        (Hostile, "asks for"),
        (torch.float16, "asks for"),
        (torch.FloatStorage, "keeps a name"),
    ],
)
def test_whatever_is_no_tensor_and_no_plain_value_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thing: Any, complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    crafted(Path("a.pt"), {"state_dict": {"a": Crafted()}, "extra": [thing]})
    with pytest.raises(ConversionRefused, match=f"^a.pt was not opened for safety: it {complaint}"):
        read_checkpoint(Path("a.pt"))
    assert not Path("hostile-was-here").exists()


@pytest.mark.parametrize(
    "tensor",
    [
        Crafted(shape=(4, 4), strides=(4, 1)),
        Crafted(offset=1),
        Crafted(offset=2**47),
        Crafted(offset=-1),
        Crafted(offset="0"),
        Crafted(strides=(-2, 1)),
        Crafted(strides=(2,)),
        Crafted(shape=(2, 2.0)),
        Crafted(shape=[2, 2]),
        Crafted(shape=(1,) * 9, strides=(1,) * 9),
        Crafted(shape=(2**40, 2**40), strides=(0, 0)),
        Crafted(shape=(10, 2), strides=(0, 1)),
        Crafted(storage=Storage(count=5), shape=(5,), strides=(1,)),
        Crafted(storage=Storage(count=2**60)),
        Crafted(storage=Storage(kind=torch.DoubleStorage)),
        Crafted(storage=Storage(key="7")),
        Crafted(storage=Storage(key="../../etc/passwd")),
        Crafted(storage=Storage(kind="FloatStorage")),
        Crafted(storage="0"),
    ],
)
def test_a_tensor_that_does_not_lie_within_its_numbers_is_refused(tmp_path: Path, tensor: Crafted) -> None:
    with pytest.raises(ConversionRefused, match=r"is no checkpoint, or a damaged one: .*Download it again"):
        read_checkpoint(crafted(tmp_path / "a.pt", {"state_dict": {"a": tensor}}))


def test_numbers_that_have_changed_since_they_were_written_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.full((1000,), 1.25), "b": torch.full((1000,), 2.5)}, tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    at = content.index(struct.pack("<f", 2.5) * 3)
    (tmp_path / "a.pt").write_bytes(content[:at] + b"\0" * 4 + content[at + 4 :])
    with pytest.raises(ConversionRefused, match=r"bytes of its member 'a/data/1' have changed .*Download it again"):
        read_checkpoint(tmp_path / "a.pt")


def test_numbers_that_were_written_without_a_crc_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.from_numpy(NUMBERS)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    np.testing.assert_array_equal(read(tmp_path / "a.pt")["a"], NUMBERS)


def test_tensors_that_share_their_numbers_are_not_multiplied(tmp_path: Path) -> None:
    numbers = {"data/0": bytes(40_000)}
    shared = {f"{index}": Crafted(Storage(count=10_000), shape=(10_000,), strides=(1,)) for index in range(50)}
    with pytest.raises(ConversionRefused, match="tensors are larger than the file"):
        read_checkpoint(crafted(tmp_path / "a.pt", {"state_dict": shared}, numbers))


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    zeros = {"data/0": bytes(200_000_000)}
    tensor = Crafted(Storage(count=50_000_000), shape=(50_000_000,), strides=(1,))
    path = crafted(tmp_path / "a.pt", {"state_dict": {"a": tensor}}, zeros, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1_000_000
    del zeros
    tracemalloc.start()
    try:
        with pytest.raises(ConversionRefused, match="is compressed or encrypted"):
            read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_list_of_tensors_that_unfolds_without_end_is_refused_at_once(tmp_path: Path) -> None:
    laughs: Any = (0, 0)
    for _ in range(60):
        laughs = (laughs, laughs)
    with pytest.raises(ConversionRefused, match="no sizes"):
        read_checkpoint(crafted(tmp_path / "a.pt", {"state_dict": {"a": Crafted(shape=laughs)}}))


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    path = crafted(tmp_path / "a.pt", {"state_dict": {"a": Crafted()}}, {"data/1": bytes(16)})
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        first, second = (archive.getinfo(f"archive/data/{key}").header_offset for key in "01")
    path.write_bytes(
        content.replace(struct.pack("<I", second) + b"archive/data/1", struct.pack("<I", first) + b"archive/data/1")
    )
    with pytest.raises(ConversionRefused, match=r"differ|overlaps"):
        read_checkpoint(path)


def test_a_directory_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    path = crafted(tmp_path / "a.pt", {"state_dict": {"a": Crafted()}})
    with path.open("r+b") as file:
        file.truncate(2**30)  # a hole: no bytes on disk
        file.seek(0, os.SEEK_END)
        file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 2**29, 2**29, 0))
    with pytest.raises(ConversionRefused, match="its directory has 536,870,912 bytes"):
        read_checkpoint(path)


@pytest.mark.parametrize("position", [2**45, 2**62, 2**63, 2**64 - 1])
@pytest.mark.parametrize("of", ["end record", "directory"])
def test_positions_that_no_file_has_are_refused(tmp_path: Path, position: int, of: str) -> None:
    path = crafted(tmp_path / "a.pt", {"state_dict": {"a": Crafted()}})
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        begin = position if of == "directory" else 0
        file.write(struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 50, begin))
        file.write(struct.pack("<4sIQI", b"PK\6\7", 0, end if of == "directory" else position, 1))
        file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 2**32 - 1, 2**32 - 1, 0))
    with pytest.raises(ConversionRefused, match="lies outside of the file"):
        read_checkpoint(path)


def test_a_long_name_is_not_quoted_whole(tmp_path: Path) -> None:
    long = "x" * 60_000
    path = crafted(tmp_path / "a.pt", {"state_dict": {"a": Crafted()}}, {long: bytes(99)}, compression=8)
    state = {"state_dict": {long * 40: Crafted(offset=1)}}
    for other in (path, crafted(tmp_path / "b.pt", state), crafted(tmp_path / "c.pt", [Hostile(os.mkdir, long)])):
        with pytest.raises(ConversionRefused) as caught:
            read_checkpoint(other)
        assert len(str(caught.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"byteorder": b"big"}, "not little-endian"),
        ({"data.pkl": b""}, "list of tensors is damaged"),
        ({"data.pkl": pickled({"state_dict": {}})}, "holds no weights by name"),
        ({"data.pkl": pickled([1])}, "holds no weights by name"),
        ({"data.pkl": pickle.dumps({"a": 1}, 0)}, "not opened for safety"),
        ({"data.pkl": pickle.dumps({"a": b"x" * 300}, 4)}, "not opened for safety"),
        ({"data.pkl": b"\x80\x02r\xff\xff\xff\xff."}, "damaged"),
        ({"data.pkl": b"\x80\x02}(((tt."}, "damaged|holds no weights"),
        ({"data.pkl": b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b"."}, "holds no weights"),
    ],
)
def test_an_archive_that_is_no_checkpoint_is_refused(tmp_path: Path, members: dict[str, bytes], complaint: str) -> None:
    with pytest.raises(ConversionRefused, match=complaint):
        read(crafted(tmp_path / "a.pt", {"state_dict": {"a": Crafted()}}, members))


def test_an_old_checkpoint_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ConversionRefused, match=r"before 1\.6.*save it again with a newer PyTorch"):
        read_checkpoint(tmp_path / "a.pt")


def test_a_file_that_shrinks_while_it_is_read_is_told_so(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3000)}, tmp_path / "a.pt")
    tensors = read_checkpoint(tmp_path / "a.pt")
    os.truncate(tmp_path / "a.pt", 3000)
    with pytest.raises(ConversionRefused, match="is truncated"):
        tensors["a"].read()
