"""Requests as Immich sends them: the exact bytes of undici's multipart bodies."""

from __future__ import annotations

import json
from typing import Any

BOUNDARY = "----formdata-undici-083612709814"


def multipart(
    entries: Any = None, *, image: bytes | None = None, text: str | None = None, raw_entries: bytes | None = None
) -> bytes:
    """Return the body of one request: ``entries`` first, then the picture or the text."""
    parts: list[tuple[bytes, bytes | None, bytes]] = []
    if raw_entries is None and entries is not None:
        raw_entries = json.dumps(entries, separators=(",", ":")).encode()
    if raw_entries is not None:
        parts.append((b'form-data; name="entries"', None, raw_entries))
    if image is not None:
        parts.append((b'form-data; name="image"; filename="blob"', b"application/octet-stream", image))
    if text is not None:
        parts.append((b'form-data; name="text"', None, text.encode()))
    body = b""
    for disposition, content_type, value in parts:
        body += b"--" + BOUNDARY.encode() + b"\r\nContent-Disposition: " + disposition + b"\r\n"
        body += (b"Content-Type: " + content_type + b"\r\n" if content_type else b"") + b"\r\n" + value + b"\r\n"
    return body + b"--" + BOUNDARY.encode() + b"--\r\n"


HEADERS = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def clip_visual(model: str = "ViT-B-32__openai") -> dict[str, Any]:
    """Return the entries of a CLIP request for a picture."""
    return {"clip": {"visual": {"modelName": model}}}


def clip_textual(model: str = "ViT-B-32__openai", language: str | None = None) -> dict[str, Any]:
    """Return the entries of a CLIP request for a text."""
    return {"clip": {"textual": {"modelName": model, "options": {"language": language} if language else {}}}}


def faces(model: str = "buffalo_s", min_score: float = 0.7) -> dict[str, Any]:
    """Return the entries of a request for faces. ``min_score``: 0 to 1."""
    return {
        "facial-recognition": {
            "detection": {"modelName": model, "options": {"minScore": min_score}},
            "recognition": {"modelName": model},
        }
    }


def ocr(
    model: str = "PP-OCRv6_small", min_detection: float = 0.5, max_resolution: int = 736, min_recognition: float = 0.8
) -> dict[str, Any]:
    """Return the entries of a request for text. Scores: 0 to 1; ``max_resolution``: pixels of the short side."""
    return {
        "ocr": {
            "detection": {"modelName": model, "options": {"minScore": min_detection, "maxResolution": max_resolution}},
            "recognition": {"modelName": model, "options": {"minScore": min_recognition}},
        }
    }
