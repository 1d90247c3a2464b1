"""Compare two Immich-compatible servers, or measure one: throughput, latency, failures, CPU and memory by task.

The two are loaded in turns (A B A B …) in one run; figures are medians over the rounds, ratios medians of the rounds'
own ratios. Closed loop by default (--concurrency callers, each waiting for its answer); --open sends at a fixed mean
rate, and counts latency from when a request was due, so that a server that stalls cannot slow its own test down
("coordinated omission"). CPU and memory (PSS) are summed over all processes of a server; they are found by the
listening port, or given by --pid and --peer-pid. Each server is asked for one model name after the other until it
answers; the peer may be Immich's own (docs/performance-peer.md). Where there is one, answers are compared too.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

from tools.bench import agreement, contenders
from tools.bench.chart import bar_chart
from tools.bench.figures import Figures, measured, median, medians, ratios
from tools.bench.generator import Extent, closed_loop, open_loop
from tools.bench.processes import tree_of
from tools.bench.report import Cell, Table, progress
from tools.bench.target import CANDIDATES, Target, find_names, memory_table, names_table, sizes
from tools.bench.workload import TASKS, bodies

COLUMNS = (
    "requests/s",
    "p50, ms",
    "p95, ms",
    "p99, ms",
    "requests",
    "failures",
    "CPU, ms per request",
    "system, ms per request",
    "PSS, MB",
    "generator's CPU, %",
)
"""Titles of the fields of ``Figures``, in order."""


@dataclass(frozen=True, slots=True)
class Loading:
    """Load of every task: callers or rate, and seconds."""

    extent: Extent
    callers: int = 1
    """Of the closed loop."""
    rate: float | None = None
    """Requests per second of the open loop; None: closed loop."""
    poisson: bool = True

    @property
    def label(self) -> str:
        return str(self.callers) if self.rate is None else f"{self.rate:g}/s"


Rounds = Mapping[str, Sequence[Figures]]
"""Figures of each round, by the name of the server; ours first."""


def add_options(parser: argparse.ArgumentParser) -> None:
    contenders.add_our_options(parser)
    parser.add_argument(
        "--url", help="the server to measure, http://host:port (default: start this service, with --models and --env)"
    )
    parser.add_argument("--peer", help="another Immich-compatible server to alternate with")
    parser.add_argument(
        "--tasks", type=_tasks, default=list(TASKS), help=f"comma separated, of {','.join(TASKS)} (all)"
    )
    parser.add_argument(
        "--concurrency", type=_numbers, default=[1, 4, 16], help="closed-loop callers, comma separated (1,4,16)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="alternations (5)")
    parser.add_argument(
        "--seconds", type=float, default=5, help="of load per round, and to the end of the pictures' turn (5)"
    )
    parser.add_argument("--requests", type=int, help="requests per round, in place of --seconds")
    parser.add_argument(
        "--open", type=float, metavar="RATE", help="open loop: requests per second, in place of --concurrency"
    )
    parser.add_argument(
        "--fixed", action="store_true", help="open loop: evenly spaced requests in place of Poisson arrivals"
    )
    parser.add_argument("--pid", type=int, help="first process of --url, where its port does not tell (a container)")
    parser.add_argument("--peer-pid", type=int, help="first process of --peer")
    parser.add_argument(
        "--rest", type=float, default=13, help="seconds after which memory is looked at again, at rest (13)"
    )
    for field, names in CANDIDATES.items():
        parser.add_argument(
            f"--{field}-model",
            type=_names,
            default=names,
            metavar="NAME,…",
            help=f"names to ask each server for, in turn until it answers ({','.join(names)})",
        )
    parser.add_argument("--plot", type=Path, help="write a chart to this SVG file")


def run(options: argparse.Namespace) -> list[Table]:
    with _ours(options) as ours:
        targets = [_with_names(ours, options)]
        if options.peer:
            peer = Target("peer", options.peer, tree_of(options.peer, options.peer_pid))
            targets.append(_with_names(peer, options))
        return _measured(targets, options)


@contextmanager
def _ours(options: argparse.Namespace) -> Iterator[Target]:
    """Yield the server of --url; this service, started for as long, where there is none."""
    if options.url:
        yield Target("ours", options.url, tree_of(options.url, options.pid))
        return
    with contenders.ours(options) as started:
        yield started


def _with_names(target: Target, options: argparse.Namespace) -> Target:
    candidates = {field: getattr(options, f"{field}_model") for field in CANDIDATES}
    return replace(target, names=find_names(target.url, options.tasks, candidates))


def _measured(targets: Sequence[Target], options: argparse.Namespace) -> list[Table]:
    memory = {"all models loaded, at rest": sizes(targets, options.rest)}
    found = [names_table(targets)]
    if len(targets) == 2:
        found += agreement.measure(targets[0], targets[1], options.tasks, square=True)[0]
    extent = Extent(options.seconds, options.requests)
    loadings = (
        [Loading(extent, callers=callers) for callers in options.concurrency]
        if options.open is None
        else [Loading(extent, rate=options.open, poisson=not options.fixed)]
    )
    results: dict[tuple[str, str], Rounds] = {}
    for task in options.tasks:
        results |= compare(task, targets, loadings, rounds=options.rounds)
    # Of each server right after its own last load: while the other one is loaded, the first may already rest.
    last = list(results.values())[-1]
    memory["after the loads"] = [last[target.name][-1].pss for target in targets]
    memory["the same, at rest"] = sizes(targets, options.rest)
    if options.plot:
        options.plot.write_text(plot(results))
    return [*found, *tables(results), memory_table(memory)]


def compare(
    task: str, targets: Sequence[Target], loadings: Sequence[Loading], *, rounds: int
) -> dict[tuple[str, str], Rounds]:
    """Return the figures by (task, load), after each server has answered every body once.

    Those first answers load the models and meet every shape. Raise ``RuntimeError`` if one of them is not a 200.
    """
    requests = {target.name: bodies(task, target.names) for target in targets}
    for target in targets:
        warm_up(target, requests[target.name])
    results: dict[tuple[str, str], Rounds] = {}
    for loading in loadings:
        found: dict[str, list[Figures]] = {target.name: [] for target in targets}
        for number in range(rounds):
            for target in targets:
                found[target.name].append(one_round(target, requests[target.name], loading, seed=number))
        results[task, loading.label] = found
        progress(
            f"{task}, load {loading.label}: "
            + ", ".join(f"{name} {medians(done).per_second:.3g}/s" for name, done in found.items())
        )
    return results


def warm_up(target: Target, requests: Sequence[bytes]) -> None:
    """Send each of ``requests`` once. Raise ``RuntimeError`` if one is not answered with 200."""
    load = asyncio.run(closed_loop(target.url, requests, callers=1, extent=Extent(requests=len(requests))))
    if load.failures:
        raise RuntimeError(f"{target.url} does not answer what is measured: {load.failures[0]}")


def one_round(target: Target, requests: Sequence[bytes], loading: Loading, *, seed: int = 0) -> Figures:
    """Run one load on one server."""
    if loading.rate is None:
        run_load = partial(closed_loop, target.url, requests, callers=loading.callers, extent=loading.extent)
    else:
        run_load = partial(
            open_loop,
            target.url,
            requests,
            rate=loading.rate,
            extent=loading.extent,
            poisson=loading.poisson,
            seed=seed,
        )
    return measured(run_load, target.tree)[1]


def tables(results: Mapping[tuple[str, str], Rounds]) -> list[Table]:
    """Return the medians, the ratios if there is a peer, and (in JSON alone) every round."""
    head = ("task", "load", "server")
    every = [(*key, name, rounds) for key, found in results.items() for name, rounds in found.items()]
    found = [
        Table(
            "Medians of the rounds",
            (*head, *COLUMNS),
            tuple((task, load, name, *_cells(medians(rounds))) for task, load, name, rounds in every),
            "load: closed-loop callers, or requests per second of an open loop. requests, failures: of all rounds.",
        )
    ]
    compared = {key: tuple(by_server.values()) for key, by_server in results.items() if len(by_server) == 2}
    if compared:
        found.append(ratio_table(compared))
    detail = tuple(
        (task, load, name, at + 1, *_cells(one)) for task, load, name, rounds in every for at, one in enumerate(rounds)
    )
    return [*found, Table("Every round", (*head, "round", *COLUMNS), detail, detail=True)]


def ratio_table(compared: Mapping[tuple[str, str], Sequence[Sequence[Figures]]]) -> Table:
    """Return ours divided by the peer's; ``compared`` has the rounds of both by (task, load)."""
    rows: list[tuple[Cell, ...]] = []
    for key, (ours, peer) in compared.items():
        faster = ratios(ours, peer, "per_second")
        spread = f"{min(faster):.2f} to {max(faster):.2f}" if faster else "-"
        rows.append(
            (
                *key,
                median(faster),
                spread,
                *(median(ratios(ours, peer, name)) for name in ("p50", "p95", "p99", "cpu", "pss")),
            )
        )
    columns = ("task", "load", "throughput", "of the rounds", "p50", "p95", "p99", "CPU per request", "PSS")
    return Table(
        "Ours / peer",
        columns,
        tuple(rows),
        "Medians of the rounds' ratios. Throughput: more is better; the rest: less.",
    )


