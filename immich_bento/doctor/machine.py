"""This machine: what the service is and runs on, its settings, folders, disk, memory, and what computes."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

from immich_bento.doctor.finding import Finding, good, warning, wrong
from immich_bento.folders import folder_problem
from models.capacity import free_bytes, has_bf16, usable_memory
from runners.engine import DeviceUnusable, check_engine, plan_engine
from runners.engine.threads import available_cores
from search.store.database import embedded_folder
from settings import Settings
from settings.variables import names_in_file, setting_names, warnings_of
from settings.version import VERSION

_GB = 10**9
_LITTLE_DISK = 2 * _GB
"""Bytes: the largest usual model, in two copies while it is converted."""
_TOO_LITTLE_MEMORY = int(0.6 * _GB)
"""Bytes: with less the process for pictures is killed at its first picture."""
_GIB = 2**30
_SMALL, _LARGE = ("tiny", "cn-clip-tiny", "RN50"), ("ViT-L", "ViT-H")
"""CLIP models that take less memory than ViT-B-16, and beginnings of those that take more."""


def check_machine(config: Settings) -> Iterator[Finding]:
    """Yield what is found. Computes a second where ``auto`` has to measure the CPU."""
    yield good(
        "version",
        f"immich-bento {VERSION}, Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{available_cores()} cores",
    )
    yield from _settings()
    yield from _folders(config)
    yield _memory(config.clip_model or "")
    yield _engine(config)


def _settings() -> Iterator[Finding]:
    found = warnings_of(os.environ, names_in_file(Path(".env")), setting_names(Settings))
    for sentence in found:
        yield warning("settings", sentence, "Correct its name, or take it away.")
    if not found:
        yield good("settings", "every name that looks like a setting is one")


def _folders(config: Settings) -> Iterator[Finding]:
    folders = {"MACHINE_LEARNING_CACHE_FOLDER": config.cache_folder}
    if config.search_enabled and config.database_url is None:
        folders["SEARCH_FOLDER"] = embedded_folder(config)
    for name, folder in folders.items():
        problem = folder_problem({name: str(folder)})
        if problem is not None:
            yield wrong("disk", problem, "Do what the sentence says, then ask again.")
            continue
        free = free_bytes(folder)
        detail = f"{folder} can be written; {free / _GB:.1f} GB are free"
        if free < _LITTLE_DISK:
            yield warning("disk", detail, f"Make room, or name a folder on another disk in {name}.")
        else:
            yield good("disk", detail)


def _memory(clip: str) -> Finding:
    """Hold what may be used to what all tasks at work took (docs/containers.md, "Memory limits")."""
    usable = usable_memory()
    needed = 1.0 if clip in _SMALL else 2.0 if clip.startswith(_LARGE) else 1.25 if has_bf16() else 1.5
    detail = f"{usable / _GB:.1f} GB may be used"
    if usable < _TOO_LITTLE_MEMORY:
        return wrong(
            "memory", detail, "Raise the container's limit to 1 GB or more: the process for pictures will be killed."
        )
    if usable < needed * _GIB:
        return warning(
            "memory",
            detail,
            f"All tasks at once take {needed:g} GiB or more with {clip or 'ViT-B-16'}: raise the container's limit.",
        )
    return good("memory", detail)


def _engine(config: Settings) -> Finding:
    try:
        plan = plan_engine(config)
        choice = check_engine(plan)
    except DeviceUnusable as error:
        return wrong("engine", str(error), "Correct DEVICE, ENGINE or PRECISION; without them the CPU computes.")
    if choice is None:
        return good("engine", f"models are computed on {plan.device}")
    return good("engine", f"models are computed by {choice.engine} in {choice.precision} ({choice.why})")
