"""The Bento: what ``bentoml build`` packs, that it installs on its own and serves, and what its container image will
be.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from packaging.requirements import Requirement

from tests.linked_packages import link_packages
from tests.test_packaging import NEVER_SERVED, SERVED_FILES, pins
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.rendered import character_accuracy, mixed_pages
from tools.harness.server import ROOT, Server
from tools.harness.tiny_clip import tiny_clip_folder

BENTO_PATH = "/home/bentoml/bento"
INSTALL = (
    "python -m venv --without-pip /app/.venv && python -m pip --python /app/.venv/bin/python install --no-deps "
    "--no-compile --no-cache-dir --disable-pip-version-check --requirement /build/requirements.txt"
)
"""Folder of the Bento in the image."""
OF_A_SLIM_IMAGE = {
    *("ld-linux-x86-64", "ld-linux-aarch64", "libc", "libdl", "libm", "libmvec", "libpthread", "libresolv", "librt"),
    *("libgcc_s", "libstdc++", "libz"),
}
"""Shared libraries of libc6, libgcc-s1, libstdc++6 and zlib1g: dpkg and apt need them, so every Debian image has
them.
"""


NEVER_LOADED = (
    "libecpg",  # C programs with SQL inside them, which a PostgreSQL brings along
    "libopenvino_intel_gpu_plugin",  # where there is an Intel GPU, whose driver brings OpenCL
)


def quiet_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without settings of the service, and without a way out to the network."""
    prefixes = ("MACHINE_LEARNING_", "IMMICH_", "BENTOML_", "PROMETHEUS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return {**kept, "BENTOML_DO_NOT_TRACK": "True", **more}


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a Bento, freshly built where nothing can be downloaded."""
    home = tmp_path_factory.mktemp("bento-store")
    nowhere = "http://127.0.0.1:9"
    environment = quiet_environment(
        BENTOML_HOME=str(home), HTTP_PROXY=nowhere, HTTPS_PROXY=nowhere, ALL_PROXY=nowhere, UV_OFFLINE="1"
    )
    built = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "--output", "tag"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (folder,) = (path for path in (home / "bentos" / "immich-bento").iterdir() if path.is_dir())
    return folder


def test_src_holds_what_serving_needs_and_nothing_else(bento: Path) -> None:
    packed = {path.relative_to(bento / "src").as_posix() for path in (bento / "src").rglob("*") if path.is_file()}
    modules = {path.relative_to(ROOT).as_posix() for path in SERVED_FILES}
    weights = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "models/tiny/weights").rglob("*") if path.is_file()
    }
    assert len(weights) == 6
    statements = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sql").glob("*.sql")}
    static = {path.relative_to(ROOT).as_posix() for path in (ROOT / "web/static").rglob("*") if path.is_file()}
    data = {"models/catalog.toml", "runners/ocr/ranges.json", "LICENSE", "bentofile.yaml"}
    assert packed == modules | weights | statements | static | data
    assert {"service.py", "compat/immich/api.py", "runners/bento/services.py"} <= packed
    assert (bento / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()


def required(bento: Path) -> list[Requirement]:
    return [Requirement(line) for line in (bento / "env/python/requirements.txt").read_text().splitlines()]


def test_it_requires_what_the_lock_pins(bento: Path) -> None:
    assert {str(pin) for pin in required(bento)} == {str(pin) for pin in pins("requirements.lock")}
    assert "PIP_ARGS=(--no-deps)" in (bento / "env/python/install.sh").read_text()


# --- the container image
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dockerfile:
    instructions: list[tuple[str, str]]
    """(instruction, arguments), in order."""

    @classmethod
    def parse(cls, text: str) -> Dockerfile:
        lines = re.sub(r"\\\n\s*", "", text).splitlines()
        pairs = (line.strip().partition(" ") for line in lines if line.strip() and not line.lstrip().startswith("#"))
        return cls([(name.upper(), rest.strip()) for name, _, rest in pairs])

    def all(self, name: str) -> list[str]:
        return [arguments for instruction, arguments in self.instructions if instruction == name]

    def one(self, name: str) -> str:
        (arguments,) = self.all(name)
        return arguments

    @property
    def environment(self) -> dict[str, str]:
        """Variables that ENV sets, with the defaults of ARG put in."""
        arguments = dict(text.split("=", 1) for text in self.all("ARG"))
        pairs = (word.split("=", 1) for text in self.all("ENV") for word in shlex.split(text))
        return {
            name: arguments.get(value.removeprefix("$"), value) if value.startswith("$") else value
            for name, value in pairs
        }


@pytest.fixture(scope="module")
def dockerfile(bento: Path) -> Dockerfile:
    return Dockerfile.parse((bento / "env/docker/Dockerfile").read_text())


def test_the_image_has_the_python_of_the_project_and_no_system_packages(dockerfile: Dockerfile) -> None:
    assert dockerfile.all("FROM") == ["python:3.11-slim AS packages", "python:3.11-slim AS base-container"]
    assert "apt-get" not in " ".join(dockerfile.all("RUN"))
    assert [command for command in dockerfile.all("RUN") if "pip" in command.split()] == [INSTALL]


def test_pip_and_what_it_leaves_behind_stay_in_the_stage_that_installs(dockerfile: Dockerfile) -> None:
    second = [at for at, (name, _) in enumerate(dockerfile.instructions) if name == "FROM"][1]
    after = dockerfile.instructions[second:]
    assert not [text for name, text in after if name == "RUN" and "pip" in text]
    assert [text.split()[0] for name, text in after if name == "COPY"] == ["--from=packages"] * 3


def test_the_image_runs_as_a_user_who_may_write_its_cache(dockerfile: Dockerfile) -> None:
    assert dockerfile.one("USER") == "1000:1000"
    assert [name for name, _ in dockerfile.instructions[-3:]] == ["USER", "ENTRYPOINT", "CMD"]
    assert re.search(r"useradd .*-u \$BENTO_USER_UID", " ".join(dockerfile.all("RUN")))
    folder = dockerfile.environment["MACHINE_LEARNING_CACHE_FOLDER"]
    assert f"install -d -m 0777 -o bentoml -g bentoml {folder}" in dockerfile.all("RUN")
    assert dockerfile.one("VOLUME") == folder


def test_the_image_exposes_the_port_that_the_service_listens_on(dockerfile: Dockerfile, bento: Path) -> None:
    info = yaml.safe_load((bento / "bento.yaml").read_text())
    (entry,) = (service for service in info["services"] if service["name"] == info["entry_service"])
    assert entry["config"]["http"] == {"host": "0.0.0.0", "port": 3003}
    assert dockerfile.all("EXPOSE") == ["3003"]
    assert not {"PORT", "BENTOML_PORT", "IMMICH_PORT", "HTTP_PORT"} & set(dockerfile.environment)


def test_all_that_is_written_is_below_the_volume(dockerfile: Dockerfile) -> None:
    environment = dockerfile.environment
    folders = ("MACHINE_LEARNING_CACHE_FOLDER", "SEARCH_FOLDER", "BENTOML_HOME", "HOME")
    assert [name for name in folders if not environment[name].startswith("/cache")] == []


def test_bentoml_starts_processes_that_died_again(dockerfile: Dockerfile) -> None:
    """With this variable set it ends the whole service instead."""
    assert "BENTOML_CONTAINERIZED" not in dockerfile.environment


def test_one_lands_where_the_commands_work(dockerfile: Dockerfile) -> None:
    assert dockerfile.one("WORKDIR") == dockerfile.environment["PYTHONPATH"] == f"{BENTO_PATH}/src"


def test_the_image_reports_nothing_home(dockerfile: Dockerfile) -> None:
    assert dockerfile.environment["BENTOML_DO_NOT_TRACK"] == "True"


def test_containerize_finds_the_same_dockerfile(dockerfile: Dockerfile, bento: Path) -> None:
    """``bentoml containerize`` writes it anew from the Bento; see ``make image`` for why from the root folder."""
    code = (
        "import bentoml, sys; from bentoml._internal.container import construct_containerfile as construct\n"
        "with construct(bentoml.get('immich-bento:latest'), enable_buildkit=False) as (_, path): "
        "sys.stdout.write(open(path).read())"
    )
    environment = quiet_environment(BENTOML_HOME=str(bento.parents[2]))
    written = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    assert Dockerfile.parse(written.stdout) == dockerfile, written.stderr


# --- on its own
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["linked", pytest.param("installed", marks=pytest.mark.slow)])
def home(bento: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Return a folder with a new ``.venv`` that holds only what the Bento requires, linked from here, or as its own
    install.sh puts it.
    """
    folder = tmp_path_factory.mktemp("bento-home")
    venv = folder / ".venv"
    subprocess.run([sys.executable, "-m", "venv", *["--without-pip"] * (request.param == "linked"), venv], check=True)
    if request.param == "linked":
        link_packages(required(bento), venv)
        return folder
    environment = quiet_environment()
    environment.pop("PYTHONPATH", None)
    steps = INSTALL.replace("/app/.venv", str(venv)).replace("/build", str(bento / "env/python")).split(" && ")[1]
    trim = [venv / "bin/python", bento / "env/docker/setup_script", bento / "src", folder / "standard-library.txt"]
    for command in ([sys.executable, *steps.split()[1:]], trim):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def server(bento: Path, dockerfile: Dockerfile, home: Path) -> Iterator[Server]:
    """Start it as the image would: its entry point, its environment, only the paths are those of this machine."""
    tiny_clip_folder(home / "models" / "clip" / "ViT-B-16")
    assert json.loads(dockerfile.one("ENTRYPOINT")) + json.loads(dockerfile.one("CMD")) == ["immich-bento", "serve"]
    command = (str(home / ".venv/bin/python"), "-m", "immich_bento", "serve")  # what the script of that name runs
    cache = dockerfile.environment["MACHINE_LEARNING_CACHE_FOLDER"]
    environment = {name: value.replace(cache, str(home / "cache")) for name, value in dockerfile.environment.items()}
    environment |= {
        "BENTO_PATH": str(bento),
        "CLIP_MODEL": "ViT-B-16",
        "MACHINE_LEARNING_CACHE_FOLDER": str(home / "models"),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(bento / "src"),
        "VIRTUAL_ENV": str(home / ".venv"),
    }
    with Server(home, environment, command=command, working_dir=home) as running:
        yield running


def test_the_environment_holds_nothing_that_serving_does_not_need(home: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(home / ".venv/bin/python")]
    listed = subprocess.run([*pip, "list", "--format=json"], capture_output=True, check=True)
    installed = {package["name"].lower().replace("_", "-") for package in json.loads(listed.stdout)}
    assert "onnxruntime" in installed
    assert not installed & NEVER_SERVED
    checked = subprocess.run([*pip, "check"], capture_output=True, text=True, check=False)
    # cn-clip carries a vocabulary; what its code would need (torch and more) is left out on purpose. deploy/trim.py
    # takes hf-xet out: downloads are our own.
    lines = [line for line in checked.stdout.splitlines() if not line.startswith("cn-clip 1.6.0 requires ")]
    missing = [line for line in lines if not line.endswith(" requires hf-xet, which is not installed.")]
    assert missing in ([], ["No broken requirements found."])


@pytest.mark.skipif(sys.platform != "linux", reason="asks ldd which shared libraries the image must have")
def test_no_shared_library_is_needed_that_a_slim_image_lacks(home: Path) -> None:
    missing: dict[str, str] = {}
    # Some wheels' libraries find each other only once an extension module, which knows their folder, has loaded them.
    binaries = [path for path in (home / ".venv").rglob("*.so*") if path.is_file()]
    brought = {path.name for path in binaries}
    for binary in [path for path in binaries if not path.name.startswith(NEVER_LOADED)]:
        listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
        for name, found in re.findall(r"^\s*(\S+) => (.*?)(?: \(0x[0-9a-f]+\))?$", listed, re.MULTILINE):
            is_there = found.startswith(str(home)) or name in brought
            if not is_there and Path(name).name.partition(".so")[0] not in OF_A_SLIM_IMAGE:
                missing[name] = str(binary)
    assert not missing


def predict(server: Server, entries: Any, **parts: Any) -> dict[str, Any]:
    response = httpx.post(server.url + "/predict", content=multipart(entries, **parts), headers=HEADERS, timeout=120)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def people() -> bytes:
    """Return InsightFace's own test picture: six people."""
    spec = importlib.util.find_spec("insightface")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "data/images/t1.jpg").read_bytes()


