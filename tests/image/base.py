"""The image that the tests run, and the base that it is built on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.harness.podman import image_exists, podman
from tools.harness.server import ROOT
from tools.image.build import image_tag

BASE = "docker.io/library/python:3.11-slim"
"""Image that the Dockerfile begins with."""
_DEBIAN = ("python3.11", "python3-pip", "python3-venv", "python-is-python3", "ca-certificates")
"""Debian 12's own packages of the same, for machines that reach no registry."""


class NoImage(Exception):
    """The image cannot be built or run here; the message says why."""


def make_base() -> None:
    """Have ``BASE`` on this machine: pulled, or made of Debian's packages. Raises ``NoImage``."""
    if image_exists(BASE) or podman("pull", "--quiet", BASE, check=False, timeout=300).returncode == 0:
        return
    if shutil.which("mmdebstrap") is None:
        raise NoImage(f"no registry has {BASE} for us, and mmdebstrap is not here to make one")
    with tempfile.TemporaryDirectory() as folder:
        archive = f"{folder}/base.tar"
        command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(_DEBIAN)}", "bookworm", archive]
        made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        if made.returncode != 0:
            raise NoImage(f"mmdebstrap made no base: {made.stderr[-500:]}")
        podman("import", archive, BASE)


def build(*options: str) -> str:
    """Build the image as ``make image`` does, and return its name. Raises ``NoImage``.

    ``options``: more of them for ``python -m tools.image``.
    """
    make_base()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(os.environ.get("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt"), f"{folder}/ca.crt")
        Path(folder, "pip.conf").write_text("[global]\ncert = /etc/xdg/pip/ca.crt\ntimeout = 180\n")
        command = [sys.executable, "-m", "tools.image", "--backend", "podman", "--opt", "network=host"]
        command += ["--opt", f"volume={folder}:/etc/xdg/pip:ro", *options]
        built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    if built.returncode != 0:
        raise NoImage(f"it was not built: {built.stderr[-2000:]}")
    return "localhost/" + image_tag("cpu")
