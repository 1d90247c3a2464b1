"""The engine of a process and its options, as the settings ask for them, checked against this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runners.engine.choice import Choice, EngineName, EngineUnusable, Precision, choose
from runners.engine.cuda import cuda_problem
from runners.engine.threads import available_cores
from settings import Settings


class DeviceUnusable(Exception):
    """DEVICE, ENGINE or PRECISION names something that cannot be used on this machine. The service must not start."""


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """The engine of a process and its options. The defaults are ONNX Runtime in fp32, the reference of all others."""

    device: Literal["cpu", "cuda", "openvino"]
    """``openvino``: OpenVINO, on an Intel GPU if there is one, else on the CPU."""
    threads: int
    """Threads that all sessions of the process share."""
    inter_op_threads: int = 1
    device_id: int = 0
    """CUDA device."""
    engine: Literal["auto"] | EngineName = "onnxruntime"
    """On the CPU. ``auto`` is decided when the first model is loaded: looking costs an import of 25 MB."""
    precision: Literal["auto"] | Precision = "fp32"
    compiled: Path | None = None
    """Folder for compiled models; None keeps none."""


def plan_engine(settings: Settings, *, position: int = 0) -> EnginePlan:
    """Return the engine that the settings ask for.

    ``position``: number of the runner process; GPUs are assigned in turn. Raises ``DeviceUnusable`` where ``DEVICE``
    names a device that does not work here; it never falls back to the CPU silently.
    """
    threads, inter_op = settings.intra_op_threads or available_cores(), settings.inter_op_threads
    on_cpu = EnginePlan(
        "cpu",
        threads,
        inter_op,
        engine=settings.engine,
        precision=settings.precision,
        compiled=settings.cache_folder / "compiled",
    )
    if settings.device == "cpu" or (
        settings.device == "auto" and (settings.engine == "openvino" or settings.precision in ("bf16", "int8"))
    ):
        return on_cpu
    if settings.device == "openvino":
        return _plan_openvino(settings, on_cpu)
    problem = cuda_problem()
    if problem is None:
        _check_cuda(settings)
        ids = _device_ids(settings)
        return EnginePlan("cuda", threads, inter_op, ids[position % len(ids)])
    if settings.device == "cuda":
        raise DeviceUnusable(f"DEVICE=cuda, but no GPU can be used: {problem}. Mend that, or set DEVICE=cpu.")
    return on_cpu


def check_engine(plan: EnginePlan) -> Choice | None:
    """Return what ``auto`` comes to on this machine; None on a GPU.

    Raises ``DeviceUnusable`` where the engine or precision asked for cannot be used.
    """
    if plan.device != "cpu":
        return None
    try:
        return choose(plan.engine, plan.precision, kept=plan.compiled)
    except EngineUnusable as error:
        raise DeviceUnusable(str(error)) from error


def _check_cuda(settings: Settings) -> None:
    if settings.engine == "openvino" or settings.precision in ("bf16", "int8"):
        raise DeviceUnusable(
            f"DEVICE=cuda computes with ONNX Runtime in fp32, but ENGINE={settings.engine} and "
            f"PRECISION={settings.precision}. "
            "Set DEVICE=cpu, or take those away."
        )


def _plan_openvino(settings: Settings, on_cpu: EnginePlan) -> EnginePlan:
    if settings.engine == "onnxruntime":
        raise DeviceUnusable("DEVICE=openvino, but ENGINE=onnxruntime. Take one of them away.")
    _require_openvino()
    return EnginePlan(
        "openvino", on_cpu.threads, precision=on_cpu.precision, engine="openvino", compiled=on_cpu.compiled
    )


def _device_ids(settings: Settings) -> list[int]:
    parts = [part.strip() for part in settings.device_ids.split(",") if part.strip()] or ["0"]
    if not all(part.isdecimal() for part in parts):
        raise DeviceUnusable(
            f"MACHINE_LEARNING_DEVICE_IDS={settings.device_ids} is no list of GPU numbers. Write them as nvidia-smi "
            "does, as in 0 or 0,1."
        )
    return [int(part) for part in parts]


def _require_openvino() -> None:
    try:
        from runners.engine.openvino_core import is_usable
    except ImportError as error:
        raise DeviceUnusable(
            f"DEVICE=openvino, but OpenVINO cannot be imported ({error}). Install openvino again (pip install "
            "openvino), or set DEVICE=cpu."
        ) from error
    if not is_usable():
        raise DeviceUnusable("DEVICE=openvino, but OpenVINO finds no device here. Set DEVICE=cpu.")
