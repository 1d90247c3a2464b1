"""What importing the service may not load: it would be kept in memory by every process, and lengthen each start."""

from __future__ import annotations

import subprocess
import sys

from tools.harness.server import ROOT

LARGE = ("fastapi", "psycopg", "onnx", "onnxruntime", "openvino", "cv2", "huggingface_hub", "jieba", "torch")


def test_importing_the_service_loads_no_large_package() -> None:
    script = f"import sys, service; print([name for name in {LARGE!r} if name in sys.modules])"
    done = subprocess.run((sys.executable, "-c", script), cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
