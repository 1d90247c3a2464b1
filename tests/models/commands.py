"""Runs ``python -m models`` in this process, and writes checkpoints for it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models.command import main


@dataclass(frozen=True)
class Ran:
    """What a command answered."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def runner(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs one command with the arguments that it is given."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


def hugging_face_names(state: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """Return cn_clip's weights as transformers' ChineseCLIPModel names and lays them out."""
    named: dict[str, Any] = {
        "logit_scale": state["logit_scale"],
        "text_projection.weight": state["text_projection"].T.contiguous(),
        "visual_projection.weight": state["visual.proj"].T.contiguous(),
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
    }
    for theirs, ours in (("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post")):
        for kind in ("weight", "bias"):
            named[f"vision_model.{theirs}.{kind}"] = state[f"visual.{ours}.{kind}"]
    pairs = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    pairs["self_attn.out_proj"] = "attn.out_proj"
    for layer in range(layers):
        here, there = f"visual.transformer.resblocks.{layer}", f"vision_model.encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            for theirs, ours in pairs.items():
                named[f"{there}.{theirs}.{kind}"] = state[f"{here}.{ours}.{kind}"]
            for part, tensor in zip("qkv", state[f"{here}.attn.in_proj_{kind}"].chunk(3), strict=True):
                named[f"{there}.self_attn.{part}_proj.{kind}"] = tensor.clone()
    for name, tensor in state.items():
        if name.startswith("bert."):
            named["text_model." + name.removeprefix("bert.")] = tensor
    return named


def write_safetensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write the format of https://github.com/huggingface/safetensors, fp32 only."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, tensor in tensors.items():
        raw = tensor.numpy().astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
