"""Installs packages in a second by linking their files from this environment, where they are installed already."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement


def link_packages(pins: Iterable[Requirement], venv: Path) -> None:
    """Give ``venv`` what installing ``pins`` without their dependencies would: the files of each, and the programs.

    Raises:
        PackageNotFoundError, AssertionError: This environment lacks one, or has it in another version.
    """
    for pin in pins:
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        found = distribution(pin.name)
        assert pin.specifier.contains(found.version, prereleases=True), (
            f"{pin.name} {found.version} is installed, not {pin}"
        )
        for file in found.files or []:
            source = Path(str(file.locate())).resolve()
            if source.suffix != ".pyc" and source.is_file():  # what has been compiled here names its files
                _link(source, venv / source.relative_to(Path(sys.prefix).resolve()))


def _link(source: Path, target: Path) -> None:
    if target.exists():  # bentoml names some of its files twice
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.parent.name == "bin" and source.read_bytes().startswith(b"#!"):
        _, _, rest = source.read_text().partition("\n")
        target.write_text(f"#!{target.parent / 'python'}\n{rest}")
        target.chmod(0o755)
        return
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
