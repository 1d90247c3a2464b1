"""A service with URL_KEY: what answers, and that neither log nor metrics tell the key."""

from __future__ import annotations

from pathlib import Path

import httpx

from tools.harness.server import Server

KEY = "correct-horse-battery"


def test_immichs_paths_are_behind_the_key_and_nothing_tells_it(tmp_path: Path) -> None:
    with (
        Server(tmp_path, {"URL_KEY": KEY, "CLIP_MODEL": "tiny"}) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        expected = {f"/{KEY}/ping": 200, f"/{KEY}/": 200, "/livez": 200, "/ping": 404, "/": 404, f"/{KEY}/predict": 405}
        assert {path: client.get(path).status_code for path in expected} == expected
        assert client.post("/predict").status_code == 404
        assert client.post(f"/{KEY}/predict").status_code == 422
        metrics = client.get("/metrics").text
        assert "/ping" in metrics
        assert KEY not in metrics
        assert KEY not in server.log
