"""Names in the environment and in ``.env`` that look like settings of this service but are none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_OURS = ("MACHINE_LEARNING_", "SEARCH_", "ROUTE_", "UPSTREAM_")
"""Beginnings of names that are read by nobody else on a machine that runs this service and Immich."""
_ALSO_IMMICHS = "IMMICH_"
"""The beginning that Immich's own server uses too: of its many names only misspelt ones of ours are told."""
_IMMICHS = {
    *("MACHINE_LEARNING_ANN", "MACHINE_LEARNING_ANN_FP16_TURBO", "MACHINE_LEARNING_ANN_TUNING_LEVEL"),
    *("MACHINE_LEARNING_RKNN", "MACHINE_LEARNING_RKNN_THREADS", "MACHINE_LEARNING_MODEL_ARENA"),
    *("MACHINE_LEARNING_WORKER_TIMEOUT", "MACHINE_LEARNING_OPENVINO_PRECISION", "MACHINE_LEARNING_URL"),
    *("MACHINE_LEARNING_MAX_BATCH_SIZE__FACIAL_RECOGNITION", "MACHINE_LEARNING_MAX_BATCH_SIZE__OCR"),
    *("MACHINE_LEARNING_PING_TIMEOUT", "MACHINE_LEARNING_ENABLED"),
    *("MACHINE_LEARNING_MODEL_ORGANIZATION", "MACHINE_LEARNING_PRELOAD__OCR__MAX_RESOLUTION"),
}
"""Settings of Immich's own servers that mean nothing here."""
_OTHERS_TOO = {
    *("DEVICE", "ENGINE", "PRECISION", "OFFLINE", "LOG_FORMAT", "HF_ENDPOINT", "MODELSCOPE_ENDPOINT"),
    *("REQUEST_TIMEOUT", "SHUTDOWN_TIMEOUT"),
}
"""Settings of ours whose names other programs have as well: what is like them in the environment is not ours."""
_USUAL = {"HTTPS_PORT", "DATABASE_USER", "PG_DATABASE_URL", "WORKER_PROCESSES"}
"""Names of other programs that are like settings of ours."""
_ALIKE, _VERY_ALIKE = 0.8, 0.86
"""Least likeness of a name to one of ours to be taken for it (difflib's ratio): with a beginning of ours, without."""
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=")


def variable_of(name: str, field: FieldInfo) -> str:
    """Return what the environment calls the setting ``name`` of our code."""
    return str(field.validation_alias or name.upper())


def setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the names of all settings in ``model`` as the environment has them, those of groups (``A__B``) too."""
    for name, field in model.model_fields.items():
        variable = prefix + variable_of(name, field)
        yield variable
        if isinstance(field.default, BaseModel):
            yield from setting_names(type(field.default), variable + "__")


def names_in_file(path: Path) -> list[str]:
    """Return the names that a ``.env`` file sets; none where it is missing or cannot be read."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [match[1] for match in map(_ASSIGNMENT.match, lines) if match]


def warnings_of(environment: Mapping[str, str], in_file: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return one sentence for each name that looks like a setting and is none. Values are not looked at.

    ``in_file``: the names in ``.env``. ``known``: the names of all settings.
    """
    known = {name.upper() for name in known}
    in_file = set(in_file)
    found = []
    for name in sorted({*environment, *in_file} - {"MACHINE_LEARNING_PRELOAD"}):
        upper = name.upper()
        if upper in known:
            continue
        if upper in _IMMICHS:
            found.append(f"{name} is a setting of Immich's own server; it does nothing here.")
            continue
        ours, shared = upper.startswith(_OURS), upper.startswith(_ALSO_IMMICHS)
        if upper in _USUAL:
            continue
        if shared:
            candidates = sorted(one for one in known if one.startswith(_ALSO_IMMICHS))
        else:
            candidates = sorted(known if ours or name in in_file else known - _OTHERS_TOO)
        close = difflib.get_close_matches(upper, candidates, n=1, cutoff=_ALIKE if ours else _VERY_ALIKE)
        if close:
            found.append(f"{name} is not a setting; did you mean {close[0]}?")
        elif ours:
            found.append(f"{name} is not a setting, and does nothing (docs/settings.md lists all).")
    return found
