"""Jobs and results as bytes: a JSON header of numbers and strings, and raw bytes. Nothing that is read here runs code.

A job is a header, in ASCII, beside a body that is the picture or the text itself. Results are one body: the length of
their JSON, the JSON, and the numpy arrays that it refers to, each at a multiple of eight bytes. Which dataclass is
made of them is decided by the tasks that this process knows, never by what arrives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from math import prod
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from errors import ErrorCode
from runners.contract import Ask, Failure, PictureJob, Result, TextJob
from runners.task import Task

R = TypeVar("R")

Tasks = Mapping[str, Task[Any]]
"""By their names."""

_DTYPES = frozenset({"|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8"})
_MAX_DIMENSIONS, _MAX_SIZE = 8, 2**31
"""Of an array."""
_STEP = 8


class CodecError(ValueError):
    """A message that is no job or no result of the tasks known here."""


def encode_picture(job: PictureJob) -> tuple[str, bytes]:
    """Return header and body of ``job``."""
    asks = [[ask.task, ask.model, None if ask.options is None else _values(ask.options), ask.cost] for ask in job.asks]
    return json.dumps({"asks": asks, "upright": job.upright}), job.data


def decode_picture(header: str, body: bytes, tasks: Tasks) -> PictureJob:
    """Return the job of ``header`` and ``body``. Raises ``CodecError``."""
    try:
        parts = json.loads(header)
        asks = tuple(
            Ask(_text(name), _text(model), _options(tasks[name], options), float(cost))
            for name, model, options, cost in parts["asks"]
        )
        return PictureJob(body, asks, bool(parts["upright"]))
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise CodecError(f"This is no job of a picture: {error!r}.") from error


def encode_text(job: TextJob) -> tuple[str, bytes]:
    """Return header and body of ``job``."""
    return json.dumps({"model": job.model, "language": job.language}), job.text.encode()


def decode_text(header: str, body: bytes) -> TextJob:
    """Return the job of ``header`` and ``body``. Raises ``CodecError``."""
    try:
        parts = json.loads(header)
        language = parts["language"]
        return TextJob(body.decode(), _text(parts["model"]), None if language is None else _text(language))
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise CodecError(f"This is no job of a text: {error!r}.") from error


def encode_results(results: Mapping[str, Result | Failure]) -> bytes:
    """Return ``results``, by the names of their tasks, as bytes."""
    arrays: list[bytes] = []
    told: dict[str, Any] = {}
    for name, result in results.items():
        if isinstance(result, Failure):
            told[name] = {"failure": [result.code.value, result.message]}
        else:
            told[name] = {"result": {key: _packed(value, arrays) for key, value in _values(result).items()}}
    header = _padded(orjson.dumps(told))
    return b"".join((len(header).to_bytes(_STEP, "little"), header, *arrays))


def decode_results(body: bytes, tasks: Tasks) -> dict[str, Result | Failure]:
    """Return what ``encode_results`` was given. Its arrays are views on ``body``. Raises ``CodecError``."""
    try:
        end = _STEP + int.from_bytes(body[:_STEP], "little")
        if end > len(body):
            raise ValueError(f"{len(body)} bytes of at least {end}")
        arrays = _Arrays(body, end)
        return {name: _answer(tasks[name], told, arrays) for name, told in orjson.loads(body[_STEP:end]).items()}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise CodecError(f"These are no results: {error!r}.") from error


def _answer(task: Task[Any], told: Mapping[str, Any], arrays: _Arrays) -> Result | Failure:
    if "failure" in told:
        code, message = told["failure"]
        return Failure(ErrorCode(code), _text(message))
    return _made(task.result, {name: _unpacked(value, arrays) for name, value in told["result"].items()})


def _options(task: Task[Any], values: Mapping[str, Any] | None) -> Any:
    if values is None or task.options is None:
        if values is not None:
            raise TypeError(f"{task.name} has no options")
        return None
    return _made(task.options, {name: _scalars(value) for name, value in values.items()})


def _made(kind: type[R], values: Mapping[str, Any]) -> R:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if known != set(values):
        raise TypeError(f"{kind.__name__} has the fields {sorted(known)}, not {sorted(values)}")
    return kind(**values)


def _values(instance: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, not copied."""
    return {field.name: getattr(instance, field.name) for field in fields(instance)}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _scalars(value: Any) -> Any:
    """Return a number, a text, True, False or None as it is, and a list of them as a tuple. Raises ``TypeError``."""
    if isinstance(value, list):
        return tuple(_scalars(one) for one in value)
    if value is not None and not isinstance(value, str | int | float):
        raise TypeError(f"{type(value).__name__} is no number or text")
    return value


def _packed(value: Any, arrays: list[bytes]) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    plain = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    arrays.append(_padded(plain.tobytes()))
    return {"dtype": plain.dtype.str, "shape": plain.shape}


def _unpacked(value: Any, arrays: _Arrays) -> Any:
    return arrays.next(value["dtype"], value["shape"]) if isinstance(value, dict) else _scalars(value)


def _padded(data: bytes) -> bytes:
    return data + b" " * (-len(data) % _STEP)


class _Arrays:
    """Reads the arrays of a body, one after another."""

    def __init__(self, body: bytes, start: int) -> None:
        self._body = body
        self._position = start

    def next(self, dtype: str, shape: list[int]) -> NDArray[Any]:
        """Return the next array, which is said to be of ``dtype`` and ``shape``. Raises ``ValueError``."""
        sizes = all(type(size) is int and 0 <= size <= _MAX_SIZE for size in shape)
        if dtype not in _DTYPES or not sizes or len(shape) > _MAX_DIMENSIONS:
            raise ValueError(f"an array of {dtype!r} and shape {shape!r}")
        count = prod(shape)
        if self._position + count * np.dtype(dtype).itemsize > len(self._body):
            raise ValueError(f"an array of {count} numbers in {len(self._body)} bytes")
        found = np.frombuffer(self._body, dtype, count, self._position) if count else np.empty(0, dtype)
        self._position += len(found) * found.itemsize
        self._position += -self._position % _STEP
        return found.reshape(shape)
