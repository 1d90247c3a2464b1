"""Files, URLs and digests of PP-OCR models, read from the list that the installed ``rapidocr`` ships.

``rapidocr/default_models.yaml`` holds, per engine and version, ``det`` and ``rec`` tables of ``{model_key: {model_dir: URL,
SHA256}}`` (rapidocr 3.10). Its ONNX models carry their alphabets inside, so there are no dictionaries to fetch.
Reading the file costs 20 ms; importing rapidocr, which is not done here, seconds.
"""

from __future__ import annotations

import re
from functools import lru_cache

import yaml

from models.entry import PackageFile, UrlFile
from models.installed import package_folder

_PACKAGE = "rapidocr"
_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast and not in every build


class RapidOcrListError(LookupError):
    """The installed rapidocr does not list the model; the message says what was looked for and where."""


def sources_of(key: str) -> tuple[PackageFile, UrlFile]:
    """Where the ONNX file of ``key`` (``ch_PP-OCRv5_det_mobile``) comes from: rapidocr's own folder if it is there, then the URL.

    Raises ``RapidOcrListError``.
    """
    models = _onnx_models()
    try:
        url, sha256 = models[key]
    except KeyError:
        raise RapidOcrListError(f"the installed rapidocr lists no model {key}; install the version that this service pins") from None
    return PackageFile(_PACKAGE, f"models/{url.rsplit('/', 1)[-1]}", sha256), UrlFile(url, sha256)


@lru_cache(maxsize=1)
def _onnx_models() -> dict[str, tuple[str, str]]:
    """URL and sha256 by model_key."""
    folder = package_folder(_PACKAGE)
    if folder is None:
        raise RapidOcrListError("rapidocr is not installed; install it (pip install rapidocr)")
    path = folder / "default_models.yaml"
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_SAFE_LOADER)  # noqa: S506
        versions = document["onnxruntime"].values()
        tables = [version[part] for version in versions for part in ("det", "rec") if part in version]
        models = {key: (str(model["model_dir"]), str(model["SHA256"]).lower()) for table in tables for key, model in table.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise RapidOcrListError(f"{path} is not the list that rapidocr 3.10 has ({error!r}); install the version that is pinned") from error
    wrong = [key for key, (_, sha256) in models.items() if not re.fullmatch("[0-9a-f]{64}", sha256)]
    if wrong:
        raise RapidOcrListError(f"{path} has no sha256 for {', '.join(wrong)}; install the version that this service pins")
    return models
