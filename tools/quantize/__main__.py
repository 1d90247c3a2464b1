"""Make an int8 twin of a CLIP model's image half, for PRECISION=int8.

python -m tools.quantize MODEL --pictures DIR
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from errors import ServiceError
from models.catalog import CatalogError, ModelKind, load_catalog
from settings import Settings
from tools.quantize import QuantizationRefused, quantize


def main() -> int:
    """Run the command and return its exit code: 0 done, 1 refused."""
    parser = argparse.ArgumentParser(prog="python -m tools.quantize", description=__doc__)
    parser.add_argument("name", metavar="MODEL")
    parser.add_argument(
        "--pictures", type=Path, required=True, metavar="DIR", help="pictures like yours, to calibrate on"
    )
    parser.add_argument(
        "--count", type=int, default=300, help="pictures that are used, a fifth of them to measure (300)"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = Settings()
    try:
        entry = load_catalog(settings.model_catalog).find(ModelKind.CLIP, options.name)
        twin, made = quantize(entry, options.pictures, settings, count=options.count)
    except (QuantizationRefused, ServiceError, CatalogError) as error:
        print(error, file=sys.stderr)
        return 1
    measured = (
        f"cosine to fp32 over {made.measured_on} other pictures: mean {made.mean_cosine:.4f}, least "
        f"{made.least_cosine:.4f}"
    )
    print(f"{entry.name}: quantized on {made.calibrated_on} pictures ({twin}); {measured}. PRECISION=int8 uses it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
