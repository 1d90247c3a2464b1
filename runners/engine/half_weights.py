"""Weights in fp16 for graphs that OpenVINO computes in bf16."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import runners.engine.before_openvino  # noqa: F401

# isort: split
import openvino as ov

from runners.engine.openvino_core import core

log = logging.getLogger(__name__)

_EXACT_START = 5
"""Convolutions in fp32 at the start of a graph that wants it. MobileFaceNet on 85 faces: least cosine to fp32 0.9997,
without it 0.9987.
"""


def with_half_weights(model: ov.Model, *, exact_start: bool) -> ov.Model:
    """Return ``model`` with weights in fp16: half the file, and no second copy when packed.

    fp16 keeps three bits more than bf16. The two casts, from fp32 to fp16 and on to bf16, differ from one by half a
    unit in bf16's last place at most.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="immich-bento-") as folder:
            path = Path(folder, "model.xml")
            ov.save_model(model, str(path), compress_to_fp16=True)
            if exact_start:
                _mark_exact(path)
            return core().read_model(str(path))  # maps the weights: they stay readable when the folder is gone
    except (OSError, RuntimeError) as error:
        log.info("Weights stay in fp32 in memory: %s", " ".join(str(error).split())[:200])
        return model


def _mark_exact(path: Path) -> None:
    """Mark the first convolutions of the ``.xml`` at ``path``, so that they are computed in fp32.

    The attribute is OpenVINO's own (``DisableFP16Compression``, written "precise"); a release that does not know it
    ignores it.
    """
    document = ElementTree.parse(path)  # noqa: S314 - written by OpenVINO a moment ago
    convolutions = [
        layer for layer in document.iter("layer") if layer.get("type") in ("Convolution", "GroupConvolution")
    ]
    for layer in convolutions[:_EXACT_START]:
        info = layer.find("rt_info")
        if info is None:
            info = ElementTree.Element("rt_info")
            layer.insert(0 if layer.find("data") is None else 1, info)
        ElementTree.SubElement(info, "attribute", {"name": "precise", "version": "0"})
    document.write(path)
