"""CLIP folders in this project's layout, written in milliseconds with onnx alone, for tests and benchmarks.

Vectors depend on the input and mean nothing: the picture is average-pooled to 8 x 8 and projected by a fixed random
matrix; a text's token vectors are averaged.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

Axis = int | str | None
_SPECIAL = ("[PAD]", "[CLS]", "[SEP]")


def tiny_clip_folder(
    folder: Path,
    embedding_size: int = 512,
    *,
    image_size: int = 32,
    context_length: int = 52,
    immich: bool = False,
    attention_mask: bool = False,
    languages: Sequence[str] = (),
    preprocessing: dict[str, Any] | None = None,
    text_config: dict[str, Any] | None = None,
) -> Path:
    """Write a valid CLIP folder and return it.

    As CN-CLIP's: ``image`` uint8 (n, s, s, 3), ``text`` int64 (n, context). ``immich=True``, as Immich's hub: ``image``
    float32 (1, 3, s, s), ``text`` int32 (1, context), batch fixed. ``attention_mask``: text inputs ``input_ids`` and
    ``attention_mask``. ``languages``: tokens of one piece each, as NLLB's vocabulary has. The others are entries of the
    two configuration files.
    """
    for half in ("visual", "textual"):
        (folder / half).mkdir(parents=True, exist_ok=True)
    tokenizer = _byte_tokenizer(languages)
    batch: Axis = 1 if immich else "batch"
    _save(_visual(batch, image_size, embedding_size, uint8=not immich), folder / "visual/model.onnx")
    _save(
        _textual(batch, context_length, tokenizer.get_vocab_size(), embedding_size, immich, attention_mask),
        folder / "textual/model.onnx",
    )
    tokenizer.save(str(folder / "textual/tokenizer.json"))
    (folder / "textual/tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    (folder / "config.json").write_text(
        json.dumps({"text_cfg": {"context_length": context_length} | (text_config or {})})
    )
    defaults = {
        "size": [image_size, image_size],
        "mode": "RGB",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bicubic",
    }
    defaults["resize_mode"] = "shortest" if immich else "squash"
    (folder / "visual/preprocess_cfg.json").write_text(json.dumps(defaults | (preprocessing or {})))
    return folder


def clip_files(folder: Path) -> dict[str, Path]:
    """Map the names of the files of a CLIP folder to their paths, as ``models`` gives them."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def _byte_tokenizer(languages: Sequence[str]) -> Tokenizer:
    """Return a tokenizer with one token per byte of the text, between [CLS] and [SEP]."""
    symbols = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.add_special_tokens(list(languages))
    return tokenizer


def _visual(batch: Axis, size: int, width: int, *, uint8: bool) -> onnx.ModelProto:
    cells = 8
    kernel = max(1, size // cells)
    nodes = [
        helper.make_node(
            "AveragePool", ["planes"], ["pooled"], kernel_shape=[kernel, kernel], strides=[kernel, kernel]
        ),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        # The bias keeps a black picture from having no direction.
        helper.make_node("Gemm", ["flat", "projection", "bias"], ["raw"]),
        helper.make_node("LpNormalization", ["raw"], ["embedding"], axis=1, p=2),
    ]
    if uint8:
        nodes = [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["float", "scale"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
            *nodes,
        ]
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, size, size, 3])
    else:
        nodes.insert(0, helper.make_node("Identity", ["image"], ["planes"]))
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, size, size])
    features = 3 * (size // kernel) ** 2
    weights = {"projection": _random((features, width)), "bias": _random((width,)), "scale": np.float32(1 / 255)}
    return _model(nodes, [image], batch, width, weights)


def _textual(
    batch: Axis, context: int, vocabulary: int, width: int, immich: bool, attention_mask: bool
) -> onnx.ModelProto:
    names = ["input_ids", "attention_mask"] if attention_mask else ["text"]
    integer = TensorProto.INT32 if immich else TensorProto.INT64
    inputs = [helper.make_tensor_value_info(name, integer, [batch, context]) for name in names]
    nodes = [helper.make_node("Gather", ["table", names[0]], ["vectors"])]
    weights = {
        "table": _random((vocabulary, width)),
        "positions": _random((context, width)),
        "last": np.array([-1], np.int64),
    }
    nodes.append(helper.make_node("Mul", ["vectors", "positions"], ["placed"]))
    if attention_mask:
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
            helper.make_node("Mul", ["placed", "column"], ["kept"]),
        ]
    nodes.append(
        helper.make_node("ReduceMean", ["kept" if attention_mask else "placed"], ["embedding"], axes=[1], keepdims=0)
    )
    return _model(nodes, inputs, batch, width, weights)


def _model(nodes: list[Any], inputs: list[Any], batch: Axis, width: int, weights: dict[str, Any]) -> onnx.ModelProto:
    used = {name for node in nodes for name in node.input}
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items() if name in used]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, width])
    graph = helper.make_graph(nodes, "tiny-clip", inputs, [output], initializer=constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _save(model: onnx.ModelProto, path: Path) -> None:
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _random(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
