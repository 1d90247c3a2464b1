"""``python -m tools.image``: build the container image. ``make image`` and ``make image-cuda`` call it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tools.image.build import BACKENDS, LOCKS, NAME, NotBuilt, build, find_backend, how_to_run


def main(arguments: Sequence[str] | None = None) -> int:
    """Build one image; return 0, or 1 where it was not built."""
    parser = argparse.ArgumentParser(prog="python -m tools.image", description="Build the container image.")
    parser.add_argument("--variant", choices=list(LOCKS), default="cpu", help="cuda: for NVIDIA GPUs (default: cpu)")
    parser.add_argument(
        "--backend", choices=[*BACKENDS, "buildx"], help="what builds it (default: the first that is here)"
    )
    parser.add_argument("--name", default=NAME, help="of the image, with its registry (default: immich-bento)")
    options, extra = parser.parse_known_args(arguments)
    try:
        backend = options.backend or find_backend()
        tag = build(options.variant, backend, name=options.name, extra=extra)
    except NotBuilt as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    print(how_to_run(tag, backend))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
