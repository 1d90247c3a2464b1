"""Runs a conversion in a process of its own, so that its memory and its libraries are gone afterwards.

The child gets one JSON object as its argument and writes one JSON object per line to what was its standard output when
it began; whatever libraries print goes to standard error. It ends when its standard input does, and thus with the
process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.entry import ModelEntry, ModelKind

log = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[1]


class ConversionFailed(Exception):
    """No model was made of a checkpoint; the message says why, for a person."""


class CheckpointRefused(ConversionFailed):
    """The file is no checkpoint that a model can be made of."""


def run_conversion(
    checkpoint: Path, folder: Path, vocabulary: Path, entry: ModelEntry, report: Callable[[str, float], None]
) -> tuple[float, float]:
    """Convert ``checkpoint`` to ``folder`` and return the least cosines of pictures and texts to the checkpoint's
    vectors.

    ``report`` is told what is done next and which share of the whole, 0 to 1, is done. Raises ``CheckpointRefused``
    where ``models.convert.convert`` refuses, ``ConversionFailed`` where the process was killed or could not be started,
    ``OSError`` where the disk refuses.
    """
    order = {
        "checkpoint": str(checkpoint.absolute()),
        "folder": str(folder.absolute()),
        "vocabulary": str(vocabulary.absolute()),
        "name": entry.name,
        "embedding_size": entry.embedding_size,
        "input_size": entry.input_size,
    }
    command = [sys.executable, "-m", "models.conversion", json.dumps(order)]
    answer: dict[str, Any] = {}
    pipe = subprocess.PIPE
    try:
        child = subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, text=True, errors="replace")  # noqa: S603
    except OSError as error:
        raise ConversionFailed(f"No process could be started for the conversion of {checkpoint}: {error}") from error
    with child:
        if child.stdout is None:
            raise AssertionError
        for line in child.stdout:
            said = _object(line)
            answer = said or answer
            if "step" in said:
                report(said["step"], said["share"])
    if "cosines" in answer:
        return answer["cosines"][0], answer["cosines"][1]
    if "refused" in answer:
        raise CheckpointRefused(answer["refused"])
    if "errno" in answer:
        raise OSError(answer["errno"], answer["error"])
    raise ConversionFailed(f"The conversion of {checkpoint} {_end(child.returncode)}")


def _object(line: str) -> dict[str, Any]:
    """Return what the child says in ``line``; an empty object where it is something else, which the log is told."""
    with contextlib.suppress(ValueError, RecursionError):
        said: dict[str, Any] = json.loads(line)
        match said:
            case (
                {"step": str(), "share": int() | float()}
                | {"cosines": [int() | float(), int() | float()]}
                | {"refused": str()}
                | {"errno": int(), "error": str()}
            ):
                return said
    log.warning("The conversion printed: %s", line.rstrip()[:200])
    return {}


def _end(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, as the kernel does when memory runs out. Give this machine or container more memory"
    return f"ended with {code} and no result; its standard error says why"


def main() -> int:
    """Do what the argument orders."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(OSError):  # no Linux. Where memory runs out, the kernel ends this process, not the service
        Path("/proc/self/oom_score_adj").write_text("1000")
    from models.convert import ConversionRefused, convert

    def say(**answer: object) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    order = json.loads(sys.argv[1])
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
            report=lambda step, share: say(step=step, share=share),
        )
    except ConversionRefused as error:
        say(refused=str(error))
    except MemoryError:
        say(refused=f"{order['checkpoint']} was not converted: it takes more memory than there is.")
    except OSError as error:
        say(errno=error.errno or 0, error=str(error))
    else:
        say(cosines=[done.image_cosine, done.text_cosine])
    return 0


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
