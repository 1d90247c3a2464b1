"""Answers in Immich's form: vectors as strings of JSON, boxes in pixels or fractions, floats in shortest form."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from runners.contract import Embedding, Faces, TextLines
from runners.pictures.header import Header


def to_json(answer: dict[str, Any]) -> bytes:
    """Return the body of an answer. numpy arrays become lists, float32 in the shortest form that reads back as the same
    float32.
    """
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def vector_text(vector: NDArray[np.float32]) -> str:
    """Return ``"[0.0123,-0.045]"``: Immich passes this string on to PostgreSQL as it is."""
    return orjson.dumps(np.ascontiguousarray(vector), option=orjson.OPT_SERIALIZE_NUMPY).decode()


def clip_answer(embedding: Embedding, header: Header | None) -> dict[str, Any]:
    """Return the vector as a string of JSON."""
    return {"clip": vector_text(embedding.vector)}


def faces_answer(faces: Faces, header: Header | None) -> dict[str, Any]:
    """Return a list of faces. Boxes are rounded to whole pixels, but stay floats, as from Immich's own server."""
    found = zip(np.round(faces.boxes).tolist(), faces.scores, faces.embeddings, strict=True)
    return {
        "facial-recognition": [
            {
                "boundingBox": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
                "embedding": vector_text(embedding),
                "score": score,
            }
            for box, score, embedding in found
        ]
    }


def ocr_answer(lines: TextLines, header: Header) -> dict[str, Any]:
    """Return lists of texts and scores, and corners as fractions of the picture's width and height, eight numbers a
    line in one flat list.
    """
    fractions = lines.boxes / np.array([header.width, header.height], dtype=np.float32)
    return {
        "ocr": {
            "text": list(lines.texts),
            "box": np.ascontiguousarray(fractions.reshape(-1), dtype=np.float32),
            "boxScore": np.ascontiguousarray(lines.box_scores),
            "textScore": np.ascontiguousarray(lines.text_scores),
        }
    }


def old_ocr_answer(lines: TextLines, header: Header | None) -> dict[str, Any]:
    """Return the answer in the dialect of the fork of Immich 1.134: all text in one string, upright boxes in pixels,
    scores as text.
    """
    boxes = [
        dict(zip(("x1", "y1", "x2", "y2"), (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()), strict=True))
        for corners in lines.boxes
    ]
    scores = [f"{score:.2f}" for score in lines.text_scores]
    return {"ocr": " ".join(lines.texts), "result": {"texts": list(lines.texts), "scores": scores, "boxes": boxes}}
