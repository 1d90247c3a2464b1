"""Reads a CN-CLIP checkpoint, the authors' own or Hugging Face's, as tensors under cn_clip's names.

A checkpoint is a stranger's file. It is read as data: nothing in it is run, nothing is unpacked, and no tensor is in
memory before it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.convert import torch_pickle, zip_directory
from models.convert.hugging_face import is_hugging_face, to_cn_clip
from models.convert.refusal import ConversionRefused, shown
from models.convert.safetensors_file import read_safetensors
from models.convert.tensor import BYTES, StoredTensor, Tensors, span_of
from models.convert.torch_pickle import PickledTensor
from models.convert.zip_directory import Member

_IN_A_FOLDER = ("model.safetensors", "pytorch_model.bin", "clip_cn_*.pt")
_LARGEST_PICKLE = 8 * 2**20
"""Bytes of the list of tensors; that of ViT-H-14 with its optimizer has 0.6 MB."""


def read_checkpoint(path: Path) -> Tensors:
    """Return the tensors by cn_clip's names; each is read from the file when it is asked for.

    ``path``: ``clip_cn_*.pt``, ``model.safetensors``, ``pytorch_model.bin``, or a folder that holds one of them. Raises
    ``ConversionRefused``, ``OSError``.
    """
    path = _file_of(path)
    try:
        tensors = read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except MemoryError as error:
        raise ConversionRefused(f"{path} was not read: its list of tensors takes more memory than there is.") from error
    # A tensor takes as many bytes in memory as it spans in the file, where its numbers do not lie side by side.
    if sum(max(tensor.count, tensor.span) * BYTES[tensor.dtype] for tensor in tensors.values()) > path.stat().st_size:
        raise ConversionRefused(
            f"{path} was not read for safety: its tensors are larger than the file, so some share their numbers."
        )
    named: Tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if is_hugging_face(named):
        named = to_cn_clip(named)
    # Of no use in CN-CLIP; its own loader drops it, too.
    return {name: tensor for name, tensor in named.items() if not name.startswith("bert.pooler.")}


def _file_of(path: Path) -> Path:
    if not path.exists():
        raise ConversionRefused(f"There is no {path}.")
    if path.is_dir():
        found = [file for pattern in _IN_A_FOLDER for file in sorted(path.glob(pattern)) if file.is_file()]
        if not found:
            raise ConversionRefused(f"{path} holds none of {', '.join(_IN_A_FOLDER)}.")
        return found[0]
    if not path.is_file():
        raise ConversionRefused(f"{path} is neither a file nor a folder.")
    return path


def _read_torch(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a file that ``torch.save`` wrote, a ZIP archive since PyTorch 1.6."""
    try:
        with path.open("rb") as file:
            if file.read(2) == b"\x80\x02":
                raise ConversionRefused(
                    f"{path} is in the form that PyTorch wrote before 1.6, a bare pickle, which is not safe to read. "
                    "Load and save it again with a newer PyTorch, or take the file that CN-CLIP's authors publish."
                )
            members = zip_directory.read_directory(file)
            root = _root_of(members)
            content = _small_member(file, members, f"{root}data.pkl", _LARGEST_PICKLE)
            if f"{root}byteorder" in members and _small_member(file, members, f"{root}byteorder", 16) != b"little":
                raise zip_directory.NotReadable("its numbers are not little-endian")
        document = torch_pickle.read_pickle(content)
        state = document.get("state_dict", document) if isinstance(document, dict) else None
        named = (
            {name: tensor for name, tensor in state.items() if _is_named_tensor(name, tensor)}
            if isinstance(state, dict)
            else {}
        )
        if not named:
            raise ConversionRefused(f"{path} holds no weights by name (a `state_dict`). Is it a CN-CLIP?")
        tensors = {name: _stored(path, members, root, name, tensor) for name, tensor in named.items()}
        used = {f"{root}data/{tensor.storage.key}" for tensor in named.values()}
        with path.open("rb") as file:
            zip_directory.check_content(file, {name: members[name] for name in (f"{root}data.pkl", *sorted(used))})
        return tensors
    except torch_pickle.HoldsCode as error:
        raise ConversionRefused(
            f"{path} was not opened for safety: {error}. Download it again from where CN-CLIP's authors publish it."
        ) from error
    except (zip_directory.NotReadable, torch_pickle.NotReadable) as error:
        raise ConversionRefused(f"{path} is no checkpoint, or a damaged one: {error}. Download it again.") from error


def _root_of(members: Mapping[str, Member]) -> str:
    """Return the folder that everything in the archive is in, with its slash."""
    roots = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise zip_directory.NotReadable("it has no list of tensors (data.pkl)")
    return roots[0]


def _small_member(file: Any, members: Mapping[str, Member], name: str, most: int) -> bytes:
    member = members[name]
    if member.size > most:
        raise zip_directory.NotReadable(f"its member {shown(name)} has {member.size:,} bytes")
    file.seek(member.offset)
    return bytes(file.read(member.size))


def _is_named_tensor(name: object, tensor: object) -> bool:
    return isinstance(name, str) and isinstance(tensor, PickledTensor)


def _stored(path: Path, members: Mapping[str, Member], root: str, name: str, tensor: PickledTensor) -> StoredTensor:
    """Return where the tensor ``name`` is in the file, once it is sure that it lies within its storage."""
    storage = tensor.storage
    member = members.get(f"{root}data/{storage.key}")
    if member is None:
        raise zip_directory.NotReadable(f"it lacks the numbers of {shown(name)}")
    size = BYTES[storage.dtype]
    if storage.count * size > member.size or tensor.offset + span_of(tensor.shape, tensor.strides) > storage.count:
        raise zip_directory.NotReadable(f"{shown(name)} does not lie within its numbers")
    if math.prod(tensor.shape) > storage.count:
        raise zip_directory.NotReadable(f"{shown(name)} repeats its numbers")
    return StoredTensor(path, storage.dtype, member.offset + tensor.offset * size, tensor.shape, tensor.strides)
