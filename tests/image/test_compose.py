"""The compose files as they are run, by podman-compose: this service, a PostgreSQL, Caddy and Prometheus.

Immich and Grafana are left out. Callers stand in a container of their own, in the network of the file.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.test_compose import DEPLOY, examples
from tests.e2e.test_bento import people
from tests.image import callers, stand_ins
from tests.image.base import NoImage
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.podman import podman
from tools.harness.rendered import character_accuracy, mixed_pages
from tools.harness.server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.image]

SERVICES = ("immich-bento", "database", "caddy", "prometheus")
KEY = "a-key-of-tests"
MODELS = {"CLIP_MODEL": "tiny", "RECOGNITION_MODEL": "buffalo_s", "OCR_MODEL": "PP-OCRv6_small", "OFFLINE": "true"}
OURS = "http://immich-machine-learning:3003"
"""Address that Immich asks by default."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A compose file that is up."""

    image: str
    folder: Path
    file: str
    project: str
    settings: dict[str, str]

    @property
    def environment(self) -> str:
        """The file with its settings, which ``.env`` is where there is one stack alone."""
        return f"{self.project}.env"

    def compose(self, *arguments: str) -> None:
        stand_ins.compose(self.folder, "-f", self.file, "-p", self.project, "--env-file", self.environment, *arguments)

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self.settings[port]}"

    def container(self, service: str) -> str:
        return f"{self.project}_{service}_1"

    def log(self, service: str) -> str:
        done = podman("logs", self.container(service), check=False)
        return done.stdout + done.stderr

    def call(self, url: str, number: int, seconds: float, network: str = "") -> dict[str, Any]:
        """Send the bodies from a container in the network; return what ``callers`` prints."""
        mounts = [f"{callers.__file__}:/callers.py:ro", f"{self.folder}/bodies:/bodies:ro"]
        run = ["run", "--rm", "--network", network or f"{self.project}_default", "--entrypoint", "python"]
        run += [word for mount in mounts for word in ("-v", mount)]
        done = podman(*run, self.image, "/callers.py", url, "/bodies", str(number), str(seconds))
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed


def laid_out(folder: Path) -> Path:
    """Return a copy of deploy/ in ``folder``, with pictures to index and bodies to send beside it."""
    copy = folder / "deploy"
    shutil.copytree(DEPLOY, copy)
    for name, mode in (("pictures", 0o755), ("bodies", 0o755), ("postgres", 0o777)):
        (copy / name).mkdir()
        (copy / name).chmod(mode)
    pages = mixed_pages()[:2]
    for number, page in enumerate(pages):
        (copy / f"pictures/page-{number}.jpg").write_bytes(page.data)
    bodies = {
        "clip.textual": multipart(clip_textual(), text="狗"),
        "clip.visual": multipart(clip_visual(), image=people()),
        "facial-recognition": multipart(faces(min_score=0.5), image=people()),
        "ocr": multipart(ocr(), image=pages[0].data),
    }
    for name, body in bodies.items():
        (copy / f"bodies/{name}.body").write_bytes(body)
    (copy / "bodies/content-type").write_text(HEADERS["content-type"])
    return copy


def up(image: str, folder: Path, file: str, *services: str, **settings: str) -> Stack:
    """Start ``services`` of a compose file, with ``settings`` in its .env."""
    project = f"immich-bento-test-{os.getpid()}-{file.split('.')[1]}"
    filled = {**examples(), **MODELS, "API_AUTH_KEY": KEY, "DB_PASSWORD": "password", "IMMICH_BENTO_IMAGE": image}
    filled |= {**settings, "COMPOSE_PROJECT_NAME": project}
    stack = Stack(image, folder, file, project, filled)
    (folder / stack.environment).write_text("".join(f"{name}={value}\n" for name, value in filled.items()))
    stack.compose("up", "-d", *services)
    return stack


def down(stack: Stack) -> None:
    """Remove containers, with the volumes that their images ask for, networks and volumes."""
    listed = podman("ps", "-a", "--format", "{{.Names}}").stdout.split()
    podman("rm", "-f", "-v", "-t", "5", *(name for name in listed if name.startswith(f"{stack.project}_")))
    stack.compose("down", "--volumes", "-t", "5")


