"""Choice of engine and precision, from the settings and from what this machine offers.

Measured on 2 cores of an AMD EPYC with AVX512-BF16, in CPU time a picture (docs/performance.md), OpenVINO takes less
than ONNX Runtime for every model, in fp32 (CLIP image 0.84, OCR detection 0.63, face vectors 0.54 of it) and more so in
bf16 (0.41, 0.34, 0.21). So ``auto`` is OpenVINO wherever it can be imported on x86-64, in bf16 where that is measured
to be faster on the machine itself (``runners.engine.bf16``). Other processors were not measured: ONNX Runtime.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

EngineName = Literal["onnxruntime", "openvino"]
Precision = Literal["fp32", "bf16", "int8"]

WORTH_IT = 1.15
"""Speed-up from which on bf16 is chosen, although it keeps only three digits."""
_X86 = ("x86_64", "amd64", "AMD64")


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, a precision, and why they were chosen, as the end of a sentence."""

    engine: EngineName
    precision: Precision
    why: str


class EngineUnusable(Exception):
    """ENGINE or PRECISION asks for something that this machine cannot do; the message says what it can."""


def choose(
    engine: Literal["auto"] | EngineName, precision: Literal["auto"] | Precision, *, kept: Path | None = None
) -> Choice:
    """Choose engine and precision of models on this machine's CPU. Imports OpenVINO unless ``engine`` excludes it.

    ``kept``: folder for the measurement that decides; None keeps nothing. Raises ``EngineUnusable`` where engine and
    precision contradict each other, or OpenVINO is asked for and cannot be imported.
    """
    if engine == "onnxruntime":
        if precision not in ("auto", "fp32"):
            raise EngineUnusable(
                f"ENGINE=onnxruntime computes in fp32 alone, but PRECISION={precision}. Set ENGINE=openvino, or "
                "PRECISION=fp32."
            )
        return Choice("onnxruntime", "fp32", "ENGINE=onnxruntime")
    missing = openvino_problem()
    if missing is not None:
        if engine == "openvino" or precision in ("bf16", "int8"):
            asked = f"PRECISION={precision}" if engine == "auto" else "ENGINE=openvino"
            raise EngineUnusable(
                f"{asked} needs OpenVINO, which cannot be used: {missing}. Install openvino, or unset it."
            )
        return Choice("onnxruntime", "fp32", f"OpenVINO cannot be used: {missing}")
    if engine == "auto" and precision == "auto" and platform.machine() not in _X86:
        return Choice("onnxruntime", "fp32", f"OpenVINO was measured on x86-64 alone, and this is {platform.machine()}")
    if precision == "fp32" or precision == "int8":
        return Choice("openvino", precision, f"PRECISION={precision}")
    return _bf16_or_fp32(bf16_speedup(kept), asked=precision == "bf16")


def _bf16_or_fp32(speedup: float, *, asked: bool) -> Choice:
    if asked:
        return Choice(
            "openvino", "bf16", "PRECISION=bf16" + (f", though {_in_words(speedup)}" if speedup < WORTH_IT else "")
        )
    return Choice("openvino", "bf16" if speedup >= WORTH_IT else "fp32", _in_words(speedup))


def _in_words(speedup: float) -> str:
    return f"bf16 is {speedup:.2f} times as fast as fp32 here" if speedup else "this CPU has no bf16"


def bf16_speedup(kept: Path | None) -> float:
    """Call ``runners.engine.bf16.bf16_speedup``, which is imported only now."""
    from runners.engine import bf16

    return bf16.bf16_speedup(kept)


@lru_cache(maxsize=1)
def openvino_problem() -> str | None:
    """Return why OpenVINO cannot be used in this process; None where it can."""
    try:
        from runners.engine.openvino_core import is_usable
    except (ImportError, OSError) as error:  # OSError: one of its libraries does not load
        return " ".join(str(error).split())
    return None if is_usable() else "it finds no device"
