"""The real service with search on: pictures are indexed, found, read again and counted, and everything ends when it is
told to.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.calls import wait_for
from tools.harness.open_folder import open_folder
from tools.harness.rendered import jpeg, page
from tools.harness.server import ROOT, Server

KEY = {"api-key": "s3cret"}
PAGES = {
    "receipt.jpg": ["增值税发票", "合计：128.50元", "编号 RE16-A102"],
    "menu.jpg": ["宫保鸡丁", "酸辣汤", "米饭"],
    "sign.jpg": ["No parking", "Fire exit", "出口"],
}


def environment(folder: Path) -> dict[str, str]:
    return {
        "SEARCH_ENABLED": "true",
        "SEARCH_FOLDER": str(folder / "search"),
        "CLIP_MODEL": "cn-clip-tiny",
        "OCR_MODEL": "PP-OCRv6_small",
        "API_AUTH_KEY": KEY["api-key"],
    }


@pytest.fixture(scope="module")
def searching() -> Iterator[Server]:
    """Yield one service, with three pages indexed by the command line."""
    with open_folder() as folder, Server(folder, environment(folder)) as server:
        pictures = folder / "pictures"
        pictures.mkdir()
        for name, lines in PAGES.items():
            (pictures / name).write_bytes(jpeg(page(lines, size=(640, 360))))
        wait_for_search(server)
        command = [sys.executable, "-m", "search", "index", str(pictures), "--url", server.url, "--no-progress"]
        indexed = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environment(folder)}, capture_output=True, text=True, check=False
        )
        assert indexed.returncode == 0, indexed.stderr
        yield server


def wait_for_search(server: Server, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while httpx.get(server.url + "/stats", headers=KEY).status_code != 200:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.1)


def find(server: Server, query: str, **parameters: str) -> list[str]:
    """Return the names of what is found, best first."""
    response = httpx.get(server.url + "/search", params={"q": query, **parameters}, headers=KEY, timeout=60)
    assert response.status_code == 200, response.text
    assert response.json()["notes"] == []
    return [hit["name"] for hit in response.json()["hits"]]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("ocr:发票", "receipt.jpg"),
        ("OCR：發票", "receipt.jpg"),
        ("ocr:汤", "menu.jpg"),
        ("ocr:re16", "receipt.jpg"),
        ("ocr:ｆｉｒｅ exit", "sign.jpg"),
        ('ocr:"宫保鸡丁"', "menu.jpg"),
    ],
)
def test_text_in_pictures_is_found(searching: Server, query: str, name: str) -> None:
    assert find(searching, query) == [name]


def test_hybrid_puts_what_is_written_first_and_knows_every_picture_by_its_meaning(searching: Server) -> None:
    found = find(searching, "出口")
    assert found[0] == "sign.jpg"
    assert sorted(found) == sorted(PAGES)
    assert sorted(find(searching, "一张纸", mode="clip")) == sorted(PAGES)


def test_the_key_is_asked_for_and_the_description_is_open(searching: Server) -> None:
    assert httpx.get(searching.url + "/search?q=a").status_code == 401
    assert httpx.get(searching.url + "/stats", headers={"api-key": "wrong"}).status_code == 401
    described = httpx.get(searching.url + "/openapi.json")
    assert described.content == (ROOT / "docs/openapi.json").read_bytes()


def test_a_picture_is_read_again_after_its_file_has_changed(searching: Server) -> None:
    with httpx.Client(base_url=searching.url, headers=KEY, timeout=60) as client:
        (hit,) = client.get("/search", params={"q": "ocr:酸辣汤"}).json()["hits"]
        path = searching.folder / "pictures/menu.jpg"
        path.write_bytes(jpeg(page(["番茄炒蛋", "酸辣汤"], size=(640, 360))))
        done = client.post(f"/assets/{hit['id']}/reprocess", json={"tasks": ["ocr", "clip"]})
        assert done.json() == {
            "id": hit["id"],
            "done": ["ocr", "clip"],
            "models": {"ocr": "PP-OCRv6_small", "clip": "cn-clip-tiny"},
            "lines": 2,
        }
        assert client.get(f"/assets/{hit['id']}/ocr").json()["text"] == "番茄炒蛋\n酸辣汤"
    assert find(searching, "ocr:番茄") == ["menu.jpg"]
    assert find(searching, "ocr:宫保") == []


def test_stats_count_what_was_indexed(searching: Server) -> None:
    stats = httpx.get(searching.url + "/stats", headers=KEY).json()
    counted = {name: stats[name] for name in ("source", "assets", "read", "empty", "failed", "waiting", "embedded")}
    assert counted == {
        "source": "standalone",
        "assets": 3,
        "read": 3,
        "empty": 0,
        "failed": 0,
        "waiting": 0,
        "embedded": 3,
    }
    assert stats["models"] == {"clip": "cn-clip-tiny", "ocr": "PP-OCRv6_small"}


def test_a_query_of_ten_thousand_characters_is_refused_by_us(searching: Server) -> None:
    response = httpx.get(searching.url + "/search", params={"q": "a " * 5_000}, headers=KEY)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_query")


def test_what_people_look_for_is_not_logged(searching: Server) -> None:
    find(searching, "ocr:发票")
    assert "发票" not in searching.log
    assert "GET /search" in searching.log


def postmaster(server: Server) -> psutil.Process:
    """Return the embedded PostgreSQL's first process."""
    return psutil.Process(int((server.folder / "search/postgresql/postmaster.pid").read_text().split()[0]))


def test_a_database_that_is_killed_is_back_for_the_next_search(searching: Server) -> None:
    postmaster(searching).kill()
    deadline = time.monotonic() + 30
    statuses = set()
    while (status := httpx.get(searching.url + "/search?q=ocr:exit", headers=KEY, timeout=60).status_code) != 200:
        statuses.add(status)
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert statuses <= {503}
    assert find(searching, "ocr:exit") == ["sign.jpg"]


# Last: this one ends the service.
def test_sigterm_ends_the_embedded_database_too(searching: Server) -> None:
    processes = [*searching.processes(), postmaster(searching)]
    searching.terminate()
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert alive == []
    assert "Traceback" not in searching.log
    assert "database system is shut down" in (searching.folder / "search/postgresql.log").read_text()


def test_sigterm_while_the_database_is_being_set_up_ends_everything() -> None:
    with open_folder() as folder, Server(folder, environment(folder)) as server:
        processes = server.processes()
        assert httpx.get(server.url + "/ping").status_code == 200
        server.terminate()
        _, alive = psutil.wait_procs(processes, timeout=10)
        assert alive == []
        assert [
            one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])
        ] == []


@pytest.mark.slow
def test_several_gateways_share_one_database_and_outlive_one_another() -> None:
    with open_folder() as folder, Server(folder, environment(folder) | {"MACHINE_LEARNING_WORKERS": "2"}) as server:
        wait_for_search(server)
        first, second = server.workers("immich_bento")
        for victim in (first, second):
            victim.kill()
            wait_for(lambda: len(server.workers("immich_bento")) == 2, 60)
        wait_for(lambda: [_stats_status(server) for _ in range(10)] == [200] * 10, 60)
        database = postmaster(server)
        server.terminate()
        _, alive = psutil.wait_procs([database], timeout=15)
        assert alive == []


def _stats_status(server: Server) -> int:
    try:
        return httpx.get(server.url + "/stats", headers=KEY, timeout=10).status_code
    except httpx.TransportError:  # a gateway that was just killed
        return 0
