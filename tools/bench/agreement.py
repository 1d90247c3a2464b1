"""A check that two servers give the same answers: CLIP vectors, faces, and characters read from pages of known text.

The peer computes in fp32 on fully decoded pictures, so a cosine to it shows the sum of all differences.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.bench.client import Client
from tools.bench.compare import Target
from tools.bench.report import Cell, Table
from tools.bench.verdicts import Verdict, at_least
from tools.bench.workload import bodies, request
from tools.harness.rendered import character_accuracy, mixed_pages

LEAST_COSINE = 0.999
LEAST_OVERLAP = 0.9

Boxes = NDArray[np.float64]
"""(n, 4): x1, y1, x2, y2 in pixels."""


def measure(ours: Target, peer: Target) -> tuple[list[Table], list[Verdict]]:
    """Return tables and verdicts: cosines, faces and character accuracy of ours against the peer's."""
    image, text = (
        cosines(*(vectors(_answers(one.url, bodies(task))) for one in (ours, peer))) for task in ("clip", "text")
    )
    found = faces_alike(*(_answers(one.url, bodies("face")) for one in (ours, peer)))
    read, peer_read = (accuracy(one.url) for one in (ours, peer))
    rows: list[tuple[Cell, ...]] = [
        ("CLIP image, least cosine to the peer's fp32", float(image.min())),
        ("CLIP image, mean cosine", float(image.mean())),
        ("CLIP text, least cosine to the peer's fp32", float(text.min())),
        ("faces of the peer", found.theirs),
        ("of these found by ours with an IoU above 0.9", found.matched),
        ("faces that only ours found", found.ours - found.matched),
        ("faces, least IoU of a pair", found.least_overlap),
        ("faces, least cosine of a pair's embeddings", found.least_cosine),
        ("OCR, character accuracy, ours", read),
        ("OCR, character accuracy, peer", peer_read),
    ]
    verdicts = [
        at_least("CLIP image: least cosine to fp32", float(image.min()), LEAST_COSINE),
        at_least("faces: share of the peer's found by ours, IoU above 0.9", found.matched / max(1, found.theirs), 1),
        at_least("faces: least cosine of embeddings", found.least_cosine, LEAST_COSINE),
        at_least("OCR: character accuracy, ours less the peer's", read - peer_read, 0),
    ]
    return [
        Table("Agreement with the peer", ("", "found"), tuple((name, _five_digits(value)) for name, value in rows))
    ], verdicts


def image_cosines(ours: Target, peer: Target) -> NDArray[np.float64]:
    """Return (n,) cosines of each picture's CLIP vectors from the two servers."""
    return cosines(*(vectors(_answers(one.url, bodies("clip"))) for one in (ours, peer)))


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


def accuracy(url: str) -> float:
    """Return the mean character accuracy (1 less edit distance by length, 0 to 1) over the rendered pages."""
    pages = mixed_pages()
    answers = _answers(url, [request("ocr", page.data) for page in pages])
    return float(
        np.mean(
            [character_accuracy(answer["ocr"]["text"], page.lines) for answer, page in zip(answers, pages, strict=True)]
        )
    )


def _answers(url: str, requests: Sequence[bytes]) -> list[dict[str, Any]]:
    async def ask() -> list[bytes]:
        async with Client(url) as client:
            return [await client.predict(body) for body in requests]

    return [json.loads(answer) for answer in asyncio.run(ask())]


def _five_digits(value: Cell) -> Cell:
    return f"{value:.5f}" if isinstance(value, float) else value
