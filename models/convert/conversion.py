"""A CN-CLIP checkpoint to a folder that the service reads, or to a model in BentoML's store: two graphs, held to a
second forward pass.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from tokenizers import Tokenizer

from models import store
from models.convert.architecture import Architecture, Misfit, check_name, read_architecture
from models.convert.check import LEAST_COSINE, image_cosine, text_cosine
from models.convert.checkpoint import read_checkpoint
from models.convert.configuration import write_configuration
from models.convert.graph import DATA_FILE, GraphWriter, NotFinite, Precision
from models.convert.refusal import ConversionRefused
from models.convert.tensor import Tensors
from models.convert.text_graph import write_text
from models.convert.tokenizer import cn_clip_tokenizer
from models.convert.vision_graph import write_vision
from models.convert.vocabulary import SHA256, read_vocabulary
from models.durable import clear_path, open_lock, sync_path, sync_tree
from models.entry import ModelEntry

log = logging.getLogger(__name__)

Report: TypeAlias = Callable[[str, float], None]
"""Called with what is done next, and which share of the whole is done already, 0 to 1."""

_FAMILY = "cn-clip"
"""The family of models that are converted."""
LARGEST_INSIDE = 64 * 2**20
"""Bytes of weights that a half keeps in its graph; more lie in a file beside it (``models.convert.graph``)."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A folder that was written."""

    folder: Path
    architecture: Architecture
    image_cosine: float
    """Least cosine of the image graph to numpy's vectors."""
    text_cosine: float


def convert(
    checkpoint: Path,
    folder: Path,
    *,
    vocabulary: Path,
    vocabulary_sha256: str | None = SHA256,
    precision: Precision = "fp32",
    entry: ModelEntry | None = None,
    report: Report | None = None,
) -> Converted:
    """Write the model in ``checkpoint`` to ``folder``, which is there only once it is whole and checked.

    ``checkpoint``: ``clip_cn_*.pt``, ``model.safetensors``, ``pytorch_model.bin``, or a folder that holds one of them.
    ``vocabulary``: ``vocab.txt`` of cn-clip, or its wheel; ``vocabulary_sha256``: what it must have, None takes any.
    ``entry``: refuse what does not fit it. Blocks while another process writes the same folder.

    Raises ``ConversionRefused``: the file is no CN-CLIP, does not fit ``entry``, or the graphs do not answer as the
    checkpoint does; ``folder`` exists. Raises ``OSError``.
    """
    say = report or (lambda _, __: None)
    say(f"Reading {checkpoint.name} (step 1 of 5)", 0.0)
    tensors = read_checkpoint(checkpoint)
    architecture = _architecture(tensors, checkpoint, entry)
    pieces = read_vocabulary(vocabulary, vocabulary_sha256)
    if len(pieces) != architecture.text.vocabulary:
        raise ConversionRefused(
            f"{checkpoint} knows {architecture.text.vocabulary:,} word pieces, {vocabulary} has {len(pieces):,}. "
            "Name the vocabulary that the model was trained with."
        )
    with _emerging(folder) as partial:
        try:
            cosines = write_model(architecture, tensors, cn_clip_tokenizer(pieces), partial, precision, say)
        except NotFinite as error:
            raise ConversionRefused(f"{checkpoint} is damaged: {error}. Nothing was stored.") from error
        for half, cosine in zip(("image", "text"), cosines, strict=True):
            if not cosine > LEAST_COSINE:  # NaN, too
                found = "it makes no vector" if math.isnan(cosine) else f"cosine {cosine:.6f}"
                raise ConversionRefused(
                    f"The {half} half of {checkpoint} does not answer as its weights do after conversion: {found}, "
                    f"{LEAST_COSINE} is due. Nothing was stored. Are its weights damaged?"
                )
    say(f"Converted {checkpoint}", 1.0)
    return Converted(folder, architecture, *cosines)


