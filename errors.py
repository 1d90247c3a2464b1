"""Errors as a caller sees them: one code, one HTTP status, one sentence.

``ServiceError``                      anything that this service answers on purpose
 +-- ``ModelUnavailable``             the weights of a known model cannot be had right now
 +-- ``ModelOnItsWay``                they are being fetched or converted; ask again when they are here

Raise ``ServiceError(code, message)`` with a message that says what happened, to which input, and what to do.
"""

from __future__ import annotations

from enum import Enum


class ErrorCode(str, Enum):
    """Stable names of what went wrong, each with the HTTP status that it is answered with."""

    _value_: str
    status: int
    retry_after: int | None
    """Seconds for ``Retry-After``, or None where trying again unchanged would not help."""

    def __new__(cls, value: str, status: int = 500, retry_after: int | None = None) -> ErrorCode:
        """Return the member of the name ``value``."""
        code = str.__new__(cls, value)
        code._value_, code.status, code.retry_after = value, status, retry_after
        return code

    NOT_FOUND = "not_found", 404
    METHOD_NOT_ALLOWED = "method_not_allowed", 405
    INVALID_REQUEST = "invalid_request", 422
    UNKNOWN_TASK = "unknown_task", 422
    UNKNOWN_MODEL = "unknown_model", 422
    SIZE_MISMATCH = "size_mismatch", 422
    MISSING_INPUT = "missing_input", 400
    MISSING_DETECTION = "missing_detection", 400
    BODY_TOO_LARGE = "body_too_large", 413
    BODY_TIMEOUT = "body_timeout", 408
    PICTURE_TOO_LARGE = "picture_too_large", 413
    UNREADABLE_PICTURE = "unreadable_picture", 415
    MODEL_UNAVAILABLE = "model_unavailable", 503, 30
    MODEL_ON_ITS_WAY = "model_on_its_way", 503, 30
    RUNNER_UNAVAILABLE = "runner_unavailable", 503, 5
    QUEUE_FULL = "queue_full", 503, 5
    TIMEOUT = "timeout", 504
    UNAUTHORIZED = "unauthorized", 401
    KEY_NOT_SET = "key_not_set", 403
    FORBIDDEN = "forbidden", 403
    FOREIGN_SITE = "foreign_site", 403
    TOO_MANY_ATTEMPTS = "too_many_attempts", 429
    UPSTREAM_UNAVAILABLE = "upstream_unavailable", 502
    UPSTREAM_TIMEOUT = "upstream_timeout", 504
    INVALID_QUERY = "invalid_query", 422
    UNKNOWN_ASSET = "unknown_asset", 404
    STORED_MODEL_DIFFERS = "stored_model_differs", 409
    SEARCH_UNAVAILABLE = "search_unavailable", 503, 5
    IMMICH_UNAVAILABLE = "immich_unavailable", 502
    INTERNAL = "internal", 500


class ServiceError(Exception):
    """An error that the caller is told about, with its code and a sentence for a person."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        # It may quote names that somebody else chose: halves of surrogate pairs are no text, and cannot be sent.
        message = message.encode(errors="replace").decode()
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class ModelUnavailable(ServiceError):
    """A known model whose weights cannot be had now: no network, wrong digest, truncated file."""

    def __init__(self, message: str, *, details: str = "") -> None:
        """``details``: what the log and the command line say after ``message``, such as where was looked."""
        super().__init__(ErrorCode.MODEL_UNAVAILABLE, message)
        self.details = details.encode(errors="replace").decode()

    def __str__(self) -> str:
        return f"{self.message} {self.details}".rstrip()


class ModelOnItsWay(ServiceError):
    """A model whose files are being fetched, converted or checked now."""

    def __init__(self, task: str, model: str, message: str) -> None:
        """``task``: a runner's name. ``model``: the catalog's name."""
        super().__init__(ErrorCode.MODEL_ON_ITS_WAY, message)
        self.task, self.model = task, model


def forget_frames(error: BaseException) -> None:
    """Remove the tracebacks of ``error`` and of all errors that it was raised from.

    A traceback holds every frame that the error passed, and a frame whatever its variables name, such as a picture.
    Call this once an error is dealt with: where something keeps the error, or is in a cycle with it, the frames go all
    the same.
    """
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = None
        pending += [one.__cause__, one.__context__]
