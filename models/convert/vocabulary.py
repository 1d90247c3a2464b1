"""CN-CLIP's vocabulary, ``vocab.txt``, taken as data out of the package that ships it, whose code is not imported."""

from __future__ import annotations

import hashlib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from models.convert.refusal import ConversionRefused

SHA256 = "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c"
"""Of ``vocab.txt`` in cn-clip 1.6.0, that of BERT for Chinese: 21,128 word pieces."""
_MEMBER = "cn_clip/clip/vocab.txt"
_LARGEST = 2**20
"""Bytes; the file has 109,540."""


def installed_vocabulary() -> Path:
    """Return ``vocab.txt`` of the installed package cn-clip. Raises ``ConversionRefused`` where there is none."""
    try:
        path = Path(str(distribution("cn-clip").locate_file(_MEMBER)))
    except PackageNotFoundError:
        path = Path()
    if not path.is_file():
        raise ConversionRefused(
            "CN-CLIP's vocabulary is not here. Install the package that has it, without the packages that it asks for "
            "(pip install --no-deps cn-clip==1.6.0), or name its wheel or vocab.txt with --vocabulary."
        )
    return path


def read_vocabulary(path: Path, sha256: str | None = SHA256) -> list[str]:
    """Return the word pieces, each at the place that is its id. One is a blank of its own kind, and empty here.

    ``path``: ``vocab.txt``, or a wheel of cn-clip. ``sha256``: what ``vocab.txt`` must have; None takes any. Raises
    ``ConversionRefused`` where it is another file, ``OSError``.
    """
    content = _content(path)
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ConversionRefused(
            f"{path} is not the vocabulary of CN-CLIP: it has sha256:{digest} instead of sha256:{sha256}. "
            "Take vocab.txt of cn-clip 1.6.0."
        )
    try:
        return [line.strip() for line in content.decode("utf-8").removesuffix("\n").split("\n")]
    except UnicodeDecodeError as error:
        raise ConversionRefused(f"{path} is no vocabulary: it is not UTF-8.") from error


def _content(path: Path) -> bytes:
    """Return the bytes of ``vocab.txt``, at most ``_LARGEST``."""
    if not path.is_file():
        raise ConversionRefused(f"There is no vocabulary at {path}. Name vocab.txt of cn-clip 1.6.0, or its wheel.")
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    else:
        try:
            with zipfile.ZipFile(path) as wheel, wheel.open(_MEMBER) as member:
                content = member.read(_LARGEST + 1)
        except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise ConversionRefused(
                f"{path} is no wheel of cn-clip, or a damaged one: it has no {_MEMBER} that can be read."
            ) from error
    if len(content) > _LARGEST:
        raise ConversionRefused(f"{path} is no vocabulary of CN-CLIP: it is larger than {_LARGEST:,} bytes.")
    return content
