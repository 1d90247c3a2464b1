"""The real service, started as a user would, on a free port of the loopback interface."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
BUNDLED_MODELS = {"CLIP_MODEL": "cn-clip-tiny", "OCR_MODEL": "PP-OCRv6_small", "RECOGNITION_MODEL": "buffalo_s"}
"""Settings for models that packages and the project itself bring, so that nothing is downloaded."""


def free_port() -> int:
    """Return a port that nobody listens on, outside of the range that the system gives to connections.

    A port of that range could be taken by a connection before the server binds it.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Server:
    """``bentoml serve`` in its own process group. A context manager; it ends what it started, and only that."""

    folder: Path
    """For logs, caches and BentoML's own files."""
    environment: Mapping[str, str]
    command: tuple[str, ...] = (sys.executable, "-m", "bentoml", "serve")
    working_dir: Path = ROOT
    ready_path: str = "/readyz"
    """Path that answers 200 once the service is there."""
    port: int = 0
    host: str = "127.0.0.1"
    """An address of the loopback interface."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "serve.log").read_text(errors="replace")

    def spawn(self) -> None:
        """Start the service without waiting."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MACHINE_LEARNING_", "IMMICH_", "BENTOML_", "PROMETHEUS_"))
        }
        environment = {
            **kept,
            "IMMICH_HOST": self.host,
            "IMMICH_PORT": str(self.port),
            "MACHINE_LEARNING_CACHE_FOLDER": str(self.folder / "models"),
            "BENTOML_HOME": str(self.folder / "bentoml"),
            "OFFLINE": "true",
            "SEARCH_ENABLED": "false",  # each database costs seconds; tests of search switch it on
            **self.environment,
        }
        with (self.folder / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.working_dir,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Server:
        self.spawn()
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def wait_until_ready(self, seconds: float = 90) -> None:
        """Wait until ``/readyz`` answers 200: the gateway and all runners are up, and the models that settings name are
        here.
        """
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"The service ended with {self.process.returncode}:\n{self.log}")
            try:
                if httpx.get(self.url + self.ready_path, timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"The service was not ready after {seconds} s:\n{self.log}")

    def processes(self) -> list[psutil.Process]:
        """List every process of the service, the one that was started first."""
        if self.process is None or self.process.poll() is not None:
            return []
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def workers(self, service: str) -> list[psutil.Process]:
        """List the processes of one BentoML service (``PictureRunner``)."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # killed, and not yet waited for
                if process.name() == service or service in process.cmdline():  # forked, or started anew
                    found.append(process)
        return found

    def terminate(self) -> None:
        """Send SIGTERM, as an init system would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is None:
            return
        processes = self.processes()
        self.terminate()  # nothing, where it has ended
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        ended = self.process.poll() is not None
        for process in processes:
            if process.is_running():
                process.kill()
        self.process.wait()
        if not ended and error is None:
            raise AssertionError(f"SIGTERM did not end the service within 20 s:\n{self.log}")
