"""Models in this process, asked as ``predictor.Predictor`` asks the service: for a worker without a service beside
it."""

from __future__ import annotations

from collections.abc import Mapping

from errors import ErrorCode, ServiceError
from runners.contract import Ask, Embedding, Failure, OcrOptions, PictureJob, TextLines
from runners.local import LocalRunners
from runners.pictures.header import Header, read_header
from runners.task import Task
from runners.tasks import CLIP_IMAGE, OCR
from search.indexing.predictor import CONFIGURATION, WHOLE_PICTURE, CannotGoOn, Computed
from search.indexing.recompute import stored_lines
from search.store.records import Problem, Text, Vector
from settings import Settings

_TASKS: Mapping[str, Task[Embedding] | Task[TextLines]] = {"clip": CLIP_IMAGE, "ocr": OCR}
_NO_MODEL = frozenset({*CONFIGURATION, ErrorCode.MODEL_UNAVAILABLE.value})
"""Errors that every picture would meet."""


class LocalPredictor:
    """CLIP and OCR in this process. Belongs to one event loop."""

    def __init__(self, config: Settings) -> None:
        """Load nothing yet: models are fetched and loaded when they are first asked for. Raises ``DeviceUnusable``."""
        self._config = config
        self._runners = LocalRunners(_TASKS.values(), config)

    @property
    def waiting(self) -> str:
        """Return nothing: no other process is asked."""
        return ""

    async def ask(self, picture: bytes, models: Mapping[str, str]) -> Computed:
        """Return what ``models`` (task, ``clip`` or ``ocr``, to the catalog's name) make of ``picture``.

        A picture's own errors are in the result. Raises ``CannotGoOn`` where a model cannot be had.
        """
        try:
            header = read_header(picture, max_pixels=self._config.max_picture_pixels)
        except ServiceError as error:
            return Computed(problems=(Problem("read", error.code.value, error.message),))
        results = await self._runners.picture(PictureJob(picture, tuple(_asks(models, header))))
        vector = text = None
        problems = []
        for name, model in models.items():
            result = results[_TASKS[name].name]
            if isinstance(result, Failure):
                if result.code.value in _NO_MODEL:
                    raise CannotGoOn(result.message)
                if result.code.value in WHOLE_PICTURE:
                    return Computed(problems=(Problem("read", result.code.value, result.message),))
                problems.append(Problem(name, result.code.value, result.message))  # type: ignore[arg-type]
            elif isinstance(result, Embedding):
                vector = Vector(model, result.vector)
            elif isinstance(result, TextLines):
                text = Text(model, stored_lines(result, header.width, header.height))
        return Computed(vector, text, tuple(problems))


def _asks(models: Mapping[str, str], header: Header) -> list[Ask]:
    asks = []
    for name, model in models.items():
        task, options = _TASKS[name], OcrOptions() if name == "ocr" else None
        asks.append(Ask(task.name, model, options, task.cost(header.width, header.height, options)))
    return asks
