"""``python -m tools.soak``: eight good callers beside each hostile client in turn, while workers are killed and the
database and the service are restarted.

``--json FILE`` keeps what was seen, and ``--plot FILE`` draws it; ``--from FILE`` draws what was kept before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.bench.report import progress
from tools.harness.holding_proxy import held
from tools.harness.hostile import HOSTILE, attacked
from tools.harness.open_folder import open_folder
from tools.harness.pings import Pings
from tools.harness.rendered import mixed_pages
from tools.harness.server import BUNDLED_MODELS, ROOT, Server, free_port
from tools.soak.chart import plot
from tools.soak.events import Service, carry_out, schedule
from tools.soak.record import Record, Stage, summary
from tools.soak.traffic import callers, warmed_up

NOBODY = "nobody"
_STAGES = (NOBODY, *HOSTILE, NOBODY)
"""Hostile clients in turn."""
_MEMORY_EVERY = 5.0
"""Seconds."""


@contextlib.contextmanager
def started(key: str) -> Iterator[Service]:
    """Start the service, with pictures to search for; end it, and remove everything, after the block."""
    with open_folder() as folder:
        port = free_port()
        environment = {
            **BUNDLED_MODELS,
            "IMMICH_PORT": str(port),
            "API_AUTH_KEY": key,
            "SEARCH_ENABLED": "true",
            "SEARCH_FOLDER": str(folder / "search"),
            "OFFLINE": "true",
            "IMMICH_LOG_LEVEL": "warning",
        }
        with Server(folder, environment, port=port) as server:
            _index(folder / "pictures", environment)
            yield Service(server, folder / "search/postgresql")


def _index(folder: Path, environment: Mapping[str, str]) -> None:
    folder.mkdir()
    for one in mixed_pages():
        (folder / f"{one.name}.jpg").write_bytes(one.data)
    command = (sys.executable, "-m", "search", "index", str(folder), "--no-progress")
    subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=True, capture_output=True)


async def soak(service: Service, url: str, key: str, seconds: float) -> Record:
    """Load the service at ``url`` for so many ``seconds``, kill and restart it meanwhile; return what was seen.

    The time begins when all models are loaded.
    """
    await warmed_up(url, key)
    record, began = Record(), time.monotonic()
    due = schedule(seconds, calm=seconds / len(_STAGES))

    def now() -> float:
        return time.monotonic() - began

    end = asyncio.Event()
    with Pings(service.server.url, every=0.05) as pings:
        asking = asyncio.create_task(callers(url, key, record.requests.append, now, end))
        weighing = asyncio.create_task(_weigh(service, record, now, end))
        acting = asyncio.create_task(carry_out(service, key, due, record.events.append, now))
        await _attack(service.server.url, seconds, record, now)
        await acting
        end.set()
        await asyncio.gather(asking, weighing)
    record.pings = [(at - began, taken) for at, taken in pings.answered]
    return record


async def _attack(url: str, seconds: float, record: Record, now: Callable[[], float]) -> None:
    """Have each hostile client at work in turn, with a time without any at the beginning and at the end."""
    for place, name in enumerate(_STAGES, start=1):
        begins, ends = now(), seconds * place / len(_STAGES)
        progress(f"{begins:.0f} s: beside {name}")
        with attacked(url, name) if name != NOBODY else contextlib.nullcontext():
            await asyncio.sleep(max(0.0, ends - now()))
        record.stages.append(Stage(name, begins, now()))


async def _weigh(service: Service, record: Record, now: Callable[[], float], until: asyncio.Event) -> None:
    while not until.is_set():
        at = now()
        record.memory.append((at, *await asyncio.to_thread(service.memory)))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(until.wait(), _MEMORY_EVERY)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 if a request was lost while nothing was done to the service."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600, help="how long (3600)")
    parser.add_argument("--no-proxy", action="store_true", help="ask the service itself, which is away while restarted")
    parser.add_argument("--json", metavar="FILE", help="write what was seen")
    parser.add_argument("--plot", metavar="FILE", help="draw it, as SVG")
    parser.add_argument("--from", dest="kept", metavar="FILE", help="run nothing, and take what was seen from FILE")
    options = parser.parse_args(arguments)
    if options.kept:
        seen = json.loads(Path(options.kept).read_text())
    else:
        key = secrets.token_hex(8)
        with started(key) as service:
            url = service.server.url
            with contextlib.nullcontext(url) if options.no_proxy else held(url) as asked:
                record = asyncio.run(soak(service, asked, key, options.seconds))
        seen = summary(record, "none" if options.no_proxy else "one that holds requests for 60 s")
    if options.json:
        Path(options.json).write_text(json.dumps(seen, ensure_ascii=False, indent=1) + "\n")
    if options.plot:
        Path(options.plot).write_text(plot(seen))
    tell(seen)
    return int(any(one["during"] == "nothing" for one in seen["lost"]))


def tell(seen: Mapping[str, Any]) -> None:
    """Print the figures."""
    lines = [f"{seen['requests']} good requests in {seen['seconds']} s, {len(seen['lost'])} lost"]
    lines += [
        f"  lost at {one['at']} s, during: {one['during']}: {one['kind']}, {one['error']}" for one in seen["lost"]
    ]
    lines.append(f"pings, ms: {seen['ping_ms']}; PSS, MB: {seen['memory_mb']}")
    lines += [f"  {one['at']:.0f} s {one['what']}: no ping for {one['gap']} s at most" for one in seen["events"]]
    for stage in seen["stages"]:
        waits = {kind: (one["p50"], one["worst"]) for kind, one in stage["wait_s"].items() if one}
        lines.append(f"beside {stage['hostile']}: pings {stage['ping_ms']}; s, median and worst: {waits}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # what was started is ended then
    sys.exit(main())
