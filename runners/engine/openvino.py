"""``Session`` over OpenVINO, on the CPU or an Intel GPU. Needs the extra ``[openvino]``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from runners.engine.session import TensorSpec


@lru_cache(maxsize=1)
def _core() -> ov.Core:
    return ov.Core()


def is_usable() -> bool:
    """Whether OpenVINO finds a device to compute on."""
    return bool(_core().available_devices)


class OpenVinoSession:
    """A graph in OpenVINO, computed in fp32: OpenVINO would silently take bf16 where the CPU has it. Thread-safe."""

    def __init__(self, path: Path, *, threads: int) -> None:
        core = _core()
        device = "GPU" if "GPU" in core.available_devices else "CPU"
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if device == "CPU":
            config |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        model = core.read_model(str(path))
        # OpenVINO reads a graph's own metadata into rt_info, below "framework".
        rt_info = model.rt_info
        found = dict(rt_info["framework"]) if "framework" in rt_info else {}
        self.metadata = {key: value.astype(str) for key, value in found.items()}
        self._compiled: ov.CompiledModel | None = core.compile_model(model, device, config)
        self.inputs = tuple(_spec(port) for port in self._compiled.inputs)
        self.outputs = tuple(_spec(port) for port in self._compiled.outputs)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        compiled = self._compiled
        if compiled is None:
            raise RuntimeError("The session is closed.")
        result = compiled.create_infer_request().infer(dict(feeds), share_inputs=True, share_outputs=False)
        return [np.asarray(result[index]) for index in range(len(self.outputs))]

    def close(self) -> None:
        self._compiled = None


def _spec(port: Any) -> TensorSpec:
    shape = tuple(dim.get_length() if dim.is_static else None for dim in port.partial_shape)
    return TensorSpec(name=port.any_name, dtype=port.element_type.to_dtype(), shape=shape)
