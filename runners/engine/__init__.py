"""Inference engines behind one ``Session`` protocol, and all options of device, precision, threads and memory."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from errors import ModelUnavailable
from runners.engine.best_class import BestClassSession
from runners.engine.choice import Choice, EngineUnusable, choose
from runners.engine.compiled_models import CompiledModels
from runners.engine.idle import trim_idle_sessions
from runners.engine.lanes import LanedSession, lanes_of
from runners.engine.plan import DeviceUnusable, EnginePlan, check_engine, plan_engine
from runners.engine.session import Session, TensorSpec
from runners.engine.session_notes import note_session

if TYPE_CHECKING:
    from runners.engine.int8 import Ranges

__all__ = [
    "QUANTIZED",
    "DeviceUnusable",
    "EnginePlan",
    "Session",
    "TensorSpec",
    "check_engine",
    "open_session",
    "plan_engine",
    "trim_idle_sessions",
]

log = logging.getLogger(__name__)

QUANTIZED = "model.int8.xml"
"""The int8 twin of a ``model.onnx``, beside it; ``python -m tools.quantize`` makes it."""


def open_session(
    path: Path,
    plan: EnginePlan,
    *,
    exact: bool = False,
    laned: bool = False,
    best_class: bool = False,
    few_shapes: bool = False,
    stays_packed: bool = False,
    picture_size: tuple[int, int] | None = None,
    ranges: Ranges | None = None,
) -> Session:
    """Load the graph at ``path``.

    ``laned``: a small graph, which gets one thread where several batches run (``runners.engine.lanes``).
    ``best_class``: reduce the graph's one output (..., classes) to the value and number of the best class, and the
    value of the last (``BestClassSession``). ``exact``: compute in fp32, whatever the plan says.
    ``few_shapes``: the graph is called with a few shapes only, so that the engine may keep all it prepares for each.
    ``stays_packed``: keep the weights as the engine computes with them while nothing is asked, since somebody waits for
    the next answer; other graphs are then closed, and imported again from their compiled file.
    ``picture_size``: width and height of the pictures, one in each call, where the graph leaves them open. OpenVINO
    prepares the graph for these alone, and takes rows of pixels, (1, height, width, 3), not planes; ``inputs`` says so.
    ``ranges``: those of the graph's convolutions (``runners.engine.int8``), which are then computed in int8 where the
    plan leaves the precision open and the CPU can.

    Where the plan leaves the engine open and OpenVINO cannot load the graph, ONNX Runtime does; the log says so.
    Raises ``ModelUnavailable`` if the file is no graph that the engine can run.
    """
    choice = _fitting(_choice(plan), path, exact, ranges, plan)
    use = _Use(best_class, few_shapes, stays_packed, picture_size, ranges)
    lanes = lanes_of(plan.threads) if laned and choice.engine == "openvino" and plan.device == "cpu" else 1
    if lanes > 1:
        return LanedSession(
            lambda threads: _opened(path, replace(plan, threads=threads), choice, use), plan.threads, lanes
        )
    return _opened(path, plan, choice, use)


@dataclass(frozen=True, slots=True)
class _Use:
    """The way in which a graph is used; see ``open_session``."""

    best_class: bool
    few_shapes: bool
    stays_packed: bool
    picture_size: tuple[int, int] | None
    ranges: Ranges | None


def _opened(path: Path, plan: EnginePlan, choice: Choice, use: _Use) -> Session:
    """Open one session of a graph, and log how. Raises as ``open_session`` does."""
    began = time.perf_counter()
    if choice.engine == "openvino" and plan.engine == "auto":
        try:
            session, how = _open(path, plan, choice, use)
        except Exception as error:  # noqa: BLE001  whatever it is, ONNX Runtime's error below is the one that counts
            choice = Choice("onnxruntime", "fp32", f"OpenVINO cannot load it: {_one_line(error)}")
            session, how = _open_or_unavailable(path, plan, choice, use)
    else:
        session, how = _open_or_unavailable(path, plan, choice, use)
    note_session(choice.engine, choice.precision)
    device = {"cpu": "the CPU", "cuda": f"CUDA {plan.device_id}", "openvino": "OpenVINO's device"}[plan.device]
    log.info(
        "%s is computed by %s in %s on %s (%s); loaded in %.2f s%s.",
        "/".join(path.parts[-3:]),
        choice.engine, choice.precision, device, choice.why, time.perf_counter() - began, how,
    )  # fmt: skip
    return session


def _choice(plan: EnginePlan) -> Choice:
    if plan.device == "cuda":
        return Choice("onnxruntime", "fp32", "a GPU was found" if plan.engine == "auto" else "DEVICE=cuda")
    if plan.device == "openvino":
        from runners.engine.openvino_core import has_gpu

        if has_gpu():
            return Choice("openvino", "fp32", "DEVICE=openvino, on an Intel GPU")
        return replace(
            choose("openvino", plan.precision, kept=plan.compiled), why="DEVICE=openvino, which finds no Intel GPU"
        )
    try:
        return choose(plan.engine, plan.precision, kept=plan.compiled)
    except EngineUnusable as error:
        raise ModelUnavailable(str(error)) from error


def _open_or_unavailable(path: Path, plan: EnginePlan, choice: Choice, use: _Use) -> tuple[Session, str]:
    try:
        return _open(path, plan, choice, use)
    except Exception as error:  # engines raise types of their own that share no base below Exception
        log.exception("%s cannot be loaded", path)
        raise ModelUnavailable(
            f"{path} cannot be loaded by {plan.device}: {_one_line(error)}. Delete the model's folder so that it is "
            "fetched again."
        ) from error


def _open(path: Path, plan: EnginePlan, choice: Choice, use: _Use) -> tuple[Session, str]:
    """Open the session; return it and how it was loaded, as the end of a sentence."""
    if choice.engine == "openvino":
        from runners.engine.openvino import OpenVinoSession

        is_twin = choice.precision == "int8" and use.ranges is None
        session = OpenVinoSession(
            path.with_name(QUANTIZED) if is_twin else path,
            threads=plan.threads,
            precision=choice.precision,
            best_class=use.best_class,
            compiled=CompiledModels(plan.compiled) if plan.compiled is not None else None,
            gpu=plan.device == "openvino",
            few_shapes=use.few_shapes,
            stays_packed=use.stays_packed,
            picture_size=use.picture_size,
            ranges=use.ranges if choice.precision == "int8" else None,
        )
        return session, ", as it was compiled before" if session.is_from_disk else ""
    from runners.engine.onnxruntime import OnnxRuntimeSession

    cuda_device = plan.device_id if plan.device == "cuda" else None
    whole = OnnxRuntimeSession(
        path, threads=plan.threads, inter_op_threads=plan.inter_op_threads, cuda_device=cuda_device
    )
    return BestClassSession(whole) if use.best_class else whole, ""


def _fitting(choice: Choice, path: Path, exact: bool, ranges: Ranges | None, plan: EnginePlan) -> Choice:
    """Return the choice for one model: int8 where its ranges are known and this CPU gains by it, fp32 where it must be
    exact, ``auto``'s where there is no int8 file of it.
    """
    if ranges is not None and plan.device == "cpu" and choice.engine == "openvino" and _may_be_int8(plan):
        return replace(choice, precision="int8", why="its values were measured, and this CPU has VNNI")
    if choice.precision == "fp32":
        return choice
    if exact:
        return replace(choice, precision="fp32", why="less would move its answers too far")
    if choice.precision == "int8" and not path.with_name(QUANTIZED).is_file():
        log.warning(
            "PRECISION=int8, but %s was not quantized: it is computed as under PRECISION=auto. "
            "`python -m tools.quantize NAME --pictures FOLDER` makes %s of a CLIP model's image half.", path, QUANTIZED,
        )  # fmt: skip
        return choose("openvino", "auto", kept=plan.compiled)
    return choice


def _may_be_int8(plan: EnginePlan) -> bool:
    from runners.engine.int8 import multiplies_int8

    return plan.precision in ("auto", "int8") and multiplies_int8()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]  # engines write several lines
