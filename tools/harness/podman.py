"""podman, as the tests of the image and its benchmark call it, and a container of the image."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tools.harness.server import free_port


def podman(*arguments: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run podman with the limits of this process, which a nested container may not raise.

    Paths must be absolute: it runs in the folder of temporary files, since conmon, which watches a container, writes
    a file called oom where it was started when the kernel kills in it.
    """
    with configuration() as path:
        done = subprocess.run(
            ["podman", *arguments],
            env={**os.environ, "CONTAINERS_CONF": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            cwd=tempfile.gettempdir(),
        )
    if check and done.returncode != 0:
        raise AssertionError(f"podman {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done


@contextmanager
def configuration() -> Iterator[str]:
    """Yield the path of a CONTAINERS_CONF that fits this machine; the caller's own, where there is one."""
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
        podman("rm", "-f", "-v", "-t", "1", self.id, check=False)

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

    @property
    def pid(self) -> int:
        """Return the number of its first process on this machine."""
        return int(self.state()["Pid"])

    def state(self) -> dict[str, Any]:
        """Return podman's word on how the container is."""
        state: dict[str, Any] = json.loads(podman("inspect", self.id).stdout)[0]["State"]
        return state
