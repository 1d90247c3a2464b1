"""The rows that Immich itself writes when it has read or embedded one of its assets, as its own server writes them.

Followed: Immich 2.5's ``OcrService``, ``OcrRepository.upsert``, ``SearchRepository.upsert`` and ``tokenizeForSearch``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import orjson
from psycopg import AsyncConnection

from runners.contract import Float32
from search.store.index import clean
from search.store.records import Line

Connection: TypeAlias = "AsyncConnection[dict[str, Any]]"

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
"""Kana, Han (extension A and the unified block), Hangul: what Immich cuts to pairs."""
_RUNS = re.compile(f"(?P<cjk>[{_CJK}]+)|[^{_CJK}\\x00-\\x20]+")


def search_tokens(text: str) -> list[str]:
    """Return ``text`` cut as Immich cuts it: runs of Chinese, Japanese and Korean to overlapping pairs, the rest at
    ASCII space and controls.

    >>> search_tokens("营业执照 No.1号")
    ['营业', '业执', '执照', 'No.1', '号']
    """
    return [token for run in _RUNS.finditer(text) for token in (_pairs(run[0]) if run["cjk"] else [run[0]])]


def _pairs(run: str) -> list[str]:
    return [run] if len(run) == 1 else [run[at : at + 2] for at in range(len(run) - 1)]


async def write_embedding(connection: Connection, asset_id: UUID, vector: Float32) -> None:
    """Write the row of ``smart_search``. ``vector``: (n,) float32, as many numbers as its column takes."""
    await connection.execute(_PUT_EMBEDDING, (asset_id, vector))


async def write_text(connection: Connection, asset_id: UUID, lines: Sequence[Line], read_at: datetime) -> None:
    """Write the rows of ``asset_ocr``, ``ocr_search`` and ``asset_job_status``; what was read before disappears."""
    texts = [clean(line.text) for line in lines]
    await connection.execute('delete from public.asset_ocr where "assetId" = %s', (asset_id,))
    if lines:
        rows = [
            (asset_id, *line.box, line.box_score, line.text_score, text)
            for line, text in zip(lines, texts, strict=True)
        ]
        async with connection.cursor() as cursor:
            await cursor.executemany(_PUT_LINE, rows)
        tokens = " ".join(token for text in texts for token in search_tokens(text))
        await connection.execute(_PUT_SEARCH, (asset_id, tokens))
    else:
        await connection.execute('delete from public.ocr_search where "assetId" = %s', (asset_id,))
    await connection.execute(_PUT_STATUS, (asset_id, read_at))


async def write_text_1_134(
    connection: Connection, asset_id: UUID, lines: Sequence[Line], size: tuple[int, int]
) -> None:
    """Write the row of ``ocr_info`` of the fork of Immich 1.134.

    It is the answer of the fork's own dialect, with boxes in pixels of the preview of this ``size``.
    """
    texts = [clean(line.text) for line in lines]
    boxes = [_upright_box(line.box, size) for line in lines]
    known = {"texts": texts, "scores": [f"{line.text_score:.2f}" for line in lines], "boxes": boxes}
    await connection.execute(_PUT_INFO, (asset_id, " ".join(texts), orjson.dumps(known).decode()))


def _upright_box(corners: Sequence[float], size: tuple[int, int]) -> dict[str, float]:
    xs, ys = [x * size[0] for x in corners[::2]], [y * size[1] for y in corners[1::2]]
    return {"x1": min(xs), "y1": min(ys), "x2": max(xs), "y2": max(ys)}


_PUT_EMBEDDING = """
insert into public.smart_search ("assetId", embedding) values (%s, %s)
on conflict ("assetId") do update set embedding = excluded.embedding
"""
_PUT_LINE = """
insert into public.asset_ocr ("assetId", x1, y1, x2, y2, x3, y3, x4, y4, "boxScore", "textScore", text)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_PUT_SEARCH = """
insert into public.ocr_search ("assetId", text) values (%s, %s) on conflict ("assetId") do update set text =
excluded.text
"""
_PUT_STATUS = """
insert into public.asset_job_status ("assetId", "ocrAt") values (%s, %s) on conflict ("assetId") do update set
"ocrAt" = excluded."ocrAt"
"""
_PUT_INFO = """
insert into public.ocr_info ("assetId", text, "ocrJson") values (%s, %s, %s)
on conflict ("assetId") do update set text = excluded.text, "ocrJson" = excluded."ocrJson"
"""
