"""Results of the models for the documents: lines by the real OCR, vectors by cn-clip-tiny.

They are kept on disk, since reading takes minutes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from errors import ServiceError
from runners.clip import load_clip_image, load_clip_text
from runners.contract import Embedding, Failure, Float32, ImageJob, OcrOptions, TextJob, TextLines
from runners.engine import EnginePlan, Session, open_session
from runners.engine.int8 import Ranges
from runners.ocr import load_ocr
from search.store.records import Line
from tools.bench.search.documents import Document
from tools.bench.search.papers import Paper
from tools.tiny.export import WEIGHTS

CACHE = Path("~/.cache/immich-bento/search-quality").expanduser()
OCR_MODEL, CLIP_MODEL = "PP-OCRv6_small", "cn-clip-tiny"
_OPTIONS = OcrOptions()
"""Immich's defaults."""


def read(documents: Sequence[Document | Paper], cache: Path = CACHE) -> list[tuple[Line, ...]]:
    """Read each document's picture by OCR, and return its lines."""
    model = None
    read_lines = []
    for document in documents:
        data = document.jpeg()
        kept = cache / f"{hashlib.sha256(data).hexdigest()[:32]}.json"
        if not kept.is_file():
            model = model or load_ocr(_ocr_files(), _open, max_pixels=10**8, max_boxes=4000)
            (result,) = model.run([ImageJob(data, OCR_MODEL, _OPTIONS)])
            cache.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(_plain(result, data), ensure_ascii=False))
        read_lines.append(tuple(Line(text, tuple(box), *scores) for text, box, *scores in json.loads(kept.read_text())))
    if model is not None:
        model.close()
    return read_lines


def embed_pictures(pictures: Sequence[bytes]) -> Float32:
    """Return (n, 512) vectors of the pictures."""
    model = load_clip_image("cn-clip", _clip_files(), _open, max_pixels=10**8)
    results = [
        result
        for start in range(0, len(pictures), 64)
        for result in model.run([ImageJob(data, CLIP_MODEL) for data in pictures[start : start + 64]])
    ]
    model.close()
    return _vectors(results)


def embed_texts(texts: Sequence[str]) -> Float32:
    """Return (n, 512) vectors of the texts."""
    model = load_clip_text(CLIP_MODEL, "cn-clip", _clip_files(), _open)
    results = [
        result
        for start in range(0, len(texts), 64)
        for result in model.run([TextJob(text, CLIP_MODEL) for text in texts[start : start + 64]])
    ]
    model.close()
    return _vectors(results)


def _plain(result: object, data: bytes) -> list[list[object]]:
    """Return text, box as eight fractions, box score and text score of each line."""
    if isinstance(result, Failure):
        raise ServiceError(result.code, result.message)
    assert isinstance(result, TextLines)
    with Image.open(io.BytesIO(data)) as picture:
        fractions = result.boxes / np.array(picture.size, np.float32)
    boxes = fractions.clip(0, 1).reshape(-1, 8).tolist()
    scores = zip(result.box_scores.tolist(), result.text_scores.tolist(), strict=True)
    return [[text, box, *pair] for text, box, pair in zip(result.texts, boxes, scores, strict=True)]


def _ocr_files() -> dict[str, Path]:
    spec = find_spec("rapidocr")
    if spec is None or spec.origin is None:
        raise RuntimeError("Reading needs the package rapidocr: pip install rapidocr")
    folder = Path(spec.origin).parent / "models"
    return {
        "detection/model.onnx": folder / "PP-OCRv6_det_small.onnx",
        "recognition/model.onnx": folder / "PP-OCRv6_rec_small.onnx",
    }


def _open(path: Path, *, best_class: bool = False, ranges: Ranges | None = None) -> Session:
    return open_session(path, EnginePlan("cpu", threads=2), best_class=best_class)


def _clip_files() -> dict[str, Path]:
    return {path.relative_to(WEIGHTS).as_posix(): path for path in WEIGHTS.rglob("*") if path.is_file()}


def _vectors(results: Sequence[Embedding | Failure]) -> Float32:
    for result in results:
        if isinstance(result, Failure):
            result.raise_()
    return np.stack([result.vector for result in results if isinstance(result, Embedding)])