def plot(results: Mapping[tuple[str, str], Rounds]) -> str:
    """Return an SVG of the throughput by task and load, as multiples of the peer's if there is one."""
    labels = [f"{task} {load}" for task, load in results]
    servers = [list(found.values()) for found in results.values()]
    if all(len(rounds) == 2 for rounds in servers):
        values = [median(ratios(ours, peer, "per_second")) for ours, peer in servers]
        series = {"ours": [0.0 if math.isnan(value) else value for value in values], "peer": [1.0] * len(values)}
        return bar_chart("Throughput, peer = 1", "task and load; medians of the rounds' ratios", series, labels)
    return bar_chart(
        "Throughput",
        "requests per second, by task and load",
        {"ours": [medians(s[0]).per_second for s in servers]},
        labels,
    )


def _cells(figures: Figures) -> tuple[Cell, ...]:
    return tuple(int(value) if name in ("requests", "failures") else value for name, value in _named(figures))


def _named(figures: Figures) -> list[tuple[str, float]]:
    return [(field.name, getattr(figures, field.name)) for field in fields(figures)]


def _names(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError("callers are counted from 1")
    return numbers


def _tasks(text: str) -> list[str]:
    unknown = [name for name in text.split(",") if name not in TASKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: known are {', '.join(TASKS)}")
    return text.split(",")
