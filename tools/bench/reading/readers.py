"""The readers that are compared, each in a process of its own: ours, RapidOCR with its defaults, the plain reference.

``python -m tools.bench.reading.readers NAME FOLDER`` reads every picture in FOLDER and writes what it says beside it;
what is there already is not read again.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

Read: TypeAlias = "list[tuple[str, list[list[float]]]]"
"""Text and corners of each line, in the reader's order."""
Reader: TypeAlias = Callable[[bytes], Read]

MODEL = "PP-OCRv6_small"


def ours() -> Reader:
    """Return this service's reader, with Immich's options."""
    from models.catalog import ModelKind, load_catalog
    from models.resolve import resolve
    from runners.contract import ImageJob, OcrOptions, TextLines
    from runners.engine import open_session, plan_engine
    from runners.ocr import load_ocr
    from settings import Settings

    config = Settings()
    files = resolve(load_catalog().find(ModelKind.OCR, MODEL), config)
    model = load_ocr(
        files, partial(open_session, plan=plan_engine(config)), max_pixels=10**8, max_boxes=config.ocr_max_boxes
    )

    def read(data: bytes) -> Read:
        (lines,) = model.run([ImageJob(data, MODEL, OcrOptions())])
        assert isinstance(lines, TextLines), lines
        return list(zip(lines.texts, lines.boxes.tolist(), strict=True))

    return read


def rapidocr() -> Reader:
    """Return RapidOCR as it comes."""
    from rapidocr import RapidOCR

    engine = RapidOCR(params={"Global.log_level": "critical"})

    def read(data: bytes) -> Read:
        found = engine(data)
        return [] if found.boxes is None else list(zip(found.txts, found.boxes.tolist(), strict=True))

    return read


def reference() -> Reader:
    """Return the OCR of ``tools.bench.reference``, which is built as Immich's own server is."""
    from settings import Settings
    from tools.bench.reference import Reference

    service = Reference(Settings(OCR_MODEL=MODEL), arena=True)
    asked = {"detection": {"modelName": MODEL, "options": {}}, "recognition": {"modelName": MODEL, "options": {}}}

    def read(data: bytes) -> Read:
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        answer: dict[str, Any] = service.predict("ocr", pixels, asked)
        corners = np.reshape(answer["box"], (-1, 4, 2)) * pixels.shape[1::-1]
        return list(zip(answer["text"], corners.tolist(), strict=True))

    return read


READERS: Mapping[str, Callable[[], Reader]] = {"ours": ours, "RapidOCR": rapidocr, "reference": reference}


def read_folder(name: str, folder: Path) -> None:
    """Read every picture in ``folder`` with the reader ``name``; keep what it says in ``PICTURE.NAME.json``."""
    reader: Reader | None = None
    # The first picture of every kind, then the second: a run that breaks off has some of all.
    for path in sorted(folder.glob("*.picture"), key=lambda path: path.stem.split()[::-1]):
        kept = path.with_suffix(f".{name}.json")
        if not kept.exists():
            reader = reader or READERS[name]()
            told = json.dumps(reader(path.read_bytes()), ensure_ascii=False)
            kept.with_suffix(".partial").write_text(told)
            kept.with_suffix(".partial").replace(kept)


if __name__ == "__main__":
    read_folder(sys.argv[1], Path(sys.argv[2]))
