"""Whether this machine computes with CUDA, found out without loading ONNX Runtime where it cannot: that is 20 MB in
every process.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np


def cuda_is_usable() -> bool:
    """Whether this build of ONNX Runtime has CUDA and a device answers."""
    if not _has_cuda_build():
        return False
    import onnxruntime as ort

    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return False
    try:
        ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    except (RuntimeError, ValueError):
        return False
    return True


def _has_cuda_build() -> bool:
    """Whether the installed package holds ONNX Runtime's library for CUDA (libonnxruntime_providers_cuda.so or the
    like).
    """
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return False
    return any((Path(spec.origin).parent / "capi").glob("*onnxruntime_providers_cuda*"))