def convert_and_store(
    checkpoint: Path, entry: ModelEntry, *, vocabulary: Path, precision: Precision = "fp32"
) -> Converted:
    """Convert ``checkpoint`` and store it as ``entry``, so that the service finds it under that name.

    ``vocabulary``: ``vocab.txt`` of cn-clip, or its wheel. Returns what ``convert`` does, with the folder in the store.
    Raises ``ConversionRefused``: the entry is none that is converted, or as ``convert`` does. Raises ``NotStored``,
    ``OSError``.
    """
    if entry.family != _FAMILY:
        raise ConversionRefused(
            f"{entry.name} is of the family {entry.family}; only CN-CLIP is converted. Others: `python -m models pull`."
        )
    if entry.folder is not None:
        raise ConversionRefused(
            f"{entry.name} is served from {entry.folder}, as MODEL_CATALOG says. Take `folder` out of its entry."
        )
    with store.model_lock(entry):
        folder = store.staging_folder() / f"{store.store_name(entry.name)}.converted"
        clear_path(folder)
        try:
            done = convert(
                checkpoint,
                folder,
                vocabulary=vocabulary,
                precision=precision,
                entry=entry,
                report=lambda what, _: log.info("%s.", what),
            )
            files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
            details = {
                "source": str(checkpoint.resolve()),
                "precision": precision,
                "cosine": {"pictures": done.image_cosine, "texts": done.text_cosine},
            }
            return replace(done, folder=store.save(entry, files, details))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def write_model(
    architecture: Architecture,
    tensors: Tensors,
    tokenizer: Tokenizer,
    folder: Path,
    precision: Precision,
    report: Report,
) -> tuple[float, float]:
    """Write all files to ``folder``, and return the least cosines of pictures and texts to numpy's vectors.

    Raises ``NotFinite``, ``ConversionRefused``, ``OSError``.
    """
    write_configuration(folder, architecture.vision.image_size, tokenizer)
    visual, textual = folder / "visual/model.onnx", folder / "textual/model.onnx"
    report(f"Writing the image half, {precision} (step 2 of 5)", 0.05)
    _write_half(visual, architecture, tensors, precision)
    report(f"Writing the text half, {precision} (step 3 of 5)", 0.35)
    _write_half(textual, architecture, tensors, precision)
    report("Checking the image half (step 4 of 5)", 0.6)
    of_pictures = image_cosine(visual, architecture, tensors)
    report("Checking the text half (step 5 of 5)", 0.85)
    return of_pictures, text_cosine(textual, architecture, tensors, tokenizer)


def _write_half(path: Path, architecture: Architecture, tensors: Tensors, precision: Precision) -> None:
    """Write one half to ``path``, and its weights to ``DATA_FILE`` beside it where they are large."""
    half = path.parent.name
    names = [name for name in tensors if name.startswith("visual.") == (half == "visual")]
    size = sum(math.prod(tensors[name].shape) for name in names) * (2 if precision == "fp16" else 4)
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(path.with_name(DATA_FILE).open("wb")) if size > LARGEST_INSIDE else None
        writer = GraphWriter(data, precision)
        graph_input = (write_vision if half == "visual" else write_text)(writer, architecture, tensors)
        writer.save(path, f"cn-clip-{half}", graph_input, architecture.embedding_size)


def _architecture(tensors: Tensors, checkpoint: Path, entry: ModelEntry | None) -> Architecture:
    try:
        architecture = read_architecture({name: tensor.shape for name, tensor in tensors.items()})
    except Misfit as error:
        raise ConversionRefused(
            f"{checkpoint} does not fit any architecture of CN-CLIP: {error}. Is it a CN-CLIP?"
        ) from error
    if entry is None:
        return architecture
    check_name(architecture, entry.name, str(checkpoint))
    sizes = (architecture.embedding_size, architecture.vision.image_size)
    if sizes[0] != entry.embedding_size or entry.input_size not in (None, sizes[1]):
        raise ConversionRefused(
            f"{checkpoint} makes {sizes[0]} numbers of pictures of {sizes[1]} pixels; the catalog says "
            f"{entry.embedding_size} and {entry.input_size} of {entry.name}. Correct its entry, or choose another name."
        )
    return architecture


@contextlib.contextmanager
def _emerging(folder: Path) -> Iterator[Path]:
    """Give a folder beside ``folder`` that gets its name at the end, or goes; what a killed process left goes first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.converting")
    with open_lock(partial.with_suffix(".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.lexists(folder):
            raise ConversionRefused(f"{folder} exists. Remove it, so that the model can be converted anew.")
        clear_path(partial)
        partial.mkdir()
        try:
            yield partial
            sync_tree(partial)
            os.replace(partial, folder)
            sync_path(folder.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
