"""This service on an NVIDIA GPU against itself on the processor: equal answers, throughput of all tasks, memory.

Both have the same weights; the processor computes in fp32. ``tools/bench/gpu.sh`` installs what is needed on a machine
with a GPU and runs this within eight minutes. "ours" is the GPU, "peer" the processor.
"""

from __future__ import annotations

import argparse
import subprocess

from tools.bench import agreement, compare, contenders
from tools.bench.compare import Loading, Rounds
from tools.bench.generator import Extent
from tools.bench.report import Table, progress
from tools.bench.verdicts import verdict_table
from tools.bench.weights import weights

TASKS = ("clip", "text", "face", "ocr")
NVIDIA_SMI = "nvidia-smi"
ON_GPU = {"DEVICE": "cuda"}
ON_CPU = {"DEVICE": "cpu", "PRECISION": "fp32"}


def add_options(parser: argparse.ArgumentParser) -> None:
    contenders.add_server_options(parser)
    parser.add_argument("--seconds", type=float, default=4, help="of load per round (4)")
    parser.add_argument("--requests", type=int, help="requests per round, in place of --seconds")
    parser.add_argument("--rounds", type=int, default=1, help="alternations (1)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16], help="closed-loop callers (1 16)")


def run(options: argparse.Namespace) -> list[Table]:
    card, before = asked_of_driver("name"), float(asked_of_driver("memory.used"))
    loadings = [Loading(Extent(options.seconds, options.requests), callers=n) for n in options.concurrency]
    results: dict[tuple[str, str], Rounds] = {}
    with contenders.ours(options, ON_CPU) as cpu, contenders.ours(options, ON_GPU) as gpu:
        progress(f"answers of {card} and of the processor")
        tables, verdicts = agreement.measure(gpu, cpu, same_text=True)
        for task in TASKS:
            results |= compare.compare(task, [gpu, cpu], loadings, rounds=options.rounds)
        used = float(asked_of_driver("memory.used")) - before
        held = [target.tree.pss() if target.tree else float("nan") for target in (gpu, cpu)]
    machine = Table(
        "GPU",
        ("", ""),
        (
            ("card", card),
            ("driver", asked_of_driver("driver_version")),
            ("memory of the card, MiB", asked_of_driver("memory.total")),
            ("of it in use after the loads, less what was before, MiB", used),
            ("PSS of all processes with the GPU, MB", held[0]),
            ("PSS of all processes without, MB", held[1]),
            ("CLIP", weights(options.models).note),
        ),
    )
    return [machine, *tables, *compare.tables(results), verdict_table(verdicts)]


def asked_of_driver(what: str) -> str:
    """Return a property of the first GPU, as ``nvidia-smi --help-query-gpu`` lists them; memory in MiB.

    Raise ``RuntimeError`` if there is no driver, or no GPU.
    """
    command = (NVIDIA_SMI, f"--query-gpu={what}", "--format=csv,noheader,nounits")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"No NVIDIA GPU can be used here: {error}. Run this on a machine that has one.") from error
    if not answer or not answer[0].strip():
        raise RuntimeError("No NVIDIA GPU can be used here: nvidia-smi lists none. Run this on a machine that has one.")
    return answer[0].strip()
