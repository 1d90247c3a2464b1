"""Which engine computes a model, and in which precision: what the settings ask for, held against what this machine has.

Measured on 2 cores with AVX512-BF16, CPU time a picture (docs/performance.md): OpenVINO needs less than ONNX Runtime for every model
here already in fp32 (CLIP image 0.84, OCR detection 0.63, face vectors 0.54 of it), and in bf16 less than half (0.41, 0.34, 0.21). So
``auto`` is OpenVINO wherever it can be imported on x86-64, in bf16 where the CPU computes in that. On other processors nothing was
measured: ONNX Runtime.
"""

from __future__ import annotations

import logging
import platform
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

EngineName = Literal["onnxruntime", "openvino"]
Precision = Literal["fp32", "bf16", "int8"]

log = logging.getLogger(__name__)

_X86 = ("x86_64", "amd64", "AMD64")


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, what it computes in, and why, as the end of a sentence."""

    engine: EngineName
    precision: Precision
    why: str


class EngineUnusable(Exception):
    """What ENGINE or PRECISION asks for cannot be had on this machine; the message says what can."""


def choose(engine: Literal["auto"] | EngineName, precision: Literal["auto"] | Precision) -> Choice:
    """The engine and the precision of models on this machine's CPU. Imports OpenVINO unless ``engine`` rules it out.

    Raises ``EngineUnusable`` where the two contradict each other, or OpenVINO is asked for and cannot be imported.
    """
    if engine == "onnxruntime":
        if precision not in ("auto", "fp32"):
            raise EngineUnusable(
                f"ENGINE=onnxruntime computes in fp32 alone, but PRECISION={precision}. Set ENGINE=openvino, or PRECISION=fp32."
            )
        return Choice("onnxruntime", "fp32", "ENGINE=onnxruntime")
    missing = openvino_problem()
    if missing is not None:
        if engine == "openvino" or precision in ("bf16", "int8"):
            asked = f"PRECISION={precision}" if engine == "auto" else "ENGINE=openvino"
            raise EngineUnusable(f"{asked} needs OpenVINO, which cannot be used: {missing}. Install openvino, or unset it.")
        return Choice("onnxruntime", "fp32", f"OpenVINO cannot be used: {missing}")
    if engine == "auto" and precision == "auto" and platform.machine() not in _X86:
        return Choice("onnxruntime", "fp32", f"OpenVINO was measured on x86-64 alone, and this is {platform.machine()}")
    if precision != "auto":
        return Choice("openvino", precision, f"PRECISION={precision}")
    if computes_in_bf16():
        return Choice("openvino", "bf16", "this CPU computes in bf16")
    return Choice("openvino", "fp32", "this CPU has no bf16")


@lru_cache(maxsize=1)
def openvino_problem() -> str | None:
    """Why OpenVINO cannot be used in this process; None where it can."""
    try:
        from runners.engine.openvino import is_usable
    except (ImportError, OSError) as error:  # OSError: a library of it that does not load
        return " ".join(str(error).split())
    return None if is_usable() else "it finds no device"


def computes_in_bf16() -> bool:
    """Whether OpenVINO says that this machine's CPU multiplies bf16 numbers (AVX512-BF16, AMX, or their kin)."""
    from runners.engine.openvino import cpu_capabilities

    return "BF16" in cpu_capabilities()
