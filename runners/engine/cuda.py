"""Detection of CUDA, without loading ONNX Runtime (20 MB in every process) where its build has no CUDA."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np


def cuda_is_usable() -> bool:
    """Return whether this build of ONNX Runtime has CUDA and a device answers."""
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
    """Return whether the installed package has ONNX Runtime's library for CUDA (libonnxruntime_providers_cuda.so)."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return False
    return any((Path(spec.origin).parent / "capi").glob("*onnxruntime_providers_cuda*"))
