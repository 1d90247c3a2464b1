"""podman, as the tests of the image call it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tools.harness.server import ROOT, free_port
from tools.image.build import image_tag

BASE = "docker.io/library/python:3.11-slim"
"""Image that the Dockerfile begins with."""
_DEBIAN = ("python3.11", "python3-pip", "python3-venv", "python-is-python3", "ca-certificates")
"""Debian 12's own packages of the same, for machines that reach no registry."""


class NoImage(Exception):
    """The image cannot be built or run here; the message says why."""


def podman(*arguments: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run podman with the limits of this process, which a nested container may not raise."""
    with _configuration() as path:
        done = subprocess.run(
            ["podman", *arguments],
            env={**os.environ, "CONTAINERS_CONF": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    if check and done.returncode != 0:
        raise AssertionError(f"podman {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done


@contextmanager
def _configuration() -> Iterator[str]:
    given = os.environ.get("CONTAINERS_CONF")
    if given is not None:
        yield given
        return
    kinds = (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
    now = [(name, min(resource.getrlimit(kind)[0], 16_384)) for name, kind in kinds]
    limits = [f'"{name}={limit}:{limit}"' for name, limit in now]
    runtime = 'runtime = "runc"\n' if shutil.which("runc") else ""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(f"[containers]\ndefault_ulimits = [{', '.join(limits)}]\n[engine]\n{runtime}")
        file.flush()
        yield file.name


def image_exists(name: str) -> bool:
    """Return whether this machine has the image ``name``."""
    return podman("image", "exists", name, check=False).returncode == 0


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


def build() -> str:
    """Build the image as ``make image`` does, and return its name. Raises ``NoImage``."""
    make_base()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(os.environ.get("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt"), f"{folder}/ca.crt")
        Path(folder, "pip.conf").write_text("[global]\ncert = /etc/xdg/pip/ca.crt\ntimeout = 180\n")
        command = [sys.executable, "-m", "tools.image", "--backend", "podman", "--opt", "network=host"]
        command += ["--opt", f"volume={folder}:/etc/xdg/pip:ro"]
        built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    if built.returncode != 0:
        raise NoImage(f"it was not built: {built.stderr[-2000:]}")
    return "localhost/" + image_tag("cpu")


@dataclass
class Container:
    """A running container of the image. A context manager, which removes it at the end."""

    image: str
    options: Sequence[str] = ()
    arguments: Sequence[str] = ()
    on_host: bool = False
    """In the network of this machine, whose loopback it reaches."""
    port: int = 0
    id: str = field(default="", init=False)
    started: float = field(default=0.0, init=False)

    def __enter__(self) -> Container:
        self.port = free_port()
        network = ["-p", f"127.0.0.1:{self.port}:3003"]
        if self.on_host:
            network = ["--network", "host", "-e", "IMMICH_HOST=127.0.0.1", "-e", f"IMMICH_PORT={self.port}"]
        self.started = time.monotonic()
        self.id = podman("run", "-d", *network, *self.options, self.image, *self.arguments).stdout.strip()
        return self

    def __exit__(self, *_: object) -> None:
        podman("rm", "-f", "-t", "1", self.id, check=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        done = podman("logs", self.id, check=False)
        return done.stdout + done.stderr

    def wait_until_ready(self, seconds: float = 120, path: str = "/readyz") -> float:
        """Wait until ``path`` is answered 200; return the seconds since the container was started."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if httpx.get(self.url + path, timeout=5).status_code == 200:
                    return time.monotonic() - self.started
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"The container was not ready after {seconds} s:\n{self.log}")

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``command`` in the container, as ``docker exec`` does."""
        return podman("exec", self.id, *command, check=check)

    def kill(self) -> None:
        """Send SIGKILL to all processes of the container, and wait until they have ended."""
        podman("kill", "--signal", "KILL", self.id)
        podman("wait", self.id, timeout=60)

    def start_again(self) -> None:
        """Start the container, which has ended, with the files that it had."""
        self.started = time.monotonic()
        podman("start", self.id)

    def state(self) -> dict[str, Any]:
        """Return podman's word on how the container is."""
        state: dict[str, Any] = json.loads(podman("inspect", self.id).stdout)[0]["State"]
        return state

    def memory(self) -> int:
        """Return the proportional set size of all its processes, in bytes."""
        code = (
            "import os, pathlib; print(sum(int(line.split()[1])"
            " for path in pathlib.Path('/proc').glob('[0-9]*/smaps_rollup') if path.parent.name != str(os.getpid())"
            " for line in path.read_text().splitlines() if line.startswith('Pss:')))"
        )
        return 1024 * int(self.run("python", "-c", code).stdout)
