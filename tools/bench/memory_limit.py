"""Run the image under limits of memory, fresh each time, with callers of all tasks at once: how much does it need?

Each container compiles its models at its first requests, as a user's does. It passes where every request is answered
and the kernel kills nothing. ``make image`` builds the image; takes podman, and a minute and a half a limit.
"""

from __future__ import annotations

import argparse

from tools.bench import container, contenders
from tools.bench.load import closed_loop
from tools.bench.report import Cell, Table, progress
from tools.bench.workload import Names, bodies

_KILLED = "was killed by the kernel"
"""Words of the log for each process that the kernel ends for lack of memory (``runners.bento.deaths``)."""


def add_options(parser: argparse.ArgumentParser) -> None:
    contenders.add_our_options(parser)
    container.add_image_option(parser)
    parser.add_argument("--limits", nargs="+", type=int, default=[1024, 1280, 1536], help="MiB (1024 1280 1536)")
    parser.add_argument("--callers", type=int, default=6, help="closed-loop callers (6)")
    parser.add_argument("--seconds", type=float, default=75, help="of load under each limit (75)")
    parser.add_argument("--clip-model", default=Names().clip, help=f"the name to ask for ({Names().clip})")


def run(options: argparse.Namespace) -> list[Table]:
    """Try each limit. Raise ``RuntimeError`` where podman or the image is not here."""
    container.require_image(options.image)
    clip = contenders.our_settings(options)["CLIP_MODEL"]
    rows = tuple(_row(limit, options) for limit in options.limits)
    columns = ("limit, MiB", "answered", "not answered", "killed by the kernel")
    note = f"CLIP: {clip}. {options.callers} callers, {options.seconds:g} s."
    return [Table("Requests under a limit of memory", columns, rows, note)]


def _row(limit: int, options: argparse.Namespace) -> tuple[Cell, ...]:
    limits = ("--memory", f"{limit}m", "--memory-swap", f"{limit}m")
    mixed = bodies("mixed", Names(clip=options.clip_model))
    # Callers begin at different places, so that all models are asked for at once.
    given = [[*mixed[place:], *mixed[:place]] for place in range(options.callers)]
    with container.container(options, *limits, volume=None) as running:
        try:
            running.wait_until_ready()
        except AssertionError:
            progress(f"{limit} MiB: did not start")
            return limit, 0, "did not start", running.log.count(_KILLED)
        load = closed_loop(running.url, given, options.seconds)
        killed = running.log.count(_KILLED)
    progress(f"{limit} MiB: {len(load.all_latencies)} answered, {len(load.failures)} not, {killed} killed")
    for failure in load.failures[:1]:
        progress(failure[:300])
    return limit, len(load.all_latencies), len(load.failures), killed
