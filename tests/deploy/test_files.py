"""Every file of deploy/ is read by a test; those that no other test reads are read here."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.deploy.test_compose import DEPLOY, services
from tests.test_packaging import pins
from tools.harness.server import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

READ_BY = {
    "kubernetes/": "tests/deploy/test_kubernetes.py",
    "proxy/": "tests/deploy/test_proxy.py",
    "caddy/Caddyfile": "tests/deploy/test_compose.py",
    "monitoring/alerts.yml": "tests/deploy/test_compose.py",
    "monitoring/prometheus.yml": "tests/deploy/test_compose.py",
    "monitoring/grafana/dashboards/": "tests/deploy/test_compose.py",
    "monitoring/grafana/provisioning/": "tests/deploy/test_files.py",
    "database/Dockerfile": "tests/deploy/test_files.py",
    "uv-cuda.toml": "tests/deploy/test_files.py",
    "compose": "tests/deploy/test_compose.py",
    ".env.example": "tests/deploy/test_compose.py",
    "trim.py": "tests/deploy/test_trim.py",
    "Dockerfile.j2": "tests/e2e/test_bento.py",
}
"""Beginning of paths below deploy/ -> the test that reads them."""


def files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "deploy"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is no clone of the repository")
    return [path.removeprefix("deploy/") for path in listed.stdout.splitlines()]


def test_every_file_is_read_by_a_test() -> None:
    assert [path for path in files() if not path.startswith(tuple(READ_BY))] == []
    assert [begin for begin in READ_BY if not any(path.startswith(begin) for path in files())] == []
    assert [test for test in READ_BY.values() if not (ROOT / test).is_file()] == []


def provisioned(kind: str) -> dict[str, Any]:
    (path,) = (DEPLOY / "monitoring/grafana/provisioning" / kind).glob("*.yml")
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def test_grafana_finds_prometheus_and_our_dashboard() -> None:
    running = services("compose.yaml")
    (source,) = provisioned("datasources")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert running["prometheus"]["ports"][0].endswith(":9090")
    (provider,) = provisioned("dashboards")["providers"]
    mounts = dict(volume.removesuffix(":ro").split(":")[::-1] for volume in running["grafana"]["volumes"])
    assert mounts[provider["options"]["path"]] == "./monitoring/grafana/dashboards"
    (dashboard,) = (DEPLOY / "monitoring/grafana/dashboards").glob("*.json")
    assert set(re.findall(r'"uid": "([^"]+)"', dashboard.read_text())) >= {source["uid"]}


def test_the_database_with_zhparser_is_built_on_the_one_that_runs_without_it() -> None:
    dockerfile = (DEPLOY / "database/Dockerfile").read_text(encoding="utf-8")
    running = services("compose.yaml")
    (base,) = re.findall(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    assert base == running["database"]["image"]
    assert running["database-zhparser"]["build"]["args"] == {"BASE": base}
    assert re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert "COPY --from=built /built/ /" in dockerfile
    assert "DESTDIR=/built" in dockerfile


def test_the_lock_for_gpus_has_one_runtime_and_else_what_the_lock_has() -> None:
    excluded = tomllib.loads((DEPLOY / "uv-cuda.toml").read_text())["override-dependencies"]
    gpu = {pin.name: pin for pin in pins("requirements-cuda.lock")}
    for entry in excluded:
        name, _, marker = entry.partition("; ")
        assert marker == "python_version < '3'", "never"
        assert name not in gpu
    assert "onnxruntime-gpu" in gpu
    assert {name for name in gpu if name.startswith("nvidia-cudnn")}
    here = {pin.name: str(pin.specifier) for pin in pins("requirements.lock") if pin.marker is None}
    assert {name for name in gpu if name in here and str(gpu[name].specifier) != here[name]} == set()
