"""The load of each task: the bodies of requests as Immich sends them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tools.bench.pictures import pages, photos, resized, scenes
from tools.harness.immich_client import clip_textual, clip_visual, faces, multipart, ocr

TASKS = ("clip", "text", "face", "ocr", "mixed", "joint")

_QUERIES = (
    "海边的日落", "雪地里的一只猫", "a child on a bicycle", "生日蛋糕和蜡烛", "营业执照",
    "red car in front of an old house",
    "爷爷奶奶在公园里散步", "concert at night", "山顶上的全家福", "screenshot of a chat", "湖面上的倒影",
    "a dog asleep on the sofa",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Names:
    """The models that a server is asked for, by default those that this service has without a download."""

    clip: str = "ViT-B-32__openai"
    face: str = "buffalo_s"
    ocr: str = "PP-OCRv6_small"


OURS = Names()


def pictures(task: str) -> Sequence[bytes]:
    """Return the pictures of ``clip``, ``face``, ``ocr`` or ``joint``, as previews."""
    if task == "face":
        return [*photos(), *scenes()]
    if task == "ocr":
        return list(itertools.chain.from_iterable(zip(pages(), [*photos(), *scenes()], strict=True)))
    return [*photos(), *scenes(), *pages()]


def request(task: str, picture: bytes, names: Names = OURS) -> bytes:
    """Return the body of one request of ``clip``, ``face``, ``ocr`` or ``joint``, which asks for the three at once."""
    entries = {"clip": clip_visual(names.clip), "face": faces(names.face), "ocr": ocr(names.ocr)}
    asked = entries["clip"] | entries["face"] | entries["ocr"] if task == "joint" else entries[task]
    return multipart(asked, image=picture)


def bodies(task: str, names: Names = OURS, *, short_side: int | None = None) -> list[bytes]:
    """Return the requests of ``task``, 8 to 32 of them, to be sent in turn.

    ``short_side``: pixels of the pictures, in place of 1440. ``ocr``: pages and photos in turns, half of each.
    ``mixed``: one each of CLIP, faces, OCR and text in turns. ``joint``: CLIP, faces and OCR of one picture at once.
    """
    if task == "text":
        return [multipart(clip_textual(names.clip, language="zh-CN"), text=query) for query in _QUERIES]
    if task == "mixed":
        every = [bodies(one, names, short_side=short_side)[:8] for one in ("clip", "face", "ocr", "text")]
        return list(itertools.chain.from_iterable(zip(*every, strict=True)))
    chosen = pictures(task)
    if short_side is not None:
        chosen = [resized(picture, short_side) for picture in chosen]
    return [request(task, picture, names) for picture in chosen]