def until(condition: Callable[[], bool], log: Callable[[], str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, log()
        time.sleep(0.2)


def until_answered(stack: Stack, port: str, path: str) -> None:
    url = stack.url(port) + path
    until(lambda: httpx.get(url).status_code < 400, lambda: stack.log("immich-bento"))


@pytest.fixture(scope="module")
def folder(image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        stand_ins.program("podman-compose")
    except NoImage as error:
        pytest.skip(f"skipped: {error} (pip install podman-compose)")
    return laid_out(tmp_path_factory.mktemp("compose"))


@pytest.fixture(scope="module")
def stack(image: str, folder: Path) -> Iterator[Stack]:
    """Start what can be had of compose.yaml, and wait until Caddy passes our service's answers on."""
    try:
        images = {
            "CADDY_IMAGE": stand_ins.caddy(examples()["CADDY_IMAGE"]),
            "PROMETHEUS_IMAGE": stand_ins.prometheus(examples()["PROMETHEUS_IMAGE"]),
            "DB_IMAGE": stand_ins.database(image),
        }
    except NoImage as error:
        pytest.skip(f"skipped: {error}")
    ports = {"IMMICH_PORT": str(free_port()), "PROMETHEUS_PORT": str(free_port())}
    profiles = {"COMPOSE_PROFILES": "cpu,plain,monitoring"}
    running = up(image, folder, "compose.yaml", *SERVICES, **images, **ports, **profiles)
    try:
        until(
            lambda: httpx.get(running.url("IMMICH_PORT") + "/ai").status_code < 400, lambda: running.log("immich-bento")
        )
        yield running
    finally:
        down(running)


def assert_all_tasks(answers: dict[str, str]) -> None:
    """Hold one answer to each task to what is on the pictures."""
    page = mixed_pages()[0]
    assert character_accuracy(json.loads(answers["ocr.body"])["ocr"]["text"], page.lines) >= 0.95
    assert len(json.loads(answers["facial-recognition.body"])["facial-recognition"]) == 6
    for name in ("clip.textual.body", "clip.visual.body"):
        assert len(json.loads(json.loads(answers[name])["clip"])) == 512


def test_all_tasks_are_answered_where_immich_asks_by_default(stack: Stack) -> None:
    called = stack.call(OURS, 1, 0)
    assert called["outcomes"] == {"200": 4}
    assert_all_tasks(called["answers"])


def test_pictures_are_indexed_into_its_database_and_found(stack: Stack) -> None:
    ours = stack.container("immich-bento")
    podman("exec", ours, "immich-bento", "search", "index", "/pictures", "--no-progress")
    line = mixed_pages()[0].lines[0]
    found = json.loads(podman("exec", ours, "immich-bento", "search", "find", f"ocr:{line}", "--json").stdout)
    assert [hit["name"] for hit in found["hits"]][:1] == ["page-0.jpg"]
    kept = "SELECT count(*) FROM pg_tables WHERE schemaname = 'immich_ai'"
    query = f"import psycopg, os; print(psycopg.connect(os.environ['DATABASE_URL']).execute(\"{kept}\").fetchone()[0])"
    assert int(podman("exec", ours, "python", "-c", query).stdout) > 0, "in the database that DATABASE_URL names"


def test_the_page_is_answered_at_immichs_port_and_the_rest_is_immichs(stack: Stack) -> None:
    assert "<html" in httpx.get(stack.url("IMMICH_PORT") + "/ai", follow_redirects=True).text
    assert httpx.get(stack.url("IMMICH_PORT") + "/photos", timeout=60).status_code == 502, "Immich is not here"


def test_prometheus_has_the_figures_and_reads_the_alerts(stack: Stack) -> None:
    url = stack.url("PROMETHEUS_PORT") + "/api/v1"

    def scraped() -> bool:
        answer = httpx.get(url + "/query", params={"query": "immich_bento_requests_total"}).json()
        return bool(answer["data"]["result"])

    until(scraped, lambda: stack.log("prometheus"))
    groups = httpx.get(url + "/rules").json()["data"]["groups"]
    names = [rule["name"] for group in groups for rule in group["rules"]]
    assert names
    assert all(rule["health"] != "err" for group in groups for rule in group["rules"])


def test_a_restart_under_callers_loses_nothing(stack: Stack) -> None:
    """Caddy holds what is asked meanwhile, and sends again what lost its connection."""
    results: list[dict[str, Any]] = []
    caller = threading.Thread(target=lambda: results.append(stack.call(OURS, 4, 45)))
    caller.start()
    time.sleep(10)
    began = time.monotonic()
    podman("restart", "-t", "15", stack.container("immich-bento"))
    restarted = time.monotonic() - began
    caller.join(240)
    (called,) = results
    print(f"restart: {restarted:.0f} s; {called['outcomes']}, the longest after {called['longest']:.0f} s")
    assert set(called["outcomes"]) == {"200"}, called


def test_the_addon_joins_a_network_and_answers_there_and_on_its_port(image: str, folder: Path) -> None:
    network = f"immich-bento-test-{os.getpid()}"
    podman("network", "create", network)
    try:
        port = {"HTTP_PORT": str(free_port()), "IMMICH_NETWORK": network}
        stack = up(image, folder, "compose.addon.yaml", **port)
        try:
            until(
                lambda: httpx.get(stack.url("HTTP_PORT") + "/readyz").status_code == 200,
                lambda: stack.log("immich-bento"),
            )
            assert httpx.get(stack.url("HTTP_PORT") + "/ping").text == "pong"
            called = stack.call("http://immich-bento:3003", 1, 0, network)
            assert called["outcomes"] == {"200": 4}
            assert_all_tasks(called["answers"])
        finally:
            down(stack)
    finally:
        podman("network", "rm", "-f", network, check=False)


def test_mt_photos_is_answered_with_its_key(image: str, folder: Path) -> None:
    stack = up(image, folder, "compose.mtphotos.yaml", HTTP_PORT=str(free_port()))
    try:
        url = stack.url("HTTP_PORT")
        until_answered(stack, "HTTP_PORT", "/readyz")
        assert httpx.post(url + "/check").json()["result"] == "pass"
        sent = {"file": ("page.jpg", mixed_pages()[0].data)}
        assert httpx.post(url + "/ocr", files=sent, timeout=60).status_code == 401
        read = httpx.post(url + "/ocr", files=sent, headers={"api-key": KEY}, timeout=60).json()["result"]["texts"]
        assert character_accuracy(read, mixed_pages()[0].lines) >= 0.95
    finally:
        down(stack)
