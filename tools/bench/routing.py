"""The time that the gateway adds to a request that it passes on: the same one of 400 kB, through it and directly.

Two instances of this service, the second, with a tiny CLIP, behind the first. One caller, the two ways in turns in one
run. The gateway's part: to receive and take apart the body, to look at the picture's header, to send it on, and to
check the answer.
"""

from __future__ import annotations

import argparse

from tools.bench.load import Connection
from tools.bench.pictures import photo_of
from tools.bench.report import Table
from tools.bench.running import service
from tools.bench.turns import alternate, median_difference, percentiles
from tools.harness.immich_client import clip_visual, multipart

TARGET_MS = 5


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10, help="alternations (10)")
    parser.add_argument("--requests", type=int, default=50, help="requests of each kind per round (50)")
    parser.add_argument("--kb", type=int, default=400, help="size of the picture in kB (400)")


def run(options: argparse.Namespace) -> list[Table]:
    picture = photo_of(options.kb * 1000)
    body = multipart(clip_visual(), image=picture)
    with (
        service() as upstream,
        service({"IMMICH_API": upstream.url, "ROUTE_CLIP": "upstream"}) as gateway,
        Connection(upstream.url) as direct,
        Connection(gateway.url) as routed,
    ):
        ways = {"asked directly": lambda: direct.predict(body), "through the gateway": lambda: routed.predict(body)}
        timings = alternate(ways, rounds=options.rounds, requests=options.requests)
    directly, through = timings.values()
    added = median_difference(through, directly)
    return [
        Table(
            f"A picture of {len(picture) / 1000:.0f} kB, one caller",
            ("", "p50, ms", "p95, ms"),
            tuple((name, *figures) for name, figures in percentiles(timings).items()),
            f"The gateway adds {added:.2f} ms at the median (of the differences of {options.rounds} rounds' medians). "
            f"Target: less than {TARGET_MS} ms: {'met' if added < TARGET_MS else 'NOT MET'}.",
        )
    ]
