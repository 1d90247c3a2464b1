"""Weights in fp16 for graphs that OpenVINO computes in bf16."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection
from pathlib import Path
from xml.etree import ElementTree

import runners.engine.before_openvino  # noqa: F401

# isort: split
import openvino as ov

from runners.engine.openvino_core import core

log = logging.getLogger(__name__)

_CONVOLUTIONS = ("Convolution", "GroupConvolution")


def with_half_weights(model: ov.Model, *, exact_start: bool) -> ov.Model:
    """Return ``model`` with weights in fp16: half the file, and no second copy when packed.

    ``exact_start``: have the convolutions that no other one comes before computed in fp32. MobileFaceNet on 34 faces:
    least cosine to fp32 0.9989, mean 0.99976; without it 0.9988 and 0.99974. Not those behind: OpenVINO fails where the
    answers of two convolutions of different precision are added.

    fp16 keeps three bits more than bf16. The two casts, from fp32 to fp16 and on to bf16, differ from one by half a
    unit in bf16's last place at most.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="immich-bento-") as folder:
            path = Path(folder, "model.xml")
            ov.save_model(model, str(path), compress_to_fp16=True)
            if exact_start:
                _mark_exact(path, _first_convolutions(model))
            return core().read_model(str(path))  # maps the weights: they stay readable when the folder is gone
    except (OSError, RuntimeError) as error:
        log.info("Weights stay in fp32 in memory: %s", " ".join(str(error).split())[:200])
        return model


def _first_convolutions(model: ov.Model) -> set[str]:
    """Return the names of the convolutions that no other one comes before."""
    first: set[str] = set()
    behind: set[str] = set()
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        before = {value.get_node().get_friendly_name() for value in node.input_values()}
        if before & (first | behind):
            behind.add(name)
        elif node.get_type_name() in _CONVOLUTIONS:
            first.add(name)
    return first


def _mark_exact(path: Path, names: Collection[str]) -> None:
    """Mark the layers of these names in the ``.xml`` at ``path``, so that they are computed in fp32.

    The attribute is OpenVINO's own (``DisableFP16Compression``, written "precise"); a release that does not know it
    ignores it.
    """
    document = ElementTree.parse(path)  # noqa: S314 - written by OpenVINO a moment ago
    for layer in document.iter("layer"):
        if layer.get("name") not in names:
            continue
        info = layer.find("rt_info")
        if info is None:
            info = ElementTree.Element("rt_info")
            layer.insert(0 if layer.find("data") is None else 1, info)
        ElementTree.SubElement(info, "attribute", {"name": "precise", "version": "0"})
    document.write(path)
