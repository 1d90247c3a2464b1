"""The image as it is run: what is in it, that it answers everything from an empty volume, survives and ends well."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path

import httpx
import pytest

from settings.version import VERSION
from tests.e2e.test_bento import people
from tests.image.base import BASE
from tests.image.conftest import KEY, options
from tools.bench.processes import ProcessTree
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.podman import Container, podman
from tools.harness.rendered import character_accuracy, mixed_pages

pytestmark = [pytest.mark.slow, pytest.mark.image]

MOST_ABOVE_BASE = 800 * 10**6
"""Bytes."""


def post(url: str, entries: object, **parts: object) -> httpx.Response:
    return httpx.post(url + "/predict", content=multipart(entries, **parts), headers=HEADERS, timeout=120)  # type: ignore[arg-type]


def size(image: str) -> int:
    return int(json.loads(podman("image", "inspect", image).stdout)[0]["Size"])


# --- what is in it
# ---------------------------------------------------------------------------------------------------------------


def test_it_is_small(image: str) -> None:
    above = size(image) - size(BASE)
    print(f"image: {size(image) / 1e6:.0f} MB, {above / 1e6:.0f} MB above its base")
    assert above <= MOST_ABOVE_BASE


def test_it_says_what_it_is_and_how_to_run_it(image: str) -> None:
    (facts,) = json.loads(podman("image", "inspect", image).stdout)
    configuration = facts["Config"]
    assert configuration["User"] == "1000:1000"
    assert set(configuration["Volumes"]) == {"/cache"}
    assert set(configuration["ExposedPorts"]) == {"3003/tcp"}
    assert configuration["Labels"]["org.opencontainers.image.version"] == VERSION
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", configuration["Labels"]["org.opencontainers.image.revision"])
    assert facts["Healthcheck"]["Test"][0] in ("CMD", "CMD-SHELL")
    environment = dict(pair.split("=", 1) for pair in configuration["Env"])
    below = [name for name, value in environment.items() if value.startswith("/cache")]
    assert {"MACHINE_LEARNING_CACHE_FOLDER", "SEARCH_FOLDER", "BENTOML_HOME", "HOME"} <= set(below)


def test_it_holds_nothing_that_only_building_needs(container: Container) -> None:
    for program in ("uv", "pip", "gcc", "git", "curl"):
        # The base brings pip of its own; the environment of the service has none.
        assert container.run("sh", "-c", f"ls /app/.venv/bin/{program} /usr/bin/{program}", check=False).stdout in (
            "",
            "/usr/bin/pip\n",
        )
    assert (
        container.run(
            "sh", "-c", "ls -d /root/.cache /app/.venv/lib/python3.11/site-packages/torch 2>&1; true"
        ).stdout.count("No such file")
        + container.run("sh", "-c", "ls -d /root/.cache 2>&1; true").stdout.count("Permission denied")
        >= 1
    )


# --- from an empty volume
# --------------------------------------------------------------------------------------------------------


def test_it_answers_every_task(container: Container) -> None:
    print(f"memory: {ProcessTree(container.pid).pss():.0f} MB idle")
    page = mixed_pages()[0]
    read = post(container.url, ocr(), image=page.data).json()["ocr"]["text"]
    assert character_accuracy(read, page.lines) >= 0.95
    assert len(post(container.url, faces(min_score=0.5), image=people()).json()["facial-recognition"]) == 6
    for answer in (post(container.url, clip_visual(), image=people()), post(container.url, clip_textual(), text="狗")):
        assert len(json.loads(answer.json()["clip"])) == 512
    print(f"memory: {ProcessTree(container.pid).pss():.0f} MB with all models loaded")


def test_it_indexes_and_finds(container: Container) -> None:
    line = mixed_pages()[0].lines[0]
    indexed = container.run("immich-bento", "search", "index", "/pictures", "--no-progress")
    assert "2" in indexed.stdout + indexed.stderr
    found = json.loads(container.run("immich-bento", "search", "find", f"ocr:{line}", "--json").stdout)
    assert [hit["name"] for hit in found["hits"]][:1] == ["page-0.jpg"]
    answer = httpx.get(container.url + "/search", params={"q": line}, headers={"api-key": KEY}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["hits"][0]["name"] == "page-0.jpg"


def test_its_commands_work_where_one_lands(container: Container) -> None:
    assert "cn-clip-tiny" in container.run("python", "-m", "models", "list", "--here").stdout
    assert container.run("immich-bento", "--version").stdout == f"immich-bento {VERSION}\n"
    pulled = container.run("python", "-m", "models", "pull", "ViT-B-16", check=False)
    assert pulled.returncode == 1
    assert "OFFLINE" in pulled.stderr


def test_the_doctor_finds_nothing_wrong(container: Container) -> None:
    report = container.run("immich-bento", "doctor", "--json", check=False)
    findings = json.loads(report.stdout)
    assert [one for one in findings if one["level"] == "wrong"] == []
    assert report.returncode == 0
    timed = [one["subject"] for one in findings if one["subject"].startswith("task ") and one["level"] == "good"]
    assert timed == ["task clip.visual", "task facial-recognition", "task ocr", "task clip.textual"]
    assert KEY not in report.stdout


def test_its_health_check_passes(container: Container) -> None:
    assert podman("healthcheck", "run", container.id, check=False).returncode == 0


def test_all_that_it_wrote_is_below_the_volume(container: Container) -> None:
    kept = container.run("sh", "-c", "ls /cache").stdout.split()
    assert {"bentoml", "search"} <= set(kept)


# --- what happens to it
# ----------------------------------------------------------------------------------------------------------


def test_a_runner_that_is_killed_comes_back(container: Container) -> None:
    code = (
        "import os, pathlib, signal; [os.kill(int(p.parent.name), signal.SIGKILL) for p in "
        "pathlib.Path('/proc').glob('[0-9]*/comm') if p.read_text().strip() == 'PictureRunner']"
    )
    container.run("python", "-c", code)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if post(container.url, faces(), image=people()).status_code == 200:
            break
        time.sleep(0.2)
    else:
        raise AssertionError(container.log)
    assert container.state()["Running"]
    assert "PictureRunner" in container.log


def test_it_ends_at_sigterm_under_load_and_goes_on_from_its_volume(
    image: str, volume: str, pictures: Path, container: Container
) -> None:
    statuses: list[int] = []

    def ask() -> None:
        while True:
            try:
                statuses.append(post(container.url, ocr(), image=mixed_pages()[0].data).status_code)
            except httpx.TransportError:
                return

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    time.sleep(3)
    began = time.monotonic()
    podman("stop", "-t", "20", container.id)
    seconds = time.monotonic() - began
    for caller in callers:
        caller.join(30)
    print(f"stop: {seconds:.1f} s under load")
    assert seconds < 15
    assert container.state()["ExitCode"] == 0, container.log
    assert statuses
    assert set(statuses) <= {200, 503}

    line = mixed_pages()[0].lines[0]
    with Container(image, options(volume, pictures)) as upgraded:
        print(f"start: {upgraded.wait_until_ready():.1f} s until ready, on a volume that is in use")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            answer = httpx.get(upgraded.url + "/search", params={"q": line}, headers={"api-key": KEY}, timeout=60)
            if answer.status_code == 200:
                break
            time.sleep(0.5)
        assert answer.json()["hits"][0]["name"] == "page-0.jpg"


@pytest.mark.parametrize("user", ["1000:1000", "4711:4711"])
def test_a_volume_that_cannot_be_written_is_one_sentence(image: str, user: str, tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    owned_by_root = ["--user", user, "-v", f"{tmp_path}:/cache"]
    with Container(image, owned_by_root) as container:
        podman("wait", container.id, timeout=60)
        assert container.state()["ExitCode"] == 1
        said = container.log.strip().splitlines()
    assert len(said) == 1
    assert "/cache (MACHINE_LEARNING_CACHE_FOLDER) cannot be written: permission denied" in said[0]
    assert f"chown -R {user}" in said[0]


def test_any_user_may_use_a_volume_that_docker_made(image: str) -> None:
    with Container(image, ["--user", "4711:4711", "--read-only", "-v", "/cache", "-e", "OFFLINE=true"]) as container:
        print(f"start: {container.wait_until_ready():.1f} s until ready, on an empty volume")
        assert container.run("id", "-u").stdout.strip() == "4711"
