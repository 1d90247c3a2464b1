"""Imported before openvino, for what it looks at when it is loaded."""

from __future__ import annotations

import os
import sys

# Importing openvino sends an event to Google Analytics unless its telemetry package is missing. It is, as far as
# openvino can see.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: importing it raises ImportError
# oneDNN's own cache of 1024 compiled primitives outlives the models: 161 MB stayed after OCR detection was unloaded,
# with this 91.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
