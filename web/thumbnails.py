"""Small pictures of our own index's files, made once and kept in a folder that never holds more than it may."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from PIL import Image

from search.indexing import file_contents
from search.indexing.orientation import upright_pixels
from search.store.records import Asset
from settings import Settings

SIDES = {"thumbnail": 480, "preview": 1600}
"""Pixels of the longer side, by what is asked for."""
MEDIA_TYPE = "image/webp"
_QUALITY = 82
_AT_ONCE = 2
"""Pictures that are decoded at the same time: each may take some hundred MB."""
_LEFT = 0.9
"""Part of the folder's bound that is left when the oldest files were deleted."""


@dataclass(slots=True)
class ThumbnailFolder:
    """Files by name, the ones that were used least recently deleted first."""

    folder: Path
    max_bytes: int
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _held: int | None = None
    """Bytes of all files; None until they were counted."""

    def get(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return the file called ``name``; where there is none, what ``make`` returns, which is kept. Blocks."""
        content = self.read(name)
        if content is None:
            content = make()
            self._put(self.folder / name, content)
        return content

    def read(self, name: str) -> bytes | None:
        """Return the file called ``name``, or None where there is none. Blocks."""
        path = self.folder / name
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return content

    def _put(self, path: Path, content: bytes) -> None:
        if len(content) > self.max_bytes:
            return
        with self._guard:
            self.folder.mkdir(parents=True, exist_ok=True)
            staged = path.with_name(f"{uuid4().hex}.part")
            staged.write_bytes(content)
            staged.replace(path)  # whole or not at all, whoever else reads or writes it
            held = self._counted() if self._held is None else self._held + len(content)
            self._held = self._shrunk() if held > self.max_bytes else held

    def _counted(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _shrunk(self) -> int:
        """Delete the oldest files until there is room again; return the bytes that are left."""
        files = sorted(self._files())
        held = sum(size for _, size, _ in files)
        for _, size, path in files:
            if held <= _LEFT * self.max_bytes:
                break
            Path(path).unlink(missing_ok=True)
            held -= size
        return held

    def _files(self) -> list[tuple[float, int, str]]:
        """Return when each file was used, its bytes and its path."""
        found = []
        with os.scandir(self.folder) as listed:
            for entry in listed:
                try:
                    facts = entry.stat()
                except OSError:  # another process has deleted it
                    continue
                found.append((facts.st_mtime, facts.st_size, entry.path))
        return found


@dataclass(slots=True)
class Thumbnails:
    """Makes and keeps the small pictures."""

    kept: ThumbnailFolder
    settings: Settings
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    async def get(self, asset: Asset, size: str) -> bytes:
        """Return the small picture, WebP. ``size``: a key of ``SIDES``.

        Raises ``ServiceError``: UNREADABLE_PICTURE, PICTURE_TOO_LARGE, BODY_TOO_LARGE.
        """
        known = hashlib.sha256(f"{asset.id} {size} ".encode() + asset.content_hash).hexdigest()[:40]
        name = f"{known}.webp"
        kept = await asyncio.to_thread(self.kept.read, name)
        if kept is not None:
            return kept
        async with self._turns:
            return await asyncio.to_thread(self.kept.get, name, lambda: self._make(asset, SIDES[size]))

    def _make(self, asset: Asset, side: int) -> bytes:
        with file_contents.refusals_of_the_place(asset.uri):
            data = file_contents.load(asset.uri, self.settings)
        return to_webp(upright_pixels(data, max_pixels=self.settings.max_picture_pixels, at_least=side), side)


def to_webp(image: Image.Image, side: int) -> bytes:
    """Return ``image``, RGB, as WebP whose longer side has at most ``side`` pixels."""
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY, method=4)
    return buffer.getvalue()
