"""The ranges of values in recognisers of text, by which they are computed in int8; measured beforehand.

``python -m tools.quantize.ranges`` measures those in ``ranges.json``. A graph of other bytes has none, and is computed
as all others are. So are detectors: in int8 their boxes move, and a line more in 270 was missed on turned pages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.digest import digest_of

if TYPE_CHECKING:
    from runners.engine.int8 import Ranges

MEASURED = Path(__file__).with_name("ranges.json")


def ranges_of(graph: Path) -> Ranges | None:
    """Return what was measured of the graph with these bytes; None where nothing was. Raises ``OSError``."""
    size = graph.stat().st_size
    if all(size != one["bytes"] for one in _measured().values()):  # a file that is large takes long to digest
        return None
    found = _measured().get(str(digest_of(graph, "sha256")))
    return None if found is None else {layer: (least, largest) for layer, (least, largest) in found["ranges"].items()}


@lru_cache(maxsize=1)
def _measured() -> Mapping[str, Any]:
    measured: Mapping[str, Any] = json.loads(MEASURED.read_text(encoding="utf-8"))
    return measured
