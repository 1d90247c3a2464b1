"""The weights of the benchmarks, laid out for Immich's own machine-learning server, which can then be the peer.

    python -m tools.bench.immich_weights FOLDER [--models FOLDER] [--env NAME=VALUE]

writes a cache folder for that server, 800 MB, and prints the settings of both. The numbers in the graphs stay as they
are. What changes is how they are fed and asked: Immich sends every CLIP normalised float pixels, channels first, and
tokens as int32; and insightface 0.7.3, which it detects faces with, wants the detector's outputs without a batch axis.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.catalog import ModelKind, load_catalog
from models.resolve import resolve
from settings import Settings
from tools.bench import contenders
from tools.bench.weights import weights

NAMES = {ModelKind.FACES: "buffalo_s", ModelKind.OCR: "PP-OCRv5_mobile"}
CLIP_NAMES = {512: "ViT-B-32__openai", 768: "ViT-L-14__openai", 1024: "RN50__openai"}
"""Names that Immich's server must be asked for, a CLIP by the size of its vectors. It refuses the true names of
CN-CLIP's and of the OCR models.
"""
_NUMBERS = (1, 4, 10)
"""Of an anchor of SCRFD: a score, a box, five landmarks. Each kind has an output per level."""


def lay_out(folder: Path, config: Settings) -> None:
    """Write the models that ``config`` names into ``folder``, as a cache of Immich's server."""
    catalog = load_catalog(config.model_catalog)
    chosen = {
        ModelKind.CLIP: config.clip_model,
        ModelKind.FACES: config.recognition_model,
        ModelKind.OCR: config.ocr_model,
    }
    for kind, name in chosen.items():
        entry = catalog.find(kind, name)
        files = resolve(entry, config)
        target = folder / kind.value / (NAMES.get(kind) or CLIP_NAMES[entry.embedding_size or 512])
        shutil.rmtree(target, ignore_errors=True)  # what an older run left, or Immich's server fetched
        {ModelKind.CLIP: _clip, ModelKind.FACES: _faces, ModelKind.OCR: _ocr}[kind](files, target)


def channels_first(model: onnx.ModelProto, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Have a graph of uint8 pixels (n, size, size, 3) take float32 ``image`` (n, 3, size, size), normalised.

    The normalisation is undone: rounding gives the pixels back exactly. A graph of floats is left as it is.
    """
    graph = model.graph
    (given,) = graph.input
    if given.type.tensor_type.elem_type != TensorProto.UINT8:
        return
    scale, offset = (np.asarray(one, np.float32).reshape(1, 3, 1, 1) * np.float32(255) for one in (std, mean))
    steps = [
        helper.make_node("Mul", ["image", "immich_scale"], ["immich_scaled"]),
        helper.make_node("Add", ["immich_scaled", "immich_offset"], ["immich_shifted"]),
        helper.make_node("Round", ["immich_shifted"], ["immich_rounded"]),
        helper.make_node("Cast", ["immich_rounded"], ["immich_whole"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["immich_whole"], ["immich_pixels"], perm=[0, 2, 3, 1]),
    ]
    _rename(graph, given.name, "immich_pixels")
    graph.initializer.extend(
        [numpy_helper.from_array(scale, "immich_scale"), numpy_helper.from_array(offset, "immich_offset")]
    )
    _take(graph, helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, size, size]), steps)


def int32_tokens(model: onnx.ModelProto) -> None:
    """Have a graph of tokens take them as int32 ``text`` (n, length)."""
    (given,) = model.graph.input
    kind = given.type.tensor_type
    if given.name == "text" and kind.elem_type == TensorProto.INT32:
        return
    shape = [dimension.dim_value or dimension.dim_param or None for dimension in kind.shape.dim]
    _rename(model.graph, given.name, "immich_tokens")
    step = helper.make_node("Cast", ["text"], ["immich_tokens"], to=kind.elem_type)
    _take(model.graph, helper.make_tensor_value_info("text", TensorProto.INT32, shape), [step])


def without_batch_axis(model: onnx.ModelProto) -> None:
    """Have an SCRFD graph answer one picture with (anchors, k) for each level, in place of (1, anchors, k).

    insightface 0.7.3 subtracts the first column of the distances from the anchors' coordinates; of three axes it gets
    the first anchor's instead, and ends with "operands could not be broadcast together".
    """
    graph = model.graph
    levels = len(graph.output) // len(_NUMBERS)
    outputs = list(graph.output)
    del graph.output[:]
    for at, output in enumerate(outputs):
        numbers, name = _NUMBERS[at // levels], f"immich_{output.name}"
        graph.initializer.append(numpy_helper.from_array(np.array([-1, numbers], np.int64), f"{name}_shape"))
        graph.node.append(helper.make_node("Reshape", [output.name, f"{name}_shape"], [name]))
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}_anchors", numbers]))


def _take(graph: Any, given: Any, steps: Sequence[Any]) -> None:
    """Put ``steps`` before the nodes of ``graph``, and let it take ``given`` alone."""
    nodes = [*steps, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(given)


def _rename(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name == old:
                node.input[at] = new


def _clip(files: Mapping[str, Path], target: Path) -> None:
    preprocessing = json.loads(files["visual/preprocess_cfg.json"].read_text())
    size = preprocessing["size"] if isinstance(preprocessing["size"], int) else preprocessing["size"][0]
    for half in ("visual", "textual"):
        source = files[f"{half}/model.onnx"]
        model = onnx.load(str(source), load_external_data=False)
        if half == "visual":
            channels_first(model, size, preprocessing["mean"], preprocessing["std"])
        else:
            int32_tokens(model)
        _save(model, target / half)
        for location in _beside(model):
            shutil.copyfile(source.parent / location, target / half / location)
    described = {"resize_mode": "shortest", "interpolation": "bicubic", **preprocessing}
    (target / "visual/preprocess_cfg.json").write_text(json.dumps(described))
    for name in ("config.json", "textual/tokenizer.json", "textual/tokenizer_config.json"):
        shutil.copyfile(files[name], target / name)


def _faces(files: Mapping[str, Path], target: Path) -> None:
    detector = onnx.load(str(files["detection/model.onnx"]))
    without_batch_axis(detector)
    _save(detector, target / "detection")
    _save(onnx.load(str(files["recognition/model.onnx"])), target / "recognition")


def _ocr(files: Mapping[str, Path], target: Path) -> None:
    for part in ("detection", "recognition"):
        _save(onnx.load(str(files[f"{part}/model.onnx"])), target / part)


def _save(model: onnx.ModelProto, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def _beside(model: onnx.ModelProto) -> list[str]:
    """Return the names of the files beside a graph that hold its weights."""
    found = [
        entry.value
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    ]
    return list(dict.fromkeys(found))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench.immich_weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write")
    contenders.add_our_options(parser)
    options = parser.parse_args(arguments)
    chosen = {**weights(options.models).environment, **contenders.environment(options)}
    lay_out(options.folder, Settings(**chosen))  # type: ignore[arg-type]
    settings = " ".join(f"{name}={value}" for name, value in chosen.items())
    print(f"This service: {settings} MACHINE_LEARNING_MODEL_TTL=0")
    print(f"Immich's: MACHINE_LEARNING_CACHE_FOLDER={options.folder.resolve()} MACHINE_LEARNING_MODEL_TTL=0")


if __name__ == "__main__":
    main()
