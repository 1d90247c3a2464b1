"""Answers in mt-photos-ai's form: numbers as strings of fixed decimals, boxes upright and in pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from runners.contract import Embedding, Faces, TextLines


def ocr_answer(lines: TextLines) -> dict[str, Any]:
    """Return the upright rectangle around each line, with its text and score.

    ``{"result": {"texts": […], "scores": ["0.98"], "boxes": [{"x": "12.00", …}]}}``
    """
    boxes = []
    for corners in lines.boxes:
        (x, y), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        boxes.append({"x": f"{x:.2f}", "y": f"{y:.2f}", "width": f"{right - x:.2f}", "height": f"{bottom - y:.2f}"})
    scores = [f"{score:.2f}" for score in lines.text_scores.tolist()]
    return {"result": {"texts": list(lines.texts), "scores": scores, "boxes": boxes}}


def clip_answer(embedding: Embedding) -> dict[str, Any]:
    """Return ``{"result": ["0.0123456789012345", …]}``."""
    return {"result": [f"{number:.16f}" for number in embedding.vector.tolist()]}


def faces_answer(faces: Faces, model: str) -> dict[str, Any]:
    """Return the faces. ``facial_area``: top left corner, width and height in whole pixels."""
    found = zip(np.round(faces.boxes).astype(int).tolist(), faces.scores, faces.embeddings, strict=True)
    result = [
        {
            "embedding": np.ascontiguousarray(embedding),
            "facial_area": {"x": left, "y": top, "w": right - left, "h": bottom - top},
            "face_confidence": score,
        }
        for (left, top, right, bottom), score, embedding in found
    ]
    return face_models(model) | {"result": result}


def face_models(model: str) -> dict[str, Any]:
    """Return by what faces are found, and by what they are told apart."""
    return {"detector_backend": "insightface", "recognition_model": model}
