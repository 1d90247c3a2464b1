"""A picture with all tasks that are wanted of it: one decode at full size, no work for nobody, nothing kept."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from PIL import Image

from errors import ErrorCode, ServiceError
from runners.contract import Ask, FaceOptions, Faces, Failure, ImageJob, OcrOptions, PictureJob, TextLines
from runners.engine import open_session
from runners.ocr import load_ocr
from runners.pictures import pixels
from runners.pictures.decode import decode
from runners.pictures.pixels import kept
from runners.runner import Model, Runner, RunnerLimits, run_picture
from runners.turns import CoreTurns
from tests.runners.faces.reference import T1, face_model
from tests.runners.ocr.test_model import FILES, PLAN

MAX_PIXELS = 50_000_000


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (60, 40)).save(file, "JPEG")
    return file.getvalue()


def runner(name: str, load: Callable[[str], Model[ImageJob, Any]], **options: Any) -> Runner[ImageJob, Any]:
    limits = RunnerLimits(max_batch=8, model_ttl=300.0, retry_after=30.0, turns=CoreTurns(4))
    return Runner(name, load, limits, **options)


class Taker:
    """A model that takes the whole picture of each job, and waits while it is held."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[int] = []

    def run(self, jobs: Sequence[ImageJob]) -> list[tuple[int, ...]]:
        self.batches.append(len(jobs))
        assert self.gate.wait(30)
        return [job.pixels(max_pixels=MAX_PIXELS).shape for job in jobs]

    def close(self) -> None:
        pass


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return what was decoded at full size."""
    seen: list[bytes] = []

    def counting(data: bytes, **options: Any) -> Any:
        seen.append(data)
        return decode(data, **options)

    monkeypatch.setattr(pixels, "decode", counting)
    return seen


@pytest.mark.parametrize("together", [True, False], ids=["one job", "alone"])
def test_faces_and_text_share_one_decode_and_find_the_same_as_alone(together: bool, decodes: list[bytes]) -> None:
    asks = (Ask("faces", "buffalo_s", FaceOptions(0.5)), Ask("ocr", "PP-OCRv6_small", OcrOptions()))
    text = load_ocr(FILES, partial(open_session, plan=PLAN), max_pixels=MAX_PIXELS, max_boxes=4000)
    runners = {"faces": runner("faces", lambda name: face_model()), "ocr": runner("ocr", lambda name: text)}

    async def run() -> dict[str, Any]:
        if together:
            return await run_picture(runners, PictureJob(T1, asks))
        return {ask.task: (await run_picture(runners, PictureJob(T1, (ask,))))[ask.task] for ask in asks}

    found = asyncio.run(run())
    text.close()
    assert len(decodes) == (1 if together else 2)
    assert kept.pixels == 0
    assert isinstance(found["faces"], Faces)
    assert isinstance(found["ocr"], TextLines)
    assert len(found["faces"].scores) == 6


def test_a_task_that_decodes_by_itself_is_not_waited_for(decodes: list[bytes]) -> None:
    waiting, taking = Taker(), Taker()
    waiting.gate.clear()
    runners = {
        "clip_image": runner("clip_image", lambda name: waiting, decodes_whole=False),
        "ocr": runner("ocr", lambda name: taking),
    }

    async def run() -> None:
        job = PictureJob(picture(), (Ask("clip_image", "m"), Ask("ocr", "m")))
        running = asyncio.create_task(run_picture(runners, job))
        while not decodes:
            await asyncio.sleep(0.01)
        while runners["ocr"]._batchers["m"]._working:
            await asyncio.sleep(0.01)
        assert kept.pixels == 0, "nobody is to take them any more"
        waiting.gate.set()
        assert set(await running) == {"clip_image", "ocr"}

    asyncio.run(run())


def test_a_bad_picture_is_a_failure_of_each_task_and_is_tried_once(decodes: list[bytes]) -> None:
    class Reader(Taker):
        def run(self, jobs: Sequence[ImageJob]) -> list[Any]:
            results: list[Any] = []
            for job in jobs:
                try:
                    results.append(job.pixels(max_pixels=MAX_PIXELS))
                except ServiceError as error:
                    results.append(Failure(error.code, error.message))
            return results

    runners = {name: runner(name, lambda name: Reader()) for name in ("faces", "ocr")}
    found = asyncio.run(run_picture(runners, PictureJob(b"no picture", (Ask("faces", "m"), Ask("ocr", "m")))))
    assert {failure.code for failure in found.values()} == {ErrorCode.UNREADABLE_PICTURE}
    assert len(decodes) == 1


class Bytes(bytes):
    """Bytes that tell when they are freed; there are no weak references to bytes."""

    freed = 0

    def __del__(self) -> None:
        Bytes.freed += 1


def test_who_goes_away_is_not_computed_for_and_holds_nothing_unless_its_batch_has_begun() -> None:
    model = Taker()
    model.gate.clear()
    runners = {name: runner(name, lambda name: model) for name in ("faces", "ocr")}
    asks = (Ask("faces", "m"), Ask("ocr", "m"))

    async def run() -> None:
        begun = asyncio.create_task(run_picture(runners, PictureJob(picture(), asks)))
        while len(model.batches) < 2:
            await asyncio.sleep(0.01)
        data = Bytes(picture())
        job = PictureJob(data, asks)
        del data
        gone = asyncio.create_task(run_picture(runners, job))
        await asyncio.sleep(0.05)
        assert [one._batchers["m"].waiting for one in runners.values()] == [1, 1]
        del job
        gone.cancel()
        await asyncio.wait([gone])
        assert gone.cancelled()
        del gone
        assert [one._batchers["m"].waiting for one in runners.values()] == [0, 0]
        gc.collect()
        assert Bytes.freed == 1, "the bytes of who is gone are still in memory"

        # One whose batch has begun is finished, for nobody.
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun
        model.gate.set()
        assert set(await run_picture(runners, PictureJob(picture(), asks))) == {"faces", "ocr"}
        assert model.batches == [1, 1, 1, 1]
        assert kept.pixels == 0

    asyncio.run(asyncio.wait_for(run(), 60))
