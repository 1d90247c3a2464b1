"""Weights in fp16 for graphs that OpenVINO computes in bf16."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import runners.engine.before_openvino  # noqa: F401

# isort: split
import openvino as ov

from runners.engine.openvino_core import core

log = logging.getLogger(__name__)


def with_half_weights(model: ov.Model) -> ov.Model:
    """Return ``model`` with weights in fp16: half the file, and no second copy when packed.

    fp16 keeps three bits more than bf16. The two casts, from fp32 to fp16 and on to bf16, differ from one by half a
    unit in bf16's last place at most.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="immich-bento-") as folder:
            path = Path(folder, "model.xml")
            ov.save_model(model, str(path), compress_to_fp16=True)
            return core().read_model(str(path))  # maps the weights: they stay readable when the folder is gone
    except (OSError, RuntimeError) as error:
        log.info("Weights stay in fp32 in memory: %s", " ".join(str(error).split())[:200])
        return model
