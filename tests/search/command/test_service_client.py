"""Which models a command asks the service for, and the sentence where there is none."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from errors import ErrorCode, ServiceError
from runners.contract import OcrOptions
from search.command import service_client
from search.indexing.predictor import CannotGoOn
from search.store.models_in_use import ModelsInUse
from settings import Settings


def _asked(
    monkeypatch: pytest.MonkeyPatch, ours: ModelsInUse, wanted: list[str] | None
) -> tuple[dict[str, str], list[str]]:
    @asynccontextmanager
    async def connection() -> Any:
        yield None

    async def in_use(*_: object) -> ModelsInUse:
        return ours

    async def ask() -> tuple[dict[str, str], list[str]]:
        transport = httpx.MockTransport(lambda request: httpx.Response(403))
        database: Any = SimpleNamespace(connection=connection, source=SimpleNamespace(value="standalone"))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await service_client.models_to_ask(client, database, Settings(), wanted)

    monkeypatch.setattr(service_client, "models_in_use", in_use)
    return asyncio.run(ask())


def _models(clip: str | None, ocr: str | None, ocr_refusal: ServiceError | None = None) -> ModelsInUse:
    return ModelsInUse(clip, None, ocr, ocr_refusal, OcrOptions(0.5, 0.8, 736))


def test_a_clip_model_that_nobody_chose_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotGoOn) as caught:
        _asked(monkeypatch, _models(None, "PP-OCRv6_small"), ["clip"])
    assert str(caught.value).startswith("No CLIP model is in use, and no vector is stored: set CLIP_MODEL")
    assert "None" not in str(caught.value)


def test_both_reasons_are_told_where_there_is_no_model_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = ServiceError(ErrorCode.UNKNOWN_MODEL, "No ocr model is called 'x'.")
    with pytest.raises(CannotGoOn) as caught:
        _asked(monkeypatch, _models(None, None, unknown), None)
    assert "No ocr model is called 'x'." in str(caught.value)
    assert "No CLIP model is in use" in str(caught.value)


def test_without_a_clip_model_pictures_are_read_and_a_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    models, notes = _asked(monkeypatch, _models(None, "PP-OCRv6_small"), None)
    assert models == {"ocr": "PP-OCRv6_small"}
    assert len(notes) == 1
