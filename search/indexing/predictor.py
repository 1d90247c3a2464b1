"""The service's own ``POST /predict``, asked patiently: pictures are sent again while it is away, and their own errors
are told apart.

The wire format is Immich's: a multipart form with the JSON of the tasks and the picture; a vector comes back as a
string of JSON.
"""

from __future__ import annotations

import asyncio
import io
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import httpx
import numpy as np
import orjson
from PIL import Image

from errors import ErrorCode, ServiceError
from runners.contract import OcrOptions
from search.store.records import Line, Problem, Text, Vector

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
"""Seconds before the first repetition, and at most; each is twice the one before."""
MOST_ATTEMPTS = 6
"""Failures at one picture after which it is the picture's fault, if others, or a plain one, are answered well."""

_PICTURES_OWN = frozenset({400, 413, 415, 422})
CONFIGURATION = frozenset(
    {
        ErrorCode.INVALID_REQUEST.value,
        ErrorCode.UNKNOWN_TASK.value,
        ErrorCode.UNKNOWN_MODEL.value,
        ErrorCode.SIZE_MISMATCH.value,
        ErrorCode.MISSING_DETECTION.value,
        ErrorCode.MISSING_INPUT.value,
    }
)
"""Errors that every picture would meet: recording one for each of a million would help nobody."""
WHOLE_PICTURE = frozenset(
    {ErrorCode.BODY_TOO_LARGE.value, ErrorCode.PICTURE_TOO_LARGE.value, ErrorCode.UNREADABLE_PICTURE.value}
)
"""Errors of the picture, whatever is asked of it."""


class CannotGoOn(Exception):
    """The reason why no picture at all can be done, in a sentence for a person."""


@dataclass(frozen=True, slots=True)
class Computed:
    """The results of one picture."""

    vector: Vector | None = None
    text: Text | None = None
    problems: tuple[Problem, ...] = ()


class _Again(Exception):
    """The service could not answer now."""

    def __init__(self, code: str, message: str, wait: float | None, *, reached: bool) -> None:
        super().__init__(message)
        self.code = code
        self.wait = wait
        self.reached = reached
        """Whether the service got the picture, at least in part."""


class Predictor:
    """One service, asked by many at once."""

    def __init__(self, client: httpx.AsyncClient, *, give_up_after: float = 600.0) -> None:
        """Ask through ``client``, which has the service's address as its base and the key among its headers.

        ``give_up_after``: seconds without any answer after which ``CannotGoOn`` is raised.
        """
        self._client = client
        self._give_up_after = give_up_after
        self._last_answer = time.monotonic()
        self._answers = 0
        self.away_since: float | None = None
        """Since when (monotonic seconds) the service has not answered; None while it does."""

    @property
    def waiting(self) -> str:
        """Return what is waited for, for a person; empty while the service answers."""
        return "" if self.away_since is None else "the service does not answer; waiting for it"

    async def ask(self, picture: bytes, models: Mapping[str, str], options: OcrOptions | None = None) -> Computed:
        """Ask the service for what ``models`` (task, ``clip`` or ``ocr``, to the catalog's name) make of ``picture``.

        A picture's own errors are in the result; of several tasks each is then asked alone, so that one's failure is
        not the other's. Raises ``CannotGoOn``.
        """
        answer = await self._persist(picture, models, options)
        if isinstance(answer, dict):
            try:
                return _understood(answer, models)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise CannotGoOn(
                    f"The service's answer is not that of /predict ({type(error).__name__}: {error})."
                ) from error
        if answer.code in WHOLE_PICTURE or len(models) == 1:
            task = "read" if answer.code in WHOLE_PICTURE else next(iter(models))
            return Computed(problems=(Problem(task, answer.code, answer.message),))  # type: ignore[arg-type]
        parts = [await self.ask(picture, {task: model}, options) for task, model in models.items()]
        return Computed(
            vector=next((part.vector for part in parts if part.vector is not None), None),
            text=next((part.text for part in parts if part.text is not None), None),
            problems=tuple(problem for part in parts for problem in part.problems),
        )

    async def _persist(
        self, picture: bytes, models: Mapping[str, str], options: OcrOptions | None
    ) -> dict[str, Any] | _Own:
        """Send the picture until it is answered, or is found to be at fault for that it is not."""
        files = _form(picture, models, options)
        answers_before, wait, refusals = self._answers, FIRST_WAIT, 0
        while True:
            try:
                return self._answered(await self._once(files))
            except _Again as again:
                error, refusals = again, refusals + again.reached
            while True:
                self.away_since = self.away_since or time.monotonic()
                if refusals >= MOST_ATTEMPTS and (self._answers > answers_before or await self._is_well(models)):
                    self._last_answer, self.away_since = time.monotonic(), None
                    return _Own(error.code, f"The service failed {refusals} times, at this picture alone: {error}")
                if time.monotonic() - max(self._last_answer, self.away_since) > self._give_up_after:
                    raise CannotGoOn(f"The service has not answered for {self._give_up_after:g} s: {error}") from error
                await asyncio.sleep(max(wait, error.wait or 0.0))
                wait = min(2 * wait, LONGEST_WAIT)
                if refusals < MOST_ATTEMPTS:
                    break  # once more; later the service is only asked how it is, as the picture may be what ends it

    def _answered(self, answer: dict[str, Any] | _Own) -> dict[str, Any] | _Own:
        self._last_answer, self.away_since = time.monotonic(), None
        self._answers += 1
        return answer

    async def _is_well(self, models: Mapping[str, str]) -> bool:
        """Return whether the service answers for a picture that nothing is wrong with."""
        try:
            return isinstance(await self._once(_form(_plain_picture(), models, None)), dict)
        except _Again:
            return False

    async def _once(self, files: Mapping[str, Any]) -> dict[str, Any] | _Own:
        """Return the answer, or the picture's own error. Raises ``_Again``, ``CannotGoOn``."""
        try:
            response = await self._client.post("/predict", files=files)
        except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: httpx's for a connection that was closed
            away = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            raise _Again("away", f"{type(error).__name__} {error}".strip(), None, reached=not away) from error
        if response.status_code == 200:
            try:
                answer: dict[str, Any] = orjson.loads(response.content)
            except orjson.JSONDecodeError as error:
                raise CannotGoOn("The service's answer is not JSON: is this address another server's?") from error
            return answer
        code, detail = problem_of(response)
        if response.status_code in (408, 429) or response.status_code >= 500:
            raise _Again(code, detail, _retry_after(response), reached=True)
        if response.status_code in _PICTURES_OWN and code not in CONFIGURATION:
            return _Own(code, detail)
        raise CannotGoOn(f"The service refuses: {detail} ({response.status_code} {code})")


