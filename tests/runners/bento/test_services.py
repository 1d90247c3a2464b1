"""How runners are packed into BentoML services."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from models.catalog import load_catalog
from runners.bento.services import RunnerService, _named, _preloads, runner_services
from runners.bento.transport import JOBS, RunnerDoor
from runners.tasks import BUILT_IN
from settings import Settings

RUNNERS = ("clip_image", "faces", "ocr", "clip_text")


def settings(**changes: Any) -> Settings:
    return Settings(_env_file=None, **changes)


def inner(service: Any) -> type[RunnerService]:
    found: type[RunnerService] = service.inner
    return found


def task_names(service: Any) -> tuple[str, ...]:
    return tuple(task.name for task in inner(service).tasks)


def test_shared_picture_runners_live_in_one_process_and_text_in_another() -> None:
    services = runner_services(settings(), shared=True)
    assert set(services) == set(RUNNERS)
    assert services["clip_image"] is services["faces"] is services["ocr"]
    assert services["clip_text"] is not services["ocr"]
    assert task_names(services["ocr"]) == ("clip_image", "faces", "ocr")
    assert {service.name for service in services.values()} == {"PictureRunner", "ClipTextRunner"}


def test_split_runners_live_in_a_process_each() -> None:
    services = runner_services(settings(), shared=False)
    assert set(services) == set(RUNNERS)
    assert len({service.name for service in services.values()}) == 4
    for name, service in services.items():
        assert task_names(service) == (name,)


@pytest.mark.parametrize("shared", [True, False])
def test_each_process_has_its_own_position_and_only_text_is_not_nice(shared: bool) -> None:
    services = runner_services(settings(), shared=shared)
    classes = {inner(service) for service in services.values()}
    assert sorted(service.position for service in classes) == list(range(len(classes)))
    assert [[task.name for task in service.tasks] for service in classes if not service.nice] == [["clip_text"]]


@pytest.mark.parametrize("shared", [True, False])
def test_a_service_takes_jobs_of_its_own(shared: bool) -> None:
    services = runner_services(settings(), shared=shared)
    for service in services.values():
        mounted = [(app.app, path) for app, path, _ in service.mount_apps]
        assert (inner(service).jobs, JOBS) in mounted
        assert not service.apis, "BentoML's own would read pickles"
        assert service.middlewares == [(RunnerDoor, {})]
    assert len({id(inner(service).jobs) for service in services.values()}) == len(
        {service.name for service in services.values()}
    )


def test_a_runner_has_more_time_than_the_gateway_waits() -> None:
    for service in runner_services(settings(request_timeout=100), shared=False).values():
        assert service.config["traffic"]["timeout"] > 100
        assert service.config["workers"] == 1


def preloads(config: Settings) -> dict[str, tuple[str, ...]]:
    catalog = load_catalog()
    return {task.name: _preloads(task, config, catalog) for task in BUILT_IN}


def preload(**groups: dict[str, str]) -> dict[str, Any]:
    return {"preload": groups}


def test_each_runner_preloads_what_its_names_say() -> None:
    config = settings(
        **preload(
            clip={"textual": "RN50, ViT-B-16", "visual": "RN50"},
            facial_recognition={"detection": "buffalo_l", "recognition": "buffalo_l,buffalo_s"},
            ocr={"recognition": "PP-OCRv5_mobile"},
        )
    )
    assert preloads(config) == {
        "clip_image": ("RN50",),
        "clip_text": ("RN50", "ViT-B-16"),
        "faces": ("buffalo_l", "buffalo_s"),
        "ocr": ("PP-OCRv5_mobile",),
    }


def test_the_model_that_answers_for_all_is_preloaded_in_place_of_the_names() -> None:
    config = settings(clip_model="ViT-B-16", recognition_model="buffalo_s", **preload(clip={"visual": "x,y"}))
    assert preloads(config) == {
        "clip_image": ("ViT-B-16",),
        "clip_text": (),
        "faces": (),
        "ocr": (),
    }


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, [None] * 4),
        ({"clip_model": "ViT-B-16", "ocr_model": "PP-OCRv6_small"}, ["ViT-B-16", None, "PP-OCRv6_small", "ViT-B-16"]),
        ({"clip_model": "ViT-B-16", "route_clip": "upstream", "immich_api": "http://gpu"}, [None] * 4),
    ],
)
def test_the_model_that_answers_for_all_is_fetched_unless_another_server_answers(
    changes: dict[str, Any], named: list[str | None]
) -> None:
    catalog = load_catalog()
    assert [_named(task, settings(**changes), catalog) for task in BUILT_IN] == named


def test_models_are_preloaded_under_the_names_that_requests_come_under() -> None:
    """An alias would be a second model in memory beside the one that requests use."""
    wanted = {
        "clip": {
            "visual": "ViT-B-32::openai, immich-app/ViT-B-32__openai",
            "textual": "ViT-B-32__openai",
        },
        "ocr": {"detection": "ocr", "recognition": "PP-OCRv6_small"},
    }
    assert preloads(settings(preload=wanted)) == {
        "clip_image": ("ViT-B-32__openai",),
        "clip_text": ("ViT-B-32__openai",),
        "faces": (),
        "ocr": ("PP-OCRv6_small",),
    }
    tiny = settings(preload=wanted, clip_model="tiny")
    assert preloads(tiny)["clip_text"] == ("cn-clip-tiny",)


class FailingRunner:
    """A runner whose preloading and closing may fail."""

    def __init__(self, *, closes: bool = True) -> None:
        self.closes, self.closed = closes, False

    async def preload(self, model: str) -> None:
        raise RuntimeError(f"{model} is broken")

    def close(self) -> None:
        self.closed = True
        if not self.closes:
            raise RuntimeError("a thread hangs")

    def loaded(self) -> tuple[str, ...]:
        return ()

    def unload_idle(self) -> None: ...


def test_a_background_task_that_failed_is_told_at_once_and_the_end_closes_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = object.__new__(RunnerService)
    first, second = FailingRunner(closes=False), FailingRunner()
    service.runners = {"clip_image": first, "ocr": second}  # type: ignore[dict-item]
    service._background = []
    service._stop_watching = lambda: None

    async def run() -> None:
        service._in_background(first.preload("ViT-B-16"), "clip_image: loading ViT-B-16 at the start")
        service._in_background(asyncio.sleep(60), "waiting")
        await asyncio.sleep(0.01)
        assert "clip_image: loading ViT-B-16 at the start failed: RuntimeError('ViT-B-16 is broken')" in caplog.text
        await service.end()

    asyncio.run(run())
    assert (first.closed, second.closed) == (True, True)
    assert "clip_image could not be closed" in caplog.text
    assert all(task.done() for task in service._background)
