"""Answers of another Immich ML server, told apart: what was asked for, an error that is the client's, one that is
that server's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import orjson

from compat.upstream.client import Reply
from errors import ErrorCode, ServiceError
from models.catalog import ModelKind

_CODE_BY_STATUS = {
    400: ErrorCode.MISSING_INPUT,
    413: ErrorCode.BODY_TOO_LARGE,
    415: ErrorCode.UNREADABLE_PICTURE,
    422: ErrorCode.INVALID_REQUEST,
}
"""Statuses that are about the request and passed on, and the code that goes with each where the upstream does not name
one.
"""
_LONGEST_DETAIL = 1000


def judge(upstream: str, reply: Reply, tasks: Collection[str]) -> dict[str, Any]:
    """Return the answers to ``tasks`` (``clip``, …) by key, without the picture's size.

    Raises ``ServiceError``: the upstream's own error where that is about the request (400, 413, 415, 422);
    UPSTREAM_UNAVAILABLE for any other status, and for an answer that is not what was asked for.
    """
    if reply.status in _CODE_BY_STATUS:
        raise _about_the_request(upstream, reply)
    if reply.status != 200:
        raise _unavailable(f"The upstream {upstream} answered {reply.status}{_hint(reply)}")
    try:
        answer = orjson.loads(reply.body)
    except ValueError:
        raise _unavailable(
            f"The upstream {upstream} answered something that is not JSON. Is it an Immich ML server?"
        ) from None
    if not isinstance(answer, dict):
        raise _unavailable(f"The upstream {upstream} answered JSON, but no object. Is it an Immich ML server?")
    for task in tasks:
        if not _CHECKS[task](answer.get(task)):
            raise _unavailable(
                f"The upstream {upstream} gave no valid answer to {task}. Is it an Immich ML server that knows this "
                "task?"
            )
    kept = (
        {*tasks, "result"} if isinstance(answer.get(ModelKind.OCR.value), str) else set(tasks)
    )  # "result": the older OCR dialect
    return {key: value for key, value in answer.items() if key in kept}


def _unavailable(message: str) -> ServiceError:
    return ServiceError(ErrorCode.UPSTREAM_UNAVAILABLE, message)


def _about_the_request(upstream: str, reply: Reply) -> ServiceError:
    error = _error_object(reply)
    try:
        code = ErrorCode(str(error.get("code")))  # another server of this kind
    except ValueError:
        code = _CODE_BY_STATUS[reply.status]
    if code.status != reply.status:
        code = _CODE_BY_STATUS[reply.status]
    return ServiceError(code, _detail(error) or f"The upstream {upstream} refused the request with {reply.status}.")


def _hint(reply: Reply) -> str:
    if reply.status in (401, 403):
        return ": it does not accept this gateway. Set UPSTREAM_HEADER to a header that it accepts."
    if reply.status in (404, 405) or 300 <= reply.status < 400:
        return " to POST /predict. Is its address in IMMICH_API right?"
    detail = _detail(_error_object(reply))
    return f": {detail}" if detail else ", an error of its own. Its log may have the details."


def _error_object(reply: Reply) -> Mapping[str, Any]:
    try:
        error = orjson.loads(reply.body)
    except ValueError:
        return {}
    return error if isinstance(error, dict) else {}


def _detail(error: Mapping[str, Any]) -> str:
    """Return ``detail`` as one printable line: Immich's own server answers a list of objects where pydantic refused
    something.
    """
    detail = error.get("detail", "")
    text = detail if isinstance(detail, str) else orjson.dumps(detail).decode()
    return "".join(character if character.isprintable() else " " for character in text)[:_LONGEST_DETAIL].strip()


def _is_vector(value: object) -> bool:
    """Return whether ``value`` is a string that holds a JSON array of numbers, as Immich hands it to PostgreSQL."""
    if not isinstance(value, str) or not value.startswith("["):
        return False
    try:
        numbers = orjson.loads(value)  # refuses NaN and Infinity
    except ValueError:
        return False
    return bool(numbers) and _are_numbers(numbers)


def _are_numbers(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, float | int) and math.isfinite(value) for value in values)


def _are_faces(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(face, dict)
        and isinstance(box := face.get("boundingBox"), dict)
        and _are_numbers([box.get(corner) for corner in ("x1", "y1", "x2", "y2")])
        and _is_vector(face.get("embedding"))
        and _are_numbers([face.get("score")])
        for face in value
    )


def _is_text(value: object) -> bool:
    if isinstance(value, str):  # the older dialect
        return True
    if not isinstance(value, dict):
        return False
    texts, boxes = value.get("text"), value.get("box")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or not isinstance(boxes, list):
        return False
    scores = [value.get("boxScore"), value.get("textScore")]
    return (
        _are_numbers(boxes)
        and len(boxes) == 8 * len(texts)
        and all(isinstance(score, list) and _are_numbers(score) and len(score) == len(texts) for score in scores)
    )


_CHECKS: dict[str, Callable[[object], bool]] = {
    ModelKind.CLIP.value: _is_vector,
    ModelKind.FACES.value: _are_faces,
    ModelKind.OCR.value: _is_text,
}
