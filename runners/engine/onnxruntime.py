"""``Session`` over ONNX Runtime, on the CPU or on CUDA."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runners.engine.session import TensorSpec

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


_pool_is_set = threading.Event()
_setting_pool = threading.Lock()


def _share_threads(threads: int, inter_op_threads: int) -> None:
    """Give all sessions of this process one thread pool, as pools of their own would compete for the cores.

    The first call decides; ONNX Runtime refuses another once a session exists.
    """
    with _setting_pool:
        if _pool_is_set.is_set():
            return
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        ort.disable_telemetry_events()
        ort.set_global_thread_pool_sizes(threads, inter_op_threads)
        _pool_is_set.set()


class OnnxRuntimeSession:
    """A graph in ONNX Runtime. Thread-safe; all sessions of the process share one pool of threads."""

    def __init__(self, path: Path, *, threads: int, inter_op_threads: int = 1, cuda_device: int | None = None) -> None:
        """Load ``path``. ``cuda_device``: None computes on the CPU.

        Raises whatever ONNX Runtime raises on a file that is no graph it can run.
        """
        _share_threads(threads, inter_op_threads)
        options = ort.SessionOptions()
        options.use_per_session_threads = False
        options.log_severity_level = 3
        # The arena and the memory patterns keep the largest buffers of every shape ever seen. Text lines and panoramas
        # have many shapes; freeing after each run keeps memory flat.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        providers: list[Any] = ["CPUExecutionProvider"]
        if cuda_device is not None:
            providers.insert(
                0, ("CUDAExecutionProvider", {"device_id": cuda_device, "arena_extend_strategy": "kSameAsRequested"})
            )
        self._session: ort.InferenceSession | None = ort.InferenceSession(str(path), options, providers=providers)
        if cuda_device is not None and "CUDAExecutionProvider" not in self._session.get_providers():
            raise RuntimeError(f"ONNX Runtime fell back to the CPU for {path}, although CUDA was asked for.")
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self._output_names = [spec.name for spec in self.outputs]
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        session = self._session
        if session is None:
            raise RuntimeError("The session is closed.")
        return list(session.run(self._output_names, dict(feeds)))

    def close(self) -> None:
        self._session = None


def _spec(node: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorSpec(name=node.name, dtype=np.dtype(_DTYPES[node.type]), shape=shape)
