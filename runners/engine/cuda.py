"""Detection of CUDA, without loading ONNX Runtime (20 MB in every process) where its build has no CUDA."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np


def cuda_problem() -> str | None:
    """Return why CUDA cannot be used, as the end of a sentence; None where it can."""
    if not _has_cuda_build():
        return "onnxruntime-gpu is not installed in place of onnxruntime (requirements-cuda.lock)"
    import onnxruntime as ort

    # CUDA and cuDNN as pip installs them lie where the system's loader does not look.
    ort.preload_dlls()
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return "onnxruntime and onnxruntime-gpu have written over each other; install requirements-cuda.lock afresh"
    try:
        ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        return f"onnxruntime-gpu is installed, but no GPU answers ({reason}). Does nvidia-smi list one"
    return None


def _has_cuda_build() -> bool:
    """Return whether the installed package has ONNX Runtime's library for CUDA (libonnxruntime_providers_cuda.so)."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return False
    return any((Path(spec.origin).parent / "capi").glob("*onnxruntime_providers_cuda*"))
