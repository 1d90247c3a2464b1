"""Environment that openvino reads while it is imported. Import this module first."""

from __future__ import annotations

import os
import sys

# Importing openvino sends an event to Google Analytics unless its telemetry package is missing: make it look so.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: importing it raises ImportError
# oneDNN's own cache of 1024 compiled primitives outlives the models: after OCR detection was unloaded, 161 MB stayed in
# memory; with 64 primitives 91 MB.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
