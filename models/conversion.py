"""Runs a conversion in a process of its own, so that its memory and its libraries are gone afterwards.

The child gets one JSON object on standard input and writes one JSON object per line to standard output. It ends when
its standard input does, and thus with the process that started it, however that ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.entry import ModelEntry, ModelKind

_ROOT = Path(__file__).resolve().parents[1]


class ConversionFailed(Exception):
    """No model was made of a checkpoint; the message says why, for a person."""


def run_conversion(
    checkpoint: Path, folder: Path, vocabulary: Path, entry: ModelEntry, report: Callable[[str, float], None]
) -> tuple[float, float]:
    """Convert ``checkpoint`` to ``folder`` and return the least cosines of pictures and texts to the checkpoint's
    vectors.

    ``report`` is told what is done next and which share of the whole, 0 to 1, is done. Raises ``ConversionFailed``
    where ``models.convert.convert`` refuses, and where the process was killed; ``OSError``.
    """
    order = {
        "checkpoint": str(checkpoint.absolute()),
        "folder": str(folder.absolute()),
        "vocabulary": str(vocabulary.absolute()),
        "name": entry.name,
        "embedding_size": entry.embedding_size,
        "input_size": entry.input_size,
    }
    command = [sys.executable, "-m", "models.conversion"]
    answer: dict[str, Any] = {}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, text=True) as child:  # noqa: S603
        if child.stdin is None or child.stdout is None:
            raise AssertionError
        child.stdin.write(json.dumps(order) + "\n")
        child.stdin.flush()
        for line in child.stdout:
            answer = json.loads(line)
            if "step" in answer:
                report(answer["step"], answer["share"])
    if "cosines" in answer:
        return answer["cosines"][0], answer["cosines"][1]
    if "refused" in answer:
        raise ConversionFailed(answer["refused"])
    if "errno" in answer:
        raise OSError(answer["errno"], answer["error"])
    raise ConversionFailed(f"The conversion of {checkpoint} {_end(child.returncode)}")


def _end(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, as the kernel does when memory runs out. Give this machine or container more memory"
    return f"ended with {code} and no result; its standard error says why"


def main() -> int:
    """Do what standard input orders."""
    from models.convert import ConversionRefused, convert

    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    entry = ModelEntry(
        name=order["name"],
        task=ModelKind.CLIP,
        family="cn-clip",
        embedding_size=order["embedding_size"],
        input_size=order["input_size"],
        files=(),
        licence="",
        advice="",
        without_download="",
    )
    try:
        done = convert(
            Path(order["checkpoint"]),
            Path(order["folder"]),
            vocabulary=Path(order["vocabulary"]),
            entry=entry,
            report=lambda step, share: _say(step=step, share=share),
        )
    except ConversionRefused as error:
        _say(refused=str(error))
    except OSError as error:
        _say(errno=error.errno or 0, error=str(error))
    else:
        _say(cosines=[done.image_cosine, done.text_cosine])
    return 0


def _say(**answer: object) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
