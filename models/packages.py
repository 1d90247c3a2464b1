"""Files that installed Python packages ship, and rapidocr's list of PP-OCR models. No package is imported for it.

``rapidocr/default_models.yaml`` holds, per engine and version, ``det``, ``rec`` and ``cls`` tables of
``{model_key: {model_dir: URL, SHA256}}`` (rapidocr 3.10). Its ONNX models carry their alphabets inside, so there are no
dictionaries to fetch. Reading the file costs 20 ms; importing rapidocr would cost seconds.
"""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path

import yaml

from models.entry import PackageFile, UrlFile
from models.paths import UnsafeName, checked_name

_RAPIDOCR = "rapidocr"
_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast and not in every build


class RapidOcrListError(LookupError):
    """The installed rapidocr does not list the model; the message says what was looked for and where."""


def package_folder(package: str) -> Path | None:
    """Return the folder of an installed package, or None where it is not installed.

    A top-level name is looked up in ``sys.path`` alone: no code of the package runs.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def rapidocr_sources(key: str) -> tuple[PackageFile, UrlFile]:
    """Return where the ONNX file of ``key`` (``ch_PP-OCRv5_det_mobile``) is: in rapidocr's own folder, or at a URL.

    Raises ``RapidOcrListError``.
    """
    models = _rapidocr_models()
    try:
        url, sha256 = models[key]
    except KeyError:
        raise RapidOcrListError(
            f"the installed rapidocr lists no model {key}; install the version that this service pins"
        ) from None
    return PackageFile(_RAPIDOCR, f"models/{url.rsplit('/', 1)[-1]}", sha256), UrlFile(url, sha256)


@lru_cache(maxsize=1)
def _rapidocr_models() -> dict[str, tuple[str, str]]:
    """Return URL and sha256 by model_key."""
    folder = package_folder(_RAPIDOCR)
    if folder is None:
        raise RapidOcrListError("rapidocr is not installed; install it (pip install rapidocr)")
    path = folder / "default_models.yaml"
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_SAFE_LOADER)  # noqa: S506
        versions = document["onnxruntime"].values()
        tables = [version[part] for version in versions for part in ("det", "rec", "cls") if part in version]
        rows = [
            (key, str(model["model_dir"]), str(model["SHA256"]).lower())
            for table in tables
            for key, model in table.items()
        ]
        for _, url, _ in rows:
            checked_name(url.rsplit("/", 1)[-1])
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, UnsafeName) as error:
        raise RapidOcrListError(
            f"{path} is not the list that rapidocr 3.10 has ({error!r}); install the version that is pinned"
        ) from error
    wrong = [key for key, _, sha256 in rows if not re.fullmatch("[0-9a-f]{64}", sha256)]
    if wrong:
        raise RapidOcrListError(
            f"{path} has no sha256 for {', '.join(wrong)}; install the version that this service pins"
        )
    return {key: (url, sha256) for key, url, sha256 in rows}
