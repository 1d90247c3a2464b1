"""What can go wrong, as a caller sees it: one code, one HTTP status, one sentence.

``ServiceError``                      anything that this service answers on purpose
 +-- ``ModelUnavailable``             the weights of a known model cannot be had right now
 +-- ``ModelOnItsWay``                they are being fetched or converted; ask again when they are here

Raise ``ServiceError(code, message)`` with a message that says what happened, to which input, and what to do.
"""

from __future__ import annotations

from enum import Enum


class ErrorCode(str, Enum):
    """Stable names of what went wrong; ``status`` is the HTTP status that goes with each."""

    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    INVALID_REQUEST = "invalid_request"
    UNKNOWN_TASK = "unknown_task"
    UNKNOWN_MODEL = "unknown_model"
    SIZE_MISMATCH = "size_mismatch"
    MISSING_INPUT = "missing_input"
    MISSING_DETECTION = "missing_detection"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TIMEOUT = "body_timeout"
    PICTURE_TOO_LARGE = "picture_too_large"
    UNREADABLE_PICTURE = "unreadable_picture"
    MODEL_UNAVAILABLE = "model_unavailable"
    MODEL_ON_ITS_WAY = "model_on_its_way"
    RUNNER_UNAVAILABLE = "runner_unavailable"
    QUEUE_FULL = "queue_full"
    TIMEOUT = "timeout"
    UNAUTHORIZED = "unauthorized"
    KEY_NOT_SET = "key_not_set"
    FOREIGN_SITE = "foreign_site"
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    INVALID_QUERY = "invalid_query"
    UNKNOWN_ASSET = "unknown_asset"
    STORED_MODEL_DIFFERS = "stored_model_differs"
    SEARCH_UNAVAILABLE = "search_unavailable"
    IMMICH_UNAVAILABLE = "immich_unavailable"
    INTERNAL = "internal"

    @property
    def status(self) -> int:
        """HTTP status code that this error is answered with."""
        return _STATUS[self]

    @property
    def retry_after(self) -> int | None:
        """Seconds for ``Retry-After``, or None where trying again unchanged would not help."""
        return _RETRY_AFTER.get(self)


_STATUS = {
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.INVALID_REQUEST: 422,
    ErrorCode.UNKNOWN_TASK: 422,
    ErrorCode.UNKNOWN_MODEL: 422,
    ErrorCode.SIZE_MISMATCH: 422,
    ErrorCode.MISSING_INPUT: 400,
    ErrorCode.MISSING_DETECTION: 400,
    ErrorCode.BODY_TOO_LARGE: 413,
    ErrorCode.BODY_TIMEOUT: 408,
    ErrorCode.PICTURE_TOO_LARGE: 413,
    ErrorCode.UNREADABLE_PICTURE: 415,
    ErrorCode.MODEL_UNAVAILABLE: 503,
    ErrorCode.MODEL_ON_ITS_WAY: 503,
    ErrorCode.RUNNER_UNAVAILABLE: 503,
    ErrorCode.QUEUE_FULL: 503,
    ErrorCode.TIMEOUT: 504,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.KEY_NOT_SET: 403,
    ErrorCode.FOREIGN_SITE: 403,
    ErrorCode.UPSTREAM_UNAVAILABLE: 502,
    ErrorCode.UPSTREAM_TIMEOUT: 504,
    ErrorCode.INVALID_QUERY: 422,
    ErrorCode.UNKNOWN_ASSET: 404,
    ErrorCode.STORED_MODEL_DIFFERS: 409,
    ErrorCode.SEARCH_UNAVAILABLE: 503,
    ErrorCode.IMMICH_UNAVAILABLE: 502,
    ErrorCode.INTERNAL: 500,
}

_RETRY_AFTER = {
    ErrorCode.MODEL_UNAVAILABLE: 30,
    ErrorCode.MODEL_ON_ITS_WAY: 30,
    ErrorCode.RUNNER_UNAVAILABLE: 5,
    ErrorCode.QUEUE_FULL: 5,
    ErrorCode.SEARCH_UNAVAILABLE: 5,
}


class ServiceError(Exception):
    """An error that the caller is told about, with its code and a sentence for a person."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class ModelUnavailable(ServiceError):
    """A known model whose weights cannot be had now: no network, wrong digest, truncated file."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.MODEL_UNAVAILABLE, message)

    def __reduce__(self) -> tuple[type[ModelUnavailable], tuple[str]]:
        return type(self), (self.message,)


class ModelOnItsWay(ServiceError):
    """A model whose files are being fetched, converted or checked now."""

    def __init__(self, task: str, model: str, message: str) -> None:
        """``task``: a runner's name. ``model``: the catalog's name."""
        super().__init__(ErrorCode.MODEL_ON_ITS_WAY, message)
        self.task, self.model = task, model

    def __reduce__(self) -> tuple[type[ModelOnItsWay], tuple[str, str, str]]:
        return type(self), (self.task, self.model, self.message)


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
