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
_Box: TypeAlias = "tuple[float, float, float, float]"
"""Left, top, right, bottom."""

_MOSTLY = 0.5
"""Part of a line that must lie within a hidden one, as Immich asks for half of a line to lie within a crop."""

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
    """Write the rows of ``asset_ocr``, ``ocr_search`` and ``asset_job_status``; what was read before disappears.

    A line that stands where an edit had hidden one is hidden too. Immich's own job would show it again.
    """
    found = await connection.execute(_HIDDEN, (asset_id,))
    hidden = [_upright(row["box"]) for row in await found.fetchall()]
    shown = [not any(_share(_upright(line.box), one) >= _MOSTLY for one in hidden) for line in lines]
    texts = [clean(line.text) for line in lines]
    await connection.execute('delete from public.asset_ocr where "assetId" = %s', (asset_id,))
    if lines:
        rows = [
            (asset_id, *line.box, line.box_score, line.text_score, text)
            for line, text in zip(lines, texts, strict=True)
        ]
        async with connection.cursor() as cursor:
            for put, visible in ((_PUT_LINE, True), (_PUT_HIDDEN_LINE, False)):
                await cursor.executemany(put, [row for row, one in zip(rows, shown, strict=True) if one is visible])
        visible_texts = [text for text, one in zip(texts, shown, strict=True) if one]
        tokens = " ".join(token for text in visible_texts for token in search_tokens(text))
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
    left, top, right, bottom = _upright(corners)
    return {"x1": left * size[0], "y1": top * size[1], "x2": right * size[0], "y2": bottom * size[1]}


def _upright(corners: Sequence[float]) -> _Box:
    xs, ys = corners[::2], corners[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _share(box: _Box, other: _Box) -> float:
    """Return the part of ``box`` that lies within ``other``, 0 to 1."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return max(width, 0.0) * max(height, 0.0) / area if area > 0 else 0.0


_PUT_EMBEDDING = """
insert into public.smart_search ("assetId", embedding) values (%s, %s)
on conflict ("assetId") do update set embedding = excluded.embedding
"""
_PUT_LINE = """
insert into public.asset_ocr ("assetId", x1, y1, x2, y2, x3, y3, x4, y4, "boxScore", "textScore", text)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_PUT_HIDDEN_LINE = """
insert into public.asset_ocr
    ("assetId", x1, y1, x2, y2, x3, y3, x4, y4, "boxScore", "textScore", text, "isVisible")
values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, false)
"""
# Read as JSON, since Immich has the column from 2.5 on.
_HIDDEN = """
select array[x1, y1, x2, y2, x3, y3, x4, y4] as box from public.asset_ocr o
where "assetId" = %s and to_jsonb(o) ->> 'isVisible' = 'false'
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
