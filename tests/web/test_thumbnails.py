"""The folder of small pictures: kept, bounded, the least recently used deleted first."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image

from search.indexing.places import local_uri
from search.store.records import Asset
from settings import Settings
from web.thumbnails import ThumbnailFolder, Thumbnails, to_webp


def never() -> bytes:
    raise AssertionError("It was made before.")


def test_a_file_is_made_once(tmp_path: Path) -> None:
    folder = ThumbnailFolder(tmp_path / "new", 1000)
    assert folder.get("a", lambda: b"1") == folder.get("a", never) == b"1"
    assert ThumbnailFolder(tmp_path / "new", 1000).get("a", never) == b"1"


def test_the_folder_never_holds_more_than_it_may_and_the_oldest_go(tmp_path: Path) -> None:
    folder = ThumbnailFolder(tmp_path, 1000)
    for number in range(50):
        folder.get(str(number), lambda: b"x" * 100)
        os.utime(tmp_path / str(number), (number, number))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000
    assert (tmp_path / "49").exists()
    assert not (tmp_path / "0").exists()


def test_what_lies_there_at_the_start_counts(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / str(number)).write_bytes(b"x" * 100)
        os.utime(tmp_path / str(number), (number, number))
    folder = ThumbnailFolder(tmp_path, 500)
    folder.get("new", lambda: b"x" * 100)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 500
    assert (tmp_path / "new").exists()


@pytest.mark.parametrize("most", [0, 10])
def test_what_is_larger_than_the_folder_is_not_kept(tmp_path: Path, most: int) -> None:
    assert ThumbnailFolder(tmp_path, most).get("a", lambda: b"x" * 11) == b"x" * 11
    assert list(tmp_path.iterdir()) == []


def test_a_kept_picture_waits_for_none_that_is_made(tmp_path: Path) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    asset = Asset("", local_uri(str(tmp_path / "a.png")), "image", 0, datetime.now(timezone.utc), b"1", uuid4())
    thumbnails = Thumbnails(ThumbnailFolder(tmp_path / "kept", 10_000), Settings())

    async def ask() -> tuple[bytes, bytes]:
        made = await thumbnails.get(asset, "thumbnail")
        async with thumbnails._turns, thumbnails._turns:
            return made, await asyncio.wait_for(thumbnails.get(asset, "thumbnail"), 30)

    made, kept = asyncio.run(ask())
    assert made == kept


def test_a_small_picture_is_not_enlarged() -> None:
    assert len(to_webp(Image.new("RGB", (10, 10)), 480)) < 200
