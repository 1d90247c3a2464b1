"""Search's life within the service: opened in the background, tried again, closed; and not started for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from errors import ErrorCode, ServiceError
from search.http import life as life_module
from search.http import pace as pace_module
from search.http.life import SearchLife
from search.http.pace import SyncPace
from search.immich import sync as sync_module
from search.immich.settings import DEFAULT_OCR_OPTIONS
from search.store import database as module
from search.store import models_in_use as models_module
from search.store.models_in_use import ModelsInUse
from search.store.source import Source
from settings import Settings
from tests.search.indexing.redoing import settings


def test_a_database_is_opened_in_the_background_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = []

    class Opened:
        source, cutter, closed = Source.STANDALONE, "jieba", False

        async def close(self) -> None:
            self.closed = True

        def connection(self) -> None:
            raise ServiceError(ErrorCode.SEARCH_UNAVAILABLE, "It is gone again.")

    opened = Opened()

    async def open_database(config: Settings) -> Opened:
        attempts.append(config)
        if len(attempts) < 4:
            raise ServiceError(ErrorCode.SEARCH_UNAVAILABLE, "It is locked." if len(attempts) < 3 else "It is full.")
        return opened

    async def play() -> None:
        life = SearchLife(settings())
        life.start()
        told = []
        while len(attempts) < 4 or not followed:
            try:
                life.database()
            except ServiceError as error:
                told.append(error.message)
            await asyncio.sleep(0.005)
        assert life.database() is opened  # type: ignore[comparison-overlap]
        assert {"It is locked.", "It is full."} <= set(told)
        await life.close()
        assert opened.closed

    followed = []

    async def keep_in_sync(database: object, *_: object) -> None:
        followed.append(database)
        await asyncio.sleep(3600)

    monkeypatch.setattr(module, "open_database", open_database)
    monkeypatch.setattr(sync_module, "keep_in_sync", keep_in_sync)
    monkeypatch.setattr(life_module, "_RETRY_AFTER", 0.02)
    with caplog.at_level("INFO", "service"):
        asyncio.run(play())
    assert [record.getMessage().split(" It is tried")[0] for record in caplog.records] == [
        "There is no search yet: It is locked.",
        "There is no search yet: It is full.",
        "Search is ready: pictures of standalone, words cut by jieba.",
        "The vectors that are stored could not be looked at: It is gone again.",
    ]


IMMICH: dict[str, object] = {"api_auth_key": None, "immich_url": "http://immich:2283"}


@pytest.mark.parametrize(
    "overrides",
    [
        {"search_enabled": False},
        {"api_auth_key": None},
        {**IMMICH, "search_bar": "off", "page_enabled": False},
    ],
)
def test_nothing_is_opened_for_nobody(monkeypatch: pytest.MonkeyPatch, overrides: dict[str, object]) -> None:
    async def open_database(config: Settings) -> None:
        pytest.fail("A database was opened.")

    async def play() -> None:
        life = SearchLife(settings(**overrides))
        life.start()
        await asyncio.sleep(0.01)
        with pytest.raises(ServiceError) as caught:
            life.database()
        assert caught.value.code is ErrorCode.SEARCH_UNAVAILABLE
        await life.close()

    monkeypatch.setattr(module, "open_database", open_database)
    asyncio.run(play())


@pytest.mark.parametrize("overrides", [{"search_bar": "off"}, {"page_enabled": False}])
def test_users_of_immich_need_no_key(monkeypatch: pytest.MonkeyPatch, overrides: dict[str, object]) -> None:
    async def play() -> None:
        opened = asyncio.Event()

        async def open_database(config: Settings) -> None:
            opened.set()
            await asyncio.sleep(3600)

        monkeypatch.setattr(module, "open_database", open_database)
        life = SearchLife(settings(**{**IMMICH, **overrides}))
        life.start()
        await opened.wait()
        await life.close()

    asyncio.run(play())


def test_closing_while_a_database_is_being_opened_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = []

    async def open_database(config: Settings) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            given_up.append(True)
            raise

    async def play() -> None:
        life = SearchLife(settings())
        life.start()
        await asyncio.sleep(0.01)
        await asyncio.wait_for(life.close(), 5)

    monkeypatch.setattr(module, "open_database", open_database)
    asyncio.run(play())
    assert given_up


@pytest.mark.parametrize("refusal", [None, ServiceError(ErrorCode.STORED_MODEL_DIFFERS, "The vectors are of others.")])
def test_vectors_of_another_model_are_told_at_the_start(
    refusal: ServiceError | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Opened:
        source, cutter = Source.STANDALONE, "jieba"

        @asynccontextmanager
        async def connection(self) -> AsyncIterator[None]:
            yield

        async def close(self) -> None:
            pass

    async def open_database(config: Settings) -> Opened:
        return Opened()

    async def models_in_use(*_: object) -> ModelsInUse:
        return ModelsInUse("ViT-L-14", refusal, "ocr", None, DEFAULT_OCR_OPTIONS)

    async def play() -> None:
        ended = asyncio.Event()

        async def keep_in_sync(*_: object) -> None:
            ended.set()
            await asyncio.sleep(3600)

        monkeypatch.setattr(sync_module, "keep_in_sync", keep_in_sync)
        life = SearchLife(settings())
        life.start()
        await asyncio.wait_for(ended.wait(), 10)
        await life.close()

    monkeypatch.setattr(module, "open_database", open_database)
    monkeypatch.setattr(models_module, "models_in_use", models_in_use)
    asyncio.run(play())
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ([f"Only searches for text are answered. {refusal.message}"] if refusal else [])


def test_looks_follow_news_soon_and_each_other_never_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_module, "_LEAST", 0.01)
    monkeypatch.setattr(pace_module, "_SOON", 0.05)

    async def play() -> list[float]:
        pace, took = SyncPace(), []
        loop = asyncio.get_running_loop()
        for news in (False, True, False):
            if news:
                pace.look_soon()
            began = loop.time()
            await pace.pause(0.5)
            took.append(loop.time() - began)
        return took

    quiet, told, after = asyncio.run(play())
    assert quiet >= 0.49
    assert 0.01 <= told < 0.4
    assert 0.04 <= after < 0.4
