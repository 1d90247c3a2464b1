"""The service is restarted behind a proxy that holds requests meanwhile, as a container is behind compose's Caddy."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.test_proxy import CADDY, caddy_version
from tests.e2e.losses import lost_while
from tools.harness.holding_proxy import held
from tools.harness.immich_client import clip_textual, clip_visual, faces, multipart
from tools.harness.rendered import jpeg, page
from tools.harness.server import ROOT, Server, free_port
from tools.harness.tiny_clip import tiny_clip_folder

CADDYFILE = ROOT / "deploy" / "caddy" / "Caddyfile"
PICTURE = jpeg(page(["restart"], size=(320, 240)))
BODIES = (
    multipart(clip_visual(), image=PICTURE),
    multipart(clip_textual(), text="dog"),
    multipart(faces("buffalo_s"), image=PICTURE),
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    tiny_clip_folder(tmp_path / "models/clip/ViT-B-16")
    with Server(tmp_path, {"CLIP_MODEL": "ViT-B-16", "TRUSTED_PROXIES": "127.0.0.1"}) as running:
        yield running


@contextlib.contextmanager
def caddy(url: str, folder: Path) -> Iterator[str]:
    """Caddy before ``url``, as compose.yaml has it before the service."""
    port = free_port()
    file = folder / "Caddyfile"
    # An older Caddy does not know how to be told whose addresses to believe, which does not matter here.
    text = re.sub(r"\n\tservers \{.*?\n\t\}", "", CADDYFILE.read_text(), flags=re.S)
    text = text.replace("immich-bento:3003", url.removeprefix("http://"))
    text = text.replace("\n:2283 {", f"\nhttp://127.0.0.1:{free_port()} {{")
    file.write_text(text.replace("\n:3003 {", f"\nhttp://127.0.0.1:{port} {{"))
    command = (CADDY, "run", "--adapter", "caddyfile", "--config", file)
    with subprocess.Popen(command, env={"HOME": str(folder), "PATH": os.environ["PATH"]}) as run:
        try:
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/ping", timeout=5).text == "pong":
                        break
                assert time.monotonic() < deadline, "Caddy does not answer"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            run.terminate()


def restart(server: Server, times: int) -> None:
    for _ in range(times):
        time.sleep(1)
        assert server.process is not None
        server.terminate()
        server.process.wait(30)
        server.spawn()
        server.wait_until_ready()


def test_a_restart_behind_a_proxy_that_holds_loses_no_request(server: Server) -> None:
    with held(server.url) as url:
        made, failed = lost_while(url, lambda: restart(server, 1), bodies=BODIES)
    assert failed == []
    assert made >= 8  # one of each caller


def test_a_restart_breaks_no_connection_that_was_made(server: Server) -> None:
    """Without a proxy those alone are lost that are refused a connection while nobody listens."""
    made, failed = lost_while(server.url, lambda: restart(server, 4), bodies=BODIES)
    assert [error for error in failed if "Connection refused" not in error] == []
    assert made - len(failed) > 8


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(CADDY) is None or caddy_version() < (2, 11, 2),
    reason="Caddy is not installed, or closes a body at the first refused connection, as it does before 2.11.2",
)
def test_twenty_restarts_behind_caddy_lose_no_request(server: Server, tmp_path: Path) -> None:
    with caddy(server.url, tmp_path) as url:
        made, failed = lost_while(url, lambda: restart(server, 20), bodies=BODIES)
    print(f"20 restarts behind Caddy: {len(failed)} of {made} requests lost: {failed}")  # noqa: T201
    assert failed == []
