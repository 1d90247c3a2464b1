"""The demo, ``make demo``: start the service, index sample pictures, search five times, and leave it running.

``make demo-stop`` ends it.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tools.demo.pictures import make
from tools.demo.service import FOLDER, ROOT, DemoFailed, Running, running, start, stop, wait_until_ready

_SHOWN = 3
"""Hits of each search in the table."""


@dataclass(frozen=True, slots=True)
class Search:
    """One of the five searches."""

    query: str
    mode: str
    shows: str


SEARCHES = (
    Search("ocr:发票", "auto", "invoice, in print"),
    Search("ocr:鸭", "auto", "one character: duck"),
    Search("ocr:RE16 电阻", "auto", "part number, resistor"),
    Search("雨伞", "clip", "umbrella, by meaning"),
    Search("苹果", "auto", "apple, both ways"),
)


def main(arguments: list[str]) -> int:
    console = Console()
    try:
        if arguments == ["stop"]:
            console.print(
                f"The demo is stopped; what it made is in {_short(FOLDER)}." if stop() else "The demo does not run."
            )
            return 0
        if arguments:
            console.print("usage: python -m tools.demo [stop]")
            return 2
        return _show(console)
    except DemoFailed as error:
        console.print(Text(str(error)))
        return 1


def _show(console: Console) -> int:
    service = running()
    if service is None:
        console.print(
            "Starting the service. The first time it makes a database; half a minute on a small machine ...",
            soft_wrap=True,
        )
        service = start()
    else:
        wait_until_ready(service)
        console.print(f"The demo's service runs already, on {service.url}.")
    console.print(
        f"{make(service.pictures)} sample pictures are in {_short(service.pictures)}. Indexing those that are new ..."
    )
    _index(service)
    console.print(_searched(service))
    console.print(Text(_where(service)), soft_wrap=True)
    return 0


def _index(service: Running) -> None:
    """Index the sample pictures. Raise ``DemoFailed`` if the command fails."""
    command = (sys.executable, "-m", "search", "index", str(service.pictures), "--url", service.url)
    if subprocess.run(command, cwd=ROOT, env=dict(service.environment()), check=False).returncode != 0:
        raise DemoFailed(f"The pictures could not be indexed. The service's log is {service.log}.")


def _searched(service: Running) -> Table:
    """Search, and return a table with a row for each hit. Raise ``DemoFailed`` if a search fails."""
    table = Table(
        "query",
        Column("found, best first", no_wrap=True),
        "score",
        "because",
        title="Five searches",
        title_justify="left",
    )
    with httpx.Client(base_url=service.url, headers={"api-key": service.key}, timeout=60, trust_env=False) as client:
        for search in SEARCHES:
            answer = client.get("/search", params={"q": search.query, "mode": search.mode, "limit": _SHOWN})
            if answer.status_code != 200:
                raise DemoFailed(f"The search for {search.query} failed: {answer.text}")
            hits = answer.json()["hits"]
            query = Text.assemble((search.query, "bold"), "\n", (search.shows, "dim"))
            if not hits:
                table.add_row(query, "nothing")
            for number, hit in enumerate(hits):
                table.add_row(query if number == 0 else "", hit["name"], f"{hit['score']:.3f}", Text(_why(hit)))
            table.add_section()
    return table


def _why(hit: dict[str, Any]) -> str:
    parts = [line["text"] for line in hit["lines"][:2]]
    if hit["clip"]:
        parts.append(f"similarity {hit['clip']['similarity']:.2f}")
    return "; ".join(parts)


def _where(service: Running) -> str:
    return (
        f"The service goes on at {service.url}, with the key {service.key}. Ask it yourself:\n\n"
        f"  curl -G -H 'api-key: {service.key}' --data-urlencode 'q=ocr:发票' {service.url}/search\n\n"
        "Drawings are found by meaning because the model that comes along, cn-clip-tiny, knows emoji and not photos; "
        "docs/models.md has\n"
        f"better ones. `make demo-stop` ends it. Its files, the log among them, are in {_short(FOLDER)}."
    )


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
