"""Everything that this project promises about speed and memory, in one run against ``tools/bench/reference.py``.

Starts ours and the peer with the same weights and alternates between them: CLIP, text, faces and OCR with 1, 4 and 16
callers; whether the answers agree; text queries during bulk work; memory; start; transport; and how throughput grows
(--skip leaves parts out). Ends with the targets and what was found. Takes 20 to 25 minutes on two cores, on a machine
that does nothing else. ``make bench`` runs it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from tools.bench import agreement, compare, contenders, interactive, memory, scaling, start, transport
from tools.bench.compare import Loading, Rounds
from tools.bench.figures import median, ratios, system_share
from tools.bench.generator import Extent
from tools.bench.report import Table, progress
from tools.bench.target import Target
from tools.bench.verdicts import Verdict, at_least, at_most, verdict_table
from tools.bench.weights import weights

TASKS = ("clip", "text", "face", "ocr")
PARTS = ("interactive", "memory", "start", "transport", "scaling")
INT8 = {"PRECISION": "int8"}
_FASTER = {"clip": ("CLIP image", 2.2), "face": ("faces", 2.0), "ocr": ("OCR", 2.0)}
_INT8_FASTER = 3.2
_SOONER = {"clip": ("CLIP image", 0.6), "text": ("CLIP text", 0.5)}
_NAMES = {"clip": "CLIP image", "text": "CLIP text", "face": "faces", "ocr": "OCR"}
_SYSTEM_SHARE = 0.05

Results = dict[tuple[str, str], Rounds]


def add_options(parser: argparse.ArgumentParser) -> None:
    contenders.add_server_options(parser)
    parser.add_argument("--seconds", type=float, default=3, help="of load per round (3)")
    parser.add_argument("--requests", type=int, help="requests per round, in place of --seconds")
    parser.add_argument("--rounds", type=int, default=5, help="alternations (5)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16], help="closed-loop callers (1 4 16)")
    parser.add_argument(
        "--int8", action="store_true", help="measure CLIP in int8 too (python -m tools.quantize must have made it)"
    )
    parser.add_argument(
        "--soak",
        type=int,
        default=300,
        help="OCR and as many face requests of mixed sizes (300; the docs' figure: 2000)",
    )
    parser.add_argument("--skip", nargs="+", choices=PARTS, default=[], help="leave parts out")
    parser.add_argument("--plots", type=Path, help="write the charts into this folder")


def run(options: argparse.Namespace) -> list[Table]:
    if options.plots:
        options.plots.mkdir(parents=True, exist_ok=True)
    note = Table(
        "Weights", ("", ""), (("CLIP", weights(options.models).note), ("faces", "buffalo_s"), ("OCR", "PP-OCRv6_small"))
    )
    tables, verdicts = _side_by_side(options)
    parts: dict[str, Callable[[argparse.Namespace], tuple[list[Table], list[Verdict]]]] = {
        "memory": memory.measure,
        "start": start.measure,
        "transport": lambda chosen: (transport.run(chosen), []),
        "scaling": lambda chosen: (scaling.run(chosen), []),
    }
    for name, measure in parts.items():
        if name not in options.skip:
            progress(name)
            more, due = measure(_options_of(name, options))
            tables, verdicts = [*tables, *more], [*verdicts, *due]
    return [note, *tables, verdict_table(verdicts)]


def _side_by_side(options: argparse.Namespace) -> tuple[list[Table], list[Verdict]]:
    """Run what needs both servers at once."""
    loadings = [Loading(Extent(options.seconds, options.requests), callers=callers) for callers in options.concurrency]
    results: Results = {}
    with contenders.peer(options) as peer:
        with contenders.ours(options) as ours:
            for task in TASKS:
                results |= compare.compare(task, [ours, peer], loadings, rounds=options.rounds)
            tables, verdicts = agreement.measure(ours, peer)
            if "interactive" not in options.skip:
                progress("interactive")
                more, due = interactive.measure([ours], _options_of("interactive", options))
                tables, verdicts = [*tables, *more], [*verdicts, *due]
        if options.int8:
            more, due = _int8(peer, options, [loading for loading in loadings if loading.callers > 1])
            tables, verdicts = [*tables, *more], [*verdicts, *due]
    if options.plots:
        (options.plots / "throughput.svg").write_text(compare.plot(results))
    return [*compare.tables(results), *tables], [*speed_verdicts(results), *verdicts]


def speed_verdicts(results: Mapping[tuple[str, str], Rounds]) -> list[Verdict]:
    """Hold throughput with several callers, p50 of a single one, and the kernel's part of the CPU to the targets."""
    verdicts = []
    for (task, load), rounds in results.items():
        ours, peer = rounds.values()
        what = f"{_NAMES[task]}, {load} callers: system time / CPU"
        verdicts.append(at_most(what, system_share(ours), _SYSTEM_SHARE))
        if load == "1" and task in _SOONER:
            name, limit = _SOONER[task]
            verdicts.append(at_most(f"{name}, 1 caller: p50 / peer's", median(ratios(ours, peer, "p50")), limit))
        elif load != "1" and task in _FASTER:
            name, limit = _FASTER[task]
            verdicts.append(
                at_least(
                    f"{name}, {load} callers: throughput / peer's", median(ratios(ours, peer, "per_second")), limit
                )
            )
    return verdicts


def _int8(peer: Target, options: argparse.Namespace, loadings: list[Loading]) -> tuple[list[Table], list[Verdict]]:
    """Measure CLIP of pictures in int8 against the peer's fp32."""
    with contenders.ours(options, INT8) as ours:
        results = compare.compare("clip", [ours, peer], loadings, rounds=options.rounds)
        cosine = agreement.image_cosines(ours, peer)
    verdicts = []
    for (_, load), (mine, theirs) in {key: tuple(rounds.values()) for key, rounds in results.items()}.items():
        found = median(ratios(mine, theirs, "per_second"))
        verdicts.append(at_least(f"CLIP image, int8, {load} callers: throughput / peer's", found, _INT8_FASTER))
    rows = (("least", f"{cosine.min():.5f}"), ("mean", f"{cosine.mean():.5f}"))
    agreed = Table("CLIP image in int8: cosine to the peer's fp32", ("", "cosine"), rows)
    return [*compare.tables({("clip int8", load): rounds for (_, load), rounds in results.items()}), agreed], verdicts


def _options_of(name: str, options: argparse.Namespace) -> argparse.Namespace:
    """Return the options of another benchmark: its defaults, with this run's servers.

    Counts are such that they fit into this run's time.
    """
    module = {"interactive": interactive, "memory": memory, "start": start, "transport": transport, "scaling": scaling}[
        name
    ]
    parser = argparse.ArgumentParser()
    module.add_options(parser)
    chosen = parser.parse_args([])
    for shared in ("models", "env", "no_arena"):
        if hasattr(chosen, shared):
            setattr(chosen, shared, getattr(options, shared))
    if name == "memory":
        chosen.requests = options.soak
    if name in ("memory", "scaling") and options.plots:
        chosen.plot = options.plots / f"{name}.svg"
    if name in ("interactive", "start"):
        chosen.rounds = 2
    if name == "transport":
        chosen.rounds, chosen.requests = 5, 30
    if name == "scaling":
        chosen.seconds = options.seconds
    return chosen