def test_the_bento_reads_text_and_finds_faces_and_embeds(server: Server) -> None:
    page = mixed_pages()[0]
    assert character_accuracy(predict(server, ocr(), image=page.data)["ocr"]["text"], page.lines) >= 0.95
    assert len(predict(server, faces(min_score=0.5), image=people())["facial-recognition"]) == 6
    for answer in (predict(server, clip_visual(), image=people()), predict(server, clip_textual(), text="雪地里的狗")):
        assert len(json.loads(answer["clip"])) == 512


def test_the_processes_run_what_the_bento_holds(server: Server, bento: Path, home: Path) -> None:
    workers = [*server.workers("PictureRunner"), *server.workers("immich_bento")]
    assert [Path(process.cwd()) for process in workers] == [bento / "src"] * 2
    assert all(process.exe() == os.path.realpath(home / ".venv/bin/python") for process in server.processes())


def test_the_images_health_check_passes_on_a_running_service_and_fails_on_none(
    server: Server, dockerfile: Dockerfile, home: Path
) -> None:
    command = dockerfile.one("HEALTHCHECK").partition(" CMD ")[2]
    path = f"{home / '.venv/bin'}:/usr/bin:/bin"
    for port, expected in ((server.port, True), (9, False)):
        environment = quiet_environment(PATH=path, IMMICH_PORT=str(port), HTTP_PROXY="http://127.0.0.1:9")
        assert (
            subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False).returncode == 0
        ) is expected


def test_in_a_container_too_a_runner_that_dies_comes_back(server: Server) -> None:
    (victim,) = server.workers("PictureRunner")
    victim.kill()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.process is not None
        assert server.process.poll() is None, server.log
        try:
            response = httpx.post(
                server.url + "/predict", content=multipart(faces(), image=people()), headers=HEADERS, timeout=20
            )
        except httpx.TransportError:
            continue
        if response.status_code == 200:
            break
        time.sleep(0.5)
    else:
        raise AssertionError(server.log)
    (back,) = server.workers("PictureRunner")
    assert back.pid != victim.pid