@dataclass(frozen=True, slots=True)
class _Own:
    """An error of the picture itself."""

    code: str
    message: str


class PredictRecompute:
    """``search.indexing.recompute.Recompute`` over ``/predict``, for the command line."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    async def embed(self, picture: bytes, model: str) -> Vector:
        """Return the CLIP vector. Raises ``ServiceError``, ``CannotGoOn``."""
        computed = await self._predictor.ask(picture, {"clip": model})
        return _result(computed.vector, computed)

    async def read(self, picture: bytes, model: str, options: OcrOptions) -> Text:
        """Return the lines of text. Raises ``ServiceError``, ``CannotGoOn``."""
        computed = await self._predictor.ask(picture, {"ocr": model}, options)
        return _result(computed.text, computed)


def problem_of(response: httpx.Response) -> tuple[str, str]:
    """Return the code and sentence of an error's answer."""
    try:
        body = response.json()
        return str(body.get("code", response.status_code)), str(body["detail"])
    except (ValueError, KeyError, AttributeError):
        return str(response.status_code), f"{response.status_code} {response.reason_phrase}"


def _result(result: T | None, computed: Computed) -> T:
    """Return ``result``, or raise what went wrong instead."""
    if result is not None:
        return result
    problem = computed.problems[0]
    known = {code.value: code for code in ErrorCode}
    raise ServiceError(known.get(problem.code, ErrorCode.INTERNAL), problem.message)


def _form(picture: bytes, models: Mapping[str, str], options: OcrOptions | None) -> dict[str, Any]:
    """Return the parts of the form that asks ``models`` for ``picture``."""
    entries = orjson.dumps(_entries(models, options))
    return {"entries": (None, entries), "image": ("blob", picture, "application/octet-stream")}


@lru_cache(maxsize=1)
def _plain_picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(file, "PNG")
    return file.getvalue()


def _entries(models: Mapping[str, str], options: OcrOptions | None) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    if "clip" in models:
        entries["clip"] = {"visual": {"modelName": models["clip"]}}
    if "ocr" in models:
        detection: dict[str, Any] = {"modelName": models["ocr"]}
        recognition = dict(detection)
        if options is not None:
            box = {"minScore": options.min_detection_score, "maxResolution": options.max_resolution}
            detection, recognition = (
                detection | {"options": box},
                recognition | {"options": {"minScore": options.min_recognition_score}},
            )
        entries["ocr"] = {"detection": detection, "recognition": recognition}
    return entries


def _understood(answer: Mapping[str, Any], models: Mapping[str, str]) -> Computed:
    vector = text = None
    if "clip" in models:
        numbers = np.array(orjson.loads(answer["clip"]), np.float32)
        if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
            raise ValueError("a vector of other than finite numbers")
        vector = Vector(models["clip"], numbers)
    if "ocr" in models:
        ocr = answer["ocr"]
        boxes = np.array(ocr["box"], np.float32).reshape(len(ocr["text"]), 8).clip(0, 1).tolist()
        scored = zip(ocr["text"], boxes, ocr["boxScore"], ocr["textScore"], strict=True)
        text = Text(
            models["ocr"], tuple(Line(line, tuple(box), float(one), float(other)) for line, box, one, other in scored)
        )
    return Computed(vector, text)


def _retry_after(response: httpx.Response) -> float | None:
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(seconds, 60.0) if math.isfinite(seconds) and seconds >= 0 else None
