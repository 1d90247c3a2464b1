"""Inference engines behind one ``Session`` protocol. Device, threads and memory options live here and nowhere else."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from errors import ModelUnavailable
from runners.engine.session import Session, TensorSpec
from runners.engine.threads import available_cores
from settings import Settings

__all__ = ["DeviceUnusable", "EnginePlan", "Session", "TensorSpec", "open_session", "plan_engine"]

log = logging.getLogger(__name__)


class DeviceUnusable(Exception):
    """The device that DEVICE names cannot be used on this machine. The service must not start."""


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """Which engine a process uses, and with what."""

    device: Literal["cpu", "cuda", "openvino"]
    threads: int
    """Threads that all sessions of the process share."""
    inter_op_threads: int = 1
    device_id: int = 0
    """CUDA device."""


def plan_engine(settings: Settings, *, position: int = 0) -> EnginePlan:
    """The engine that the settings ask for. ``position``: number of the runner process; GPUs are dealt out in turn.

    Raises ``DeviceUnusable`` where ``DEVICE`` names a device that does not work here: never a silent fall to the CPU.
    """
    threads, inter_op = settings.intra_op_threads or available_cores(), settings.inter_op_threads
    if settings.device == "cpu":
        return EnginePlan("cpu", threads, inter_op)
    if settings.device == "openvino":
        _require_openvino()
        return EnginePlan("openvino", threads)
    from runners.engine.onnxruntime import cuda_is_usable

    if cuda_is_usable():
        ids = _device_ids(settings)
        return EnginePlan("cuda", threads, inter_op, ids[position % len(ids)])
    if settings.device == "cuda":
        raise DeviceUnusable(
            "DEVICE=cuda, but no GPU can be used: onnxruntime-gpu is not installed, or no NVIDIA driver answers. "
            "Install onnxruntime-gpu in place of onnxruntime and check nvidia-smi, or set DEVICE=cpu."
        )
    return EnginePlan("cpu", threads, inter_op)


def _device_ids(settings: Settings) -> list[int]:
    parts = [part.strip() for part in settings.device_ids.split(",") if part.strip()] or ["0"]
    if not all(part.isdecimal() for part in parts):
        raise DeviceUnusable(
            f"MACHINE_LEARNING_DEVICE_IDS={settings.device_ids} is no list of GPU numbers. Write them as nvidia-smi does, as in 0 or 0,1."
        )
    return [int(part) for part in parts]


def _require_openvino() -> None:
    try:
        from runners.engine.openvino import is_usable
    except ImportError as error:
        raise DeviceUnusable(
            "DEVICE=openvino, but OpenVINO is not installed. Install the extra (pip install '.[openvino]'), or set DEVICE=cpu."
        ) from error
    if not is_usable():
        raise DeviceUnusable("DEVICE=openvino, but OpenVINO finds no device here. Set DEVICE=cpu.")


def open_session(path: Path, plan: EnginePlan) -> Session:
    """Load the graph at ``path``. Raises ``ModelUnavailable`` if the file is no graph that the engine can run."""
    try:
        if plan.device == "openvino":
            from runners.engine.openvino import OpenVinoSession

            return OpenVinoSession(path, threads=plan.threads)
        from runners.engine.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(
            path,
            threads=plan.threads,
            inter_op_threads=plan.inter_op_threads,
            cuda_device=plan.device_id if plan.device == "cuda" else None,
        )
    except Exception as error:  # engines raise types of their own that share no base below Exception
        log.exception("%s cannot be loaded", path)
        reason = " ".join(str(error).split())  # engines write several lines
        raise ModelUnavailable(
            f"{path} cannot be loaded by {plan.device}: {reason}. Delete the model's folder so that it is fetched again."
        ) from error
