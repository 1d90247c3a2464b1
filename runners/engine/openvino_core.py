"""The process's one ``ov.Core``, and what it says of this machine."""

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
    """Return whether OpenVINO can compute on this machine, on the CPU or on an Intel GPU."""
    return bool(cpu_capabilities()) or has_gpu()


@lru_cache(maxsize=1)
def cpu_capabilities() -> tuple[str, ...]:
    """Return OpenVINO's names for what the CPU computes in: FP32, BF16, INT8, …; empty if it does not know the CPU."""
    try:
        return tuple(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    except RuntimeError:
        return ()


@lru_cache(maxsize=1)
def has_gpu() -> bool:
    """Return whether there is an Intel GPU. Loads the plugins of all devices, 20 MB: call it only if needed."""
    return "GPU" in core().available_devices


@lru_cache(maxsize=1)
def cpu_facts() -> Mapping[str, str]:
    """Return what decides how a model is compiled and how fast it is: OpenVINO's version, the CPU and its flags.

    The CPU must be usable.
    """
    return {
        "openvino": ov.get_version(),
        "cpu": str(core().get_property("CPU", "FULL_DEVICE_NAME")),
        "computes": ",".join(sorted(cpu_capabilities())),
        "features": _cpu_features(),
    }


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """Return the CPU's flags, as Linux names them (``avx512_vnni``); none where they cannot be read."""
    with contextlib.suppress(OSError):
        for line in _CPUINFO.read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def _cpu_features() -> str:
    """Return a digest of the CPU's flags, as the name of a virtual machine's CPU does not tell its features."""
    flags = cpu_flags()
    return hashlib.sha256(" ".join(sorted(flags)).encode()).hexdigest()[:16] if flags else platform.machine()
