"""The service of the demo: found if it runs, started if it does not.

Everything that it writes is in one folder of the working tree.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil

from errors import ServiceError
from search.embedded.server import EmbeddedServer
from search.embedded.setup import closed_to, server_user
from settings import Settings
from settings.variables import setting_names
from tools.harness.server import BUNDLED_MODELS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("DEMO_FOLDER", ROOT / ".demo")).absolute()
_STATE = FOLDER / "running.json"
_READY_SECONDS = 180.0


class DemoFailed(Exception):
    """The demo cannot go on; the message says why, in a sentence for a person."""


@dataclass(frozen=True, slots=True)
class Running:
    """A service of the demo."""

    pid: int
    started: float
    """Time at which its process was created, so that another process of the same number is not taken for it."""
    port: int
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return FOLDER / "service.log"

    @property
    def pictures(self) -> Path:
        return FOLDER / "pictures"

    def environment(self) -> Mapping[str, str]:
        """Return the environment of the service and of ``python -m search`` for it, without the user's own settings."""
        names = {name.split("__")[0] for name in setting_names(Settings)}
        kept = {name: value for name, value in os.environ.items() if name.split("__")[0].upper() not in names}
        return {
            **kept,
            **BUNDLED_MODELS,
            "IMMICH_HOST": "127.0.0.1",
            "IMMICH_PORT": str(self.port),
            "API_AUTH_KEY": self.key,
            "SEARCH_FOLDER": str(_search_folder()),
            "MACHINE_LEARNING_CACHE_FOLDER": str(FOLDER / "models"),
            "BENTOML_HOME": str(FOLDER / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "OFFLINE": "true",
        }

    def process(self) -> psutil.Process | None:
        """Return the process, or None if it has ended."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


def running() -> Running | None:
    """Return the demo's service if it runs, else None."""
    try:
        found = Running(**json.loads(_STATE.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.process() is not None else None


def start() -> Running:
    """Start the service and wait until it answers and searches. Raise ``DemoFailed``."""
    own = ROOT / ".env"
    if own.exists() and re.search(
        r"^\s*(export\s+)?DATABASE_URL\s*=", own.read_text(errors="replace"), re.MULTILINE | re.IGNORECASE
    ):
        raise DemoFailed(
            f"{own} sets DATABASE_URL, and the demo's pictures should not land in that database. Move the file away "
            "for the demo."
        )
    FOLDER.mkdir(exist_ok=True)
    FOLDER.chmod(0o755)  # PostgreSQL runs as another user where this is root
    _check_that_postgresql_can_run()
    new = Running(pid=0, started=0.0, port=_free_port(), key=_key())
    with new.log.open("wb") as log:
        process = subprocess.Popen(
            (sys.executable, "-m", "bentoml", "serve"),
            cwd=ROOT,
            env=dict(new.environment()),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    started = Running(process.pid, psutil.Process(process.pid).create_time(), new.port, new.key)
    descriptor = os.open(_STATE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as state:
        json.dump(asdict(started), state)
    wait_until_ready(started)
    return started


def _check_that_postgresql_can_run() -> None:
    """Raise ``DemoFailed`` if PostgreSQL cannot run, with the reason.

    Otherwise the reason would be in the log of the service alone, while the demo waits for it.
    """
    try:
        EmbeddedServer(_search_folder()).check()
    except ServiceError as error:
        raise DemoFailed(str(error)) from error


def wait_until_ready(service: Running) -> None:
    """Wait until all runners and search answer. Raise ``DemoFailed`` if they do not in time."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if service.process() is None:
            raise DemoFailed(f"The service ended at once; {service.log} says why:\n{_last_lines(service.log)}")
        with suppress(httpx.TransportError), _client(service) as client:
            if client.get("/readyz").status_code == 200 and client.get("/stats").status_code == 200:
                return
        time.sleep(0.3)
    raise DemoFailed(
        f"The service was not ready in {_READY_SECONDS:g} s; {service.log} says more:\n{_last_lines(service.log)}"
    )


def _client(service: Running) -> httpx.Client:
    return httpx.Client(base_url=service.url, trust_env=False, timeout=10, headers={"api-key": service.key})


def stop() -> bool:
    """End the service and its database; return False if it did not run. Everything it made stays in the folder."""
    found = running()
    process = found.process() if found else None
    _STATE.unlink(missing_ok=True)
    if process is None:
        return False
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except psutil.TimeoutExpired:
        for one in (*process.children(recursive=True), process):
            with suppress(psutil.Error):
                one.kill()
    return True


def _search_folder() -> Path:
    """Return the folder of the database.

    It is in the working tree, unless this is root and the tree lies where the user that PostgreSQL then runs as cannot
    enter.
    """
    user = server_user()
    if user is not None and closed_to(user, FOLDER):
        return Path("/var/lib/immich-bento-demo")
    return FOLDER / "search"


def _key() -> str:
    """Return the key of the last time, or a new one."""
    path = FOLDER / "key"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(16))
    return path.read_text().strip()


def _free_port() -> int:
    """Return 3003 if nobody has it, else any free port."""
    for wanted in (3003, 0):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", wanted))
            return int(probe.getsockname()[1])
    raise DemoFailed("No port of this machine is free.")


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-8:])
