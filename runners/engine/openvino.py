"""``Session`` over OpenVINO, on the CPU or an Intel GPU.

Memory of CN-CLIP ViT-B-16's image half in bf16 (172 MB of weights): 701 MB as OpenVINO loads it from ONNX, 225 MB
here. The weights that OpenVINO packs for the CPU are needed; those that it packs from are a mapped file
(``runners.engine.compiled_models``), whose pages are released once packed.
"""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import runners.engine.before_openvino  # noqa: F401

# isort: split
import openvino as ov

from runners.engine.best_class import reduced_metadata
from runners.engine.bf16 import bf16_speedup
from runners.engine.choice import WORTH_IT, Precision
from runners.engine.compiled_models import CompiledModels, Mapped
from runners.engine.half_weights import with_half_weights
from runners.engine.idle import register
from runners.engine.int8 import Ranges, quantize
from runners.engine.openvino_core import core, cpu_capabilities, cpu_facts, has_gpu
from runners.engine.rewriting import REWRITING, end_with_best_class, rewrite, with_picture_size
from runners.engine.session import TensorSpec

log = logging.getLogger(__name__)

_PREPARED_OPTION = "CPU_RUNTIME_CACHE_CAPACITY"
_PREPARED, _PREPARED_FOR_FEW = "512", "1024"
"""Operations prepared for a shape that OpenVINO keeps per model, its own default being 5000. Which number trades memory
for speed: docs/performance-measurements.md, "Against an older commit". Where there are few shapes, all are kept: faces
in batches of 1 to 4 took 95 ms of CPU a picture with 64, since each change of shape prepared a graph anew, and 76 ms
with 1024, for 14 MB more.
"""


