"""A check that two servers give the same answers: CLIP vectors, faces, and characters read from pages of known text.

The peer computes in fp32 on fully decoded pictures, so a cosine to it shows the sum of all differences.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.bench.client import Client
from tools.bench.pictures import middle
from tools.bench.report import Cell, Table
from tools.bench.target import Target
from tools.bench.verdicts import Verdict, at_least
from tools.bench.workload import bodies, pictures, request
from tools.harness.rendered import character_accuracy, mixed_pages

LEAST_COSINE = 0.999
LEAST_OVERLAP = 0.9

Boxes = NDArray[np.float64]
"""(n, 4): x1, y1, x2, y2 in pixels."""


Found = tuple[list[tuple[str, Cell]], list[Verdict]]
"""Rows of the table, and what they are held to."""


def measure(
    ours: Target,
    peer: Target,
    tasks: Sequence[str] = ("clip", "text", "face", "ocr"),
    *,
    square: bool = False,
    same_text: bool = False,
) -> tuple[list[Table], list[Verdict]]:
    """Return tables and verdicts: cosines, faces and character accuracy of ours against the peer's.

    ``tasks`` that are no single task are left out. ``square``: CLIP is asked for the middle of each picture, since
    CN-CLIP squashes a picture to a square and OpenCLIP, which Immich's own server takes every CLIP for, cuts one out.
    ``same_text``: hold the pages to be read alike, letter by letter, too.
    """
    measures: dict[str, Callable[[], Found]] = {
        "clip": lambda: _clip("CLIP image", image_cosines(ours, peer, square=square)),
        "text": lambda: _clip("CLIP text", cosines(*(vectors(_answers(one, "text")) for one in (ours, peer)))),
        "face": lambda: _faces(faces_alike(*(_answers(one, "face") for one in (ours, peer)))),
        "ocr": lambda: _pages(*(read_pages(one) for one in (ours, peer)), same_text=same_text),
    }
    rows: list[tuple[str, Cell]] = []
    verdicts: list[Verdict] = []
    for task, measured in measures.items():
        if task in tasks:
            more, due = measured()
            rows, verdicts = [*rows, *more], [*verdicts, *due]
    table = Table("Agreement with the peer", ("", "found"), tuple((name, _five_digits(value)) for name, value in rows))
    return [table] if rows else [], verdicts


def _clip(what: str, found: NDArray[np.float64]) -> Found:
    return [
        (f"{what}, least cosine to the peer's fp32", float(found.min())),
        (f"{what}, mean cosine", float(found.mean())),
    ], [at_least(f"{what}: least cosine to fp32", float(found.min()), LEAST_COSINE)]


def _faces(found: FacesAlike) -> Found:
    return [
        ("faces of the peer", found.theirs),
        ("of these found by ours with an IoU above 0.9", found.matched),
        ("faces that only ours found", found.ours - found.matched),
        ("faces, least IoU of a pair", found.least_overlap),
        ("faces, least cosine of a pair's embeddings", found.least_cosine),
    ], [
        at_least("faces: share of the peer's found by ours, IoU above 0.9", found.matched / max(1, found.theirs), 1),
        at_least("faces: least cosine of embeddings", found.least_cosine, LEAST_COSINE),
    ]


def _pages(ours: Sequence[Read], peer: Sequence[Read], *, same_text: bool) -> Found:
    read, peer_read = (float(np.mean([page.accuracy for page in pages])) for pages in (ours, peer))
    alike = sum(mine.text == theirs.text for mine, theirs in zip(ours, peer, strict=True))
    verdicts = [at_least("OCR: character accuracy, ours less the peer's", read - peer_read, 0)]
    if same_text:
        verdicts.append(at_least("OCR: share of pages with the same text", alike / len(ours), 1))
    return [
        ("OCR, character accuracy, ours", read),
        ("OCR, character accuracy, peer", peer_read),
        (f"OCR, pages of {len(ours)} with the same text", alike),
    ], verdicts


def image_cosines(ours: Target, peer: Target, *, square: bool = False) -> NDArray[np.float64]:
    """Return (n,) cosines of each picture's CLIP vectors from the two servers. ``square``: as for ``measure``."""
    sent = [middle(picture) if square else picture for picture in pictures("clip")]
    return cosines(
        *(vectors(_ask(one.url, [request("clip", picture, one.names) for picture in sent])) for one in (ours, peer))
    )


