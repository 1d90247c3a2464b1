"""``python -m tools.fuzz NAME``: atheris makes up bytes for one of ``targets.TARGETS``; for ``api``, schemathesis makes
up requests for a service that is started.

What is found is written to ``tests/seeds/NAME``, which the tests replay: mend it, and commit the seed with the mend.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence

from tools.harness.server import ROOT

SEEDS = ROOT / "tests" / "seeds"
WATCHED = {
    "form": ("serving", "python_multipart"),
    "content_type": ("serving", "python_multipart"),
    "entries": ("compat", "json"),
    "query": ("search",),
    "header": ("runners", "PIL"),
}
"""Target -> the packages whose code is watched: bytes that make it take another way are kept and built on."""
_CORPUS = ROOT / ".fuzz"
"""Inputs that are kept and built on, from one run to the next."""


def fuzz(name: str, seconds: int) -> None:
    """Fuzz the target ``name`` for so many ``seconds``. Does not return: the fuzzer ends the process, with a status
    other than 0 where something was found.
    """
    import atheris  # of the extra `fuzz`

    with atheris.instrument_imports(include=list(WATCHED[name])):
        from tools.fuzz.targets import TARGETS, checked  # only now, so that they are watched

    target = TARGETS[name]
    corpus, seeds = _CORPUS / name, SEEDS / name
    for folder in (corpus, seeds):
        folder.mkdir(parents=True, exist_ok=True)

    def run(data: bytes) -> None:
        try:
            checked(target, data)
        except BaseException:
            (seeds / f"found-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)
            raise

    limits = [f"-max_total_time={seconds}", f"-max_len={target.longest_input}", "-timeout=60", "-rss_limit_mb=4000"]
    atheris.Setup([sys.argv[0], str(corpus), str(seeds), *limits, "-print_final_stats=1"], run)
    atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=[*WATCHED, "api"])
    parser.add_argument("--seconds", type=int, default=600, help="how long (600)")
    options = parser.parse_args(arguments)
    if options.name == "api":
        from tools.fuzz.api import fuzz_api

        return fuzz_api(options.seconds)
    fuzz(options.name, options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
