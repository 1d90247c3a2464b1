"""Pictures made on the spot, and scripts in a process of their own, for the tests of ``runners.pictures.decode``."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MANY = 100_000_000
"""Pixels: more than any picture of these tests has."""
WIDTH, HEIGHT = 60, 40
ROOT = Path(__file__).parents[3]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Return a picture whose red grows to the right and green downwards; blue is 64."""
    red = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    green = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    return Image.fromarray(np.stack([red, green, np.full((height, width), 64)], axis=2).round().astype(np.uint8))


def python(script: str, *paths: Path) -> str:
    """Return what ``script`` prints, run in a new process."""
    command = [sys.executable, "-c", script, *map(str, paths)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
