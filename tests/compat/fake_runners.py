"""Runners that compute nothing, for tests of the protocols over them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from runners.contract import (
    Embedding,
    Faces,
    ImageJob,
    LoadedModel,
    ModelState,
    PictureJob,
    Result,
    TextJob,
    TextLines,
)


class FakeRunners:
    """Remembers its jobs; answers with fixed results, or raises ``error``."""

    def __init__(self) -> None:
        self.jobs: list[ImageJob | TextJob] = []
        """One for each task."""
        self.sent: list[PictureJob | TextJob] = []
        """As they were sent."""
        self.error: Exception | None = None
        self.delay = 0.0
        self.loaded: dict[str, tuple[str, ...]] = {}
        self.waits: list[tuple[str, str]] = []
        """Task and model of each wait for one that is on its way."""
        self.states: list[ModelState] = []
        self.running = self.most_running = 0

    async def _note(self, job: ImageJob | TextJob) -> None:
        self.jobs.append(job)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.running -= 1
        if self.error:
            raise self.error

    async def picture(self, job: PictureJob) -> Mapping[str, Result]:
        self.sent.append(job)
        jobs = [ImageJob(job.data, ask.model, ask.options, job.upright) for ask in job.asks]
        results = await asyncio.gather(*(getattr(self, ask.task)(one) for ask, one in zip(job.asks, jobs, strict=True)))
        return {ask.task: result for ask, result in zip(job.asks, results, strict=True)}

    async def text(self, task: str, job: TextJob) -> Result:
        self.sent.append(job)
        return await getattr(self, task)(job)

    async def clip_image(self, job: ImageJob) -> Embedding:
        await self._note(job)
        return Embedding(np.array([0.1, -0.25, 1e-7], np.float32))

    async def clip_text(self, job: TextJob) -> Embedding:
        await self._note(job)
        return Embedding(np.array([0.5, 0.5], np.float32))

    async def faces(self, job: ImageJob) -> Faces:
        await self._note(job)
        return Faces(
            boxes=np.array([[1.4, 2.6, 30.5, 40.49]], np.float32),
            scores=np.array([0.9], np.float32),
            embeddings=np.array([[0.6, 0.8]], np.float32),
        )

    async def ocr(self, job: ImageJob) -> TextLines:
        await self._note(job)
        box = np.array([[[10, 5], [50, 5], [50, 15], [10, 15]]], np.float32)
        return TextLines(("发票 A-1",), box, np.array([0.75], np.float32), np.array([0.98765], np.float32))

    async def arrival(self, task: str, model: str) -> None:
        self.waits.append((task, model))

    async def models(self) -> Sequence[ModelState]:
        return self.states

    async def loaded_models(self) -> Mapping[str, tuple[str, ...]]:
        return self.loaded

    async def in_memory(self) -> Sequence[LoadedModel]:
        return [
            LoadedModel(task, model, "onnxruntime", "fp32", 1_000_000)
            for task, models in self.loaded.items()
            for model in models
        ]

    async def unload_models(self) -> Mapping[str, tuple[str, ...]]:
        unloaded, self.loaded = self.loaded, {}
        return unloaded

    async def device(self) -> str:
        return "cpu"