class OpenVinoSession:
    """A graph in OpenVINO. Thread-safe: calls run one after another, as they would in OpenVINO's one stream anyway."""

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        precision: Precision = "fp32",
        best_class: bool = False,
        compiled: CompiledModels | None = None,
        gpu: bool = False,
        few_shapes: bool = False,
        stays_packed: bool = False,
        picture_size: tuple[int, int] | None = None,
        ranges: Ranges | None = None,
    ) -> None:
        """Load ``path``, an ONNX file or OpenVINO's own ``.xml``. ``compiled``: the cache of compiled models.

        ``precision``: of the CPU's multiplications; int8 needs a quantized file or ``ranges`` (``quantize``), which are
        for int8 alone, and computes all other parts in bf16 where that is faster. ``best_class``: return what
        ``BestClassSession`` does, reduced in the graph. ``gpu``: use an Intel GPU if there is one, in fp32.
        ``few_shapes``, ``stays_packed`` and ``picture_size``: as of ``runners.engine.open_session``.
        """
        self._stays_packed = stays_packed
        self._device = "GPU" if gpu and has_gpu() else "CPU"
        bf16 = self._device == "CPU" and _computes_in_bf16(precision, compiled)
        self._config = _config(self._device, bf16, threads, _PREPARED_FOR_FEW if few_shapes else _PREPARED)
        self._mapped: Mapped | None = None
        self.is_from_disk = False
        graph, self.metadata = self._load(path, precision, bf16, best_class, picture_size, ranges, compiled)
        self._compiled: ov.CompiledModel | None = graph
        self.inputs = tuple(_spec(port) for port in graph.inputs)
        self.outputs = tuple(_spec(port) for port in graph.outputs)
        self._request: ov.InferRequest | None = None
        self._turn = threading.Lock()
        self._last_run, self._is_trimmed = time.monotonic(), False
        self._shapes: set[tuple[tuple[int, ...], ...]] = set()
        register(self)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        with self._turn:
            if self._request is None:
                self._request = self._open().create_infer_request()
            result = self._request.infer(dict(feeds), share_inputs=True, share_outputs=False)
            answers = [np.asarray(result[index]) for index in range(len(self.outputs))]
            self._last_run, self._is_trimmed = time.monotonic(), False
            self._release_pages(feeds)
            return answers

    def _open(self) -> ov.CompiledModel:
        """Return the graph, imported again from its mapped file if it was closed while idle."""
        if self._compiled is None:
            if self._mapped is None:
                raise RuntimeError("The session is closed.")
            self._compiled = _import(self._mapped, self._config)
        return self._compiled

    def _release_pages(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Release the pages of the mapped file after each new shape, for which weights were packed from them."""
        shapes = tuple(array.shape for array in feeds.values())
        if self._mapped is not None and shapes not in self._shapes and len(self._shapes) < 64:
            self._shapes.add(shapes)
            self._mapped.drop_pages()

    def trim(self, idle_for: float) -> bool:
        """Release memory, as ``Trimmable`` says: close the graph, or shrink one that stays packed."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            if self._compiled is None or self._is_trimmed or time.monotonic() - self._last_run < idle_for:
                return False
            self._request = None  # it holds the last call's arrays
            if self._mapped is not None and not self._stays_packed:
                # OpenVINO has no other way to release packed weights and what it prepared for each shape.
                self._compiled = None
                self._shapes.clear()
            else:
                self._compiled.release_memory()
            if self._mapped is not None:
                self._mapped.drop_pages()
            self._is_trimmed = True
            return True
        finally:
            self._turn.release()

    def shrink(self, idle_for: float) -> bool:
        """Release working memory alone, if there was no call for ``idle_for`` seconds. Returns whether there was any.

        The next call pays for it in page faults; nothing is loaded or prepared anew.
        """
        if not self._turn.acquire(blocking=False):
            return False
        try:
            if self._compiled is None or self._request is None or time.monotonic() - self._last_run < idle_for:
                return False
            self._request = None
            self._compiled.release_memory()
            return True
        finally:
            self._turn.release()

    def close(self) -> None:
        with self._turn:
            self._request = self._compiled = self._mapped = None

    def _load(
        self,
        path: Path,
        precision: Precision,
        bf16: bool,
        best_class: bool,
        picture_size: tuple[int, int] | None,
        ranges: Ranges | None,
        folder: CompiledModels | None,
    ) -> tuple[ov.CompiledModel, dict[str, str]]:
        if self._device != "CPU":
            model, metadata = _read(path, best_class=best_class)
            return core().compile_model(model, self._device, self._config), metadata
        facts = {
            **cpu_facts(), "precision": precision, "bf16": str(bf16), "best class": str(best_class),
            "rewriting": REWRITING, "picture size": str(picture_size), "ranges": json.dumps(ranges),
        }  # fmt: skip
        graph = self._from_disk(path, facts, folder)
        if graph is not None and self._mapped is not None:
            self.is_from_disk = True
            return graph, dict(self._mapped.entry.metadata)
        model, metadata = _read(path, best_class=best_class)
        if precision != "int8" or ranges is not None:
            rewrite(model)
        if ranges is not None:
            quantize(model, ranges)
        if picture_size is not None:
            model = with_picture_size(model, picture_size)
        if precision == "bf16":
            model = with_half_weights(model)
        graph = core().compile_model(model, "CPU", self._config)
        if folder is not None and folder.write(path, facts, metadata, lambda file: _export(graph, file)):
            # Use the mapped file, as any later start does, and free what it was made from.
            graph = self._from_disk(path, facts, folder) or graph
        return graph, metadata

    def _from_disk(
        self, path: Path, facts: Mapping[str, str], folder: CompiledModels | None
    ) -> ov.CompiledModel | None:
        mapped = folder.open(path, facts) if folder is not None else None
        if folder is None or mapped is None:
            return None
        try:
            graph = _import(mapped, self._config)
        except RuntimeError as error:
            log.info("The compiled model of %s is made anew: %s", path, " ".join(str(error).split())[:200])
            folder.remove(path, facts)
            return None
        self._mapped = mapped
        return graph


def _import(mapped: Mapped, config: dict[str, Any]) -> ov.CompiledModel:
    content = np.frombuffer(mapped.mapping, np.uint8)[mapped.start :]
    return core().import_model(ov.Tensor(content, shared_memory=True), "CPU", config)


def _computes_in_bf16(precision: Precision, compiled: CompiledModels | None) -> bool:
    if precision == "int8":
        return bf16_speedup(compiled.folder if compiled is not None else None) >= WORTH_IT
    return precision == "bf16" and "BF16" in cpu_capabilities()


def _config(device: str, bf16: bool, threads: int, prepared: str) -> dict[str, Any]:
    if device != "CPU":
        return {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # pinned threads of several processes would all sit on the first cores
        **({_PREPARED_OPTION: prepared} if _bounds_prepared() else {}),
    }


@lru_cache(maxsize=1)
def _bounds_prepared() -> bool:
    """Return whether this release of OpenVINO knows the option that bounds prepared operations.

    It is not among the documented options.
    """
    try:
        core().set_property("CPU", {_PREPARED_OPTION: _PREPARED})
    except RuntimeError:
        log.info(
            "OpenVINO %s has no CPU_RUNTIME_CACHE_CAPACITY: memory for many shapes of pictures may grow.",
            ov.__version__,
        )
        return False
    return True


class _Appended(io.BytesIO):
    """The rest of an open file, from its position on, as the BytesIO that OpenVINO's export insists on.

    A real BytesIO would hold the whole model in memory.
    """

    def __init__(self, file: io.BufferedIOBase) -> None:
        super().__init__()
        self._file, self._start = file, file.tell()

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset + (self._start if whence == io.SEEK_SET else 0), whence) - self._start

    def flush(self) -> None:
        self._file.flush()


def _export(graph: ov.CompiledModel, file: io.BufferedIOBase) -> None:
    start = file.tell()
    graph.export_model(_Appended(file))
    if file.seek(0, io.SEEK_END) == start:
        raise OSError("OpenVINO wrote nothing")


def _read(path: Path, *, best_class: bool) -> tuple[ov.Model, dict[str, str]]:
    model = core().read_model(str(path))
    metadata = _metadata(model)
    if not best_class:
        return model, metadata
    reduced = end_with_best_class(model)
    classes = model.output(0).get_partial_shape()[-1]
    return reduced, reduced_metadata(metadata, classes.get_length() if classes.is_static else None)


def _metadata(model: ov.Model) -> dict[str, str]:
    """Return the ONNX file's own metadata, which OpenVINO reads into rt_info, below "framework"."""
    rt_info = model.rt_info
    found = dict(rt_info["framework"]) if "framework" in rt_info else {}
    return {key: value.astype(str) for key, value in found.items()}


def _spec(port: Any) -> TensorSpec:
    shape = tuple(dim.get_length() if dim.is_static else None for dim in port.partial_shape)
    return TensorSpec(name=port.any_name, dtype=port.element_type.to_dtype(), shape=shape)
