"""schemathesis at a running service: requests that its descriptions allow, and requests that they do not."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.harness.open_folder import open_folder
from tools.harness.server import BUNDLED_MODELS, ROOT, Server, free_port

SEARCH = ROOT / "docs" / "openapi.json"
_EXAMPLES = 10_000
"""Of each operation, far more than there is time for."""


def protocols() -> dict[str, Any]:
    """Return an OpenAPI description of what Immich and MT Photos ask for."""
    picture = {"type": "string", "format": "binary", "maxLength": 20_000}
    text = {"type": "string", "maxLength": 2000}
    answer = {"responses": {"default": {"description": "JSON"}}}

    def form(**parts: Any) -> dict[str, Any]:
        schema = {"type": "object", "properties": parts}
        return {"post": {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}}, **answer}}

    asked = {"type": "object", "properties": {"text": text}}
    return {
        "openapi": "3.0.3",
        "info": {"title": "what clients ask for", "version": "1"},
        "paths": {
            "/predict": form(entries=text, image=picture, text=text),
            "/ocr": form(file=picture),
            "/clip/img": form(file=picture),
            "/represent": form(file=picture),
            "/clip/txt": {"post": {"requestBody": {"content": {"application/json": {"schema": asked}}}, **answer}},
            "/check": {"post": answer},
            "/restart_v2": {"post": answer},
            "/ping": {"get": answer},
            "/": {"get": answer},
            "/upstreams": {"get": answer},
        },
    }


def fuzz_api(seconds: int) -> int:
    """Have schemathesis ask a service for so many ``seconds``, half of them its search and half its protocols.

    Returns 1 where a request was answered 500, or not at all; schemathesis tells which.
    """
    key = secrets.token_hex(8)
    with open_folder() as folder:
        clients = folder / "clients.json"
        clients.write_text(json.dumps(protocols()))
        environment = {
            **BUNDLED_MODELS,
            "API_AUTH_KEY": key,
            "SEARCH_ENABLED": "true",
            "SEARCH_FOLDER": str(folder / "search"),
        }
        with Server(folder, environment, port=free_port()) as server:
            failed = [_asked(document, server.url, key, seconds // 2) for document in (SEARCH, clients)]
            faults = [line for line in server.log.splitlines() if "A request failed." in line or "Traceback" in line]
    sys.stdout.write("\n".join(faults))
    return int(any(failed) or bool(faults))


def _asked(document: Path, url: str, key: str, seconds: int) -> bool:
    """Return whether schemathesis found a fault in what the service at ``url`` makes of ``document``."""
    command = (
        *(sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", url),
        *("--header", f"api-key: {key}", "--checks", "not_a_server_error", "--continue-on-failure"),
        *("--max-examples", str(_EXAMPLES), "--max-time", str(seconds), "--request-timeout", "60"),
        *("--mode", "all", "--no-color"),
    )
    return subprocess.run(command, cwd=ROOT).returncode != 0
