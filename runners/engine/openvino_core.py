"""OpenVINO itself, one for the process, and what it says of this machine."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import runners.engine.before_openvino  # noqa: F401

# isort: split
import openvino as ov

_CPUINFO = Path("/proc/cpuinfo")


@lru_cache(maxsize=1)
def core() -> ov.Core:
    """Return the one ``ov.Core`` of this process."""
    return ov.Core()


def is_usable() -> bool:
    """Whether OpenVINO can compute on this machine, on the CPU or on an Intel GPU."""
    return bool(cpu_capabilities()) or has_gpu()


@lru_cache(maxsize=1)
def cpu_capabilities() -> tuple[str, ...]:
    """Return what the CPU computes in, in OpenVINO's words: FP32, BF16, INT8 and others.

    Empty if OpenVINO does not know the CPU.
    """
    try:
        return tuple(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    except RuntimeError:
        return ()


@lru_cache(maxsize=1)
def has_gpu() -> bool:
    """Whether there is an Intel GPU. Asked only where a GPU is wanted: the answer loads the plugins of every kind of
    device, 20 MB.
    """
    return "GPU" in core().available_devices


@lru_cache(maxsize=1)
def cpu_facts() -> Mapping[str, str]:
    """All of this machine and this OpenVINO that decides what becomes of a model, and how fast it is. The CPU must be
    usable.
    """
    return {
        "openvino": ov.get_version(),
        "cpu": str(core().get_property("CPU", "FULL_DEVICE_NAME")),
        "computes": ",".join(sorted(cpu_capabilities())),
        "features": _cpu_features(),
    }


def _cpu_features() -> str:
    """Return a digest of the CPU's flags.

    Virtual machines have names that say nothing, and show more or less of the CPU below.
    """
    with contextlib.suppress(OSError):
        for line in _CPUINFO.read_text().splitlines():
            if line.startswith("flags"):
                return hashlib.sha256(" ".join(sorted(line.split())).encode()).hexdigest()[:16]
    return platform.machine()