def vectors(answers: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """Return (n, d) vectors from n answers to CLIP requests."""
    return np.array([json.loads(answer["clip"]) for answer in answers], np.float64)


def cosines(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n,) cosines of the rows of two (n, d) arrays."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found: NDArray[np.float64] = np.sum(one * other, axis=1) / norms
    return found


@dataclass(slots=True)
class FacesAlike:
    """Counts over all pictures, and the worst of the faces that both servers found."""

    ours: int = 0
    theirs: int = 0
    matched: int = 0
    least_overlap: float = math.nan
    least_cosine: float = math.nan


def faces_alike(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> FacesAlike:
    """Pair each of the peer's faces with the one of ours that overlaps it most, picture by picture."""
    alike = FacesAlike()
    for mine, other in zip(ours, theirs, strict=True):
        my_faces, other_faces = mine["facial-recognition"], other["facial-recognition"]
        alike.ours += len(my_faces)
        alike.theirs += len(other_faces)
        if not my_faces or not other_faces:
            continue
        overlap = overlaps(boxes(other_faces), boxes(my_faces))
        for row, face in zip(overlap, other_faces, strict=True):
            best = int(row.argmax())
            if row[best] > LEAST_OVERLAP:
                alike.matched += 1
                pair = (np.array([json.loads(one["embedding"])], np.float64) for one in (face, my_faces[best]))
                alike.least_cosine = float(np.fmin(alike.least_cosine, cosines(*pair)[0]))
                alike.least_overlap = float(np.fmin(alike.least_overlap, row[best]))
    return alike


def boxes(faces: Sequence[dict[str, Any]]) -> Boxes:
    return np.array(
        [[face["boundingBox"][side] for side in ("x1", "y1", "x2", "y2")] for face in faces], np.float64
    ).reshape(-1, 4)


def overlaps(one: Boxes, other: Boxes) -> NDArray[np.float64]:
    """Return (n, m): intersection over union of each of n boxes with each of m."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.prod((high - low).clip(0), axis=2)
    areas = [np.prod(some[:, 2:] - some[:, :2], axis=1) for some in (one, other)]
    joined = areas[0][:, None] + areas[1][None, :] - shared
    found: NDArray[np.float64] = np.divide(shared, joined, out=np.zeros_like(shared), where=joined > 0)
    return found


@dataclass(frozen=True, slots=True)
class Read:
    """One rendered page as a server read it."""

    text: tuple[str, ...]
    accuracy: float
    """Of its characters: 1 less edit distance by length, 0 to 1."""


def read_pages(target: Target) -> list[Read]:
    """Return the rendered pages as ``target`` reads them."""
    pages = mixed_pages()
    answers = _ask(target.url, [request("ocr", page.data, target.names) for page in pages])
    texts = [downwards(answer["ocr"]) for answer in answers]
    return [Read(text, character_accuracy(text, page.lines)) for text, page in zip(texts, pages, strict=True)]


def downwards(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the lines of an answer to OCR from the top of the picture to its bottom.

    The pages have one line a row. Immich's own server answers them from the bottom up.
    """
    tops = [min(found["box"][at + 1 : at + 8 : 2]) for at in range(0, len(found["box"]), 8)]
    lines = sorted(zip(tops, found["text"], strict=True), key=lambda line: line[0])
    return tuple(text for _, text in lines)


def _answers(target: Target, task: str) -> list[dict[str, Any]]:
    return _ask(target.url, bodies(task, target.names))


def _ask(url: str, requests: Sequence[bytes]) -> list[dict[str, Any]]:
    async def ask() -> list[bytes]:
        async with Client(url) as client:
            return [await client.predict(body) for body in requests]

    return [json.loads(answer) for answer in asyncio.run(ask())]


def _five_digits(value: Cell) -> Cell:
    return f"{value:.5f}" if isinstance(value, float) else value
