"""Reads a CN-CLIP checkpoint, the authors' own or Hugging Face's, into weights under cn_clip's names.

A checkpoint is a stranger's file: pickles are read with ``weights_only``, so that they can hold tensors and plain values and run nothing.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.convert.cn_clip import ARCHITECTURES, Architecture
from models.convert.hugging_face import is_hugging_face, to_cn_clip
from models.convert.refusal import ConversionRefused
from models.convert.safetensors_file import read_safetensors

_IN_A_FOLDER = ("model.safetensors", "pytorch_model.bin", "clip_cn_*.pt")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Tensors by cn_clip's names, mapped from the file where that is possible.

    ``path``: ``clip_cn_*.pt``, ``model.safetensors``, ``pytorch_model.bin``, or a folder that holds one of them. Raises
    ``ConversionRefused``, ``OSError``.
    """
    path = _file_of(path)
    state = read_safetensors(path) if path.suffix == ".safetensors" else _unpickled(path)
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if is_hugging_face(state):
        state = to_cn_clip(state)
    # Of no use in CN-CLIP; its own loader drops it, too.
    return {name: tensor for name, tensor in state.items() if not name.startswith("bert.pooler.")}


def load_weights(state: Mapping[str, Any], name: str, path: Path) -> tuple[Architecture, Any]:
    """The architecture called ``name`` (for a name of the user's: the one that fits) with the weights ``state``, in fp32.

    Raises ``ConversionRefused`` where they do not fit.
    """
    wanted = [name] if name in ARCHITECTURES else list(ARCHITECTURES)
    misfits = {}
    for candidate in wanted:
        model, misfits[candidate] = _empty(candidate, state)
        if misfits[candidate] is None:
            exact = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
            model.load_state_dict(exact, assign=True)
            return ARCHITECTURES[candidate], model.eval()
    fits = next((other for other in ARCHITECTURES if other not in wanted and _empty(other, state)[1] is None), None)
    if fits is not None:
        raise ConversionRefused(
            f"{path} does not fit {name}: {misfits[name]}. Its weights are of the shapes of {fits}: convert it with --as {fits}."
        )
    what = name if name in ARCHITECTURES else "any architecture of CN-CLIP"
    raise ConversionRefused(f"{path} does not fit {what}: {misfits[wanted[0]]}. Is it a CN-CLIP, and the one that --as names?")


def _file_of(path: Path) -> Path:
    if not path.exists():
        raise ConversionRefused(f"There is no {path}.")
    if path.is_dir():
        found = [file for pattern in _IN_A_FOLDER for file in sorted(path.glob(pattern))]
        if not found:
            raise ConversionRefused(f"{path} holds none of {', '.join(_IN_A_FOLDER)}.")
        return found[0]
    return path


def _unpickled(path: Path) -> dict[str, Any]:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual pickles, which are refused or read all the same
            document = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ConversionRefused(
            f"{path} is no checkpoint, or holds more than weights, and was not opened for safety: {reason} Download it again from where "
            "CN-CLIP's authors publish it."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ConversionRefused(f"{path} is no checkpoint, or a damaged one ({type(error).__name__}). Download it again.") from error
    state = document.get("state_dict", document) if isinstance(document, dict) else None
    if not isinstance(state, dict) or not state or not all(_is_plain(name, tensor) for name, tensor in state.items()):
        raise ConversionRefused(f"{path} holds no weights by name (a `state_dict`). Is it a CN-CLIP?")
    return state


def _is_plain(name: object, tensor: object) -> bool:
    import torch

    return isinstance(name, str) and isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and not tensor.is_quantized


def _empty(name: str, state: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The architecture without memory for its weights, and the first thing in which ``state`` does not fit it."""
    import torch

    with torch.device("meta"):
        model = ARCHITECTURES[name].build()
    for key, tensor in model.state_dict().items():
        if key not in state:
            return model, f"it lacks {key}"
        if state[key].shape != tensor.shape:
            return model, f"its {key} has the shape {list(state[key].shape)}, not {list(tensor.shape)}"
    unknown = next((key for key in state if key not in model.state_dict()), None)
    return model, None if unknown is None else f"it has {unknown}, which the model has not"
