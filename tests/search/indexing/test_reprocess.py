"""Doing pictures of our own index again, from their files, in a real database."""

from __future__ import annotations

import asyncio
import io
from datetime import datetime, timezone
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest
from PIL import Image

from errors import ErrorCode, ServiceError
from search.immich.settings import DEFAULT_OCR_OPTIONS
from search.indexing.file_contents import picture_hash
from search.indexing.recompute import RunnersRecompute
from search.indexing.redo import Redone, RedoTask
from search.indexing.reprocess import all_assets, failed_assets, reprocess
from search.store import index as store
from search.store.database import Database, Facts
from search.store.records import File, Line, Problem, Text, Vector
from tests.compat.fake_runners import FakeRunners
from tests.search.indexing.redoing import BOX, BROKEN, FakeRecompute, models, picture, rows, run, settings

BOTH = [RedoTask.OCR, RedoTask.CLIP]
TINY = settings(clip_model="cn-clip-tiny")
NAME = "cn-clip-tiny"


def index(database: Database, path: Path, *texts: str, model: str = NAME, data: bytes | None = None) -> UUID:
    """Store a file as ``python -m search index`` takes it in."""
    path.write_bytes(data or picture())
    content = path.read_bytes()
    file = File("", str(path), "image", len(content), datetime.now(timezone.utc), picture_hash(content))
    numbers = np.zeros(512, np.float32)
    numbers[0] = 1
    text = Text("PP-OCRv6_small", tuple(Line(text, BOX, 0.9, 0.9) for text in texts))
    return run(database, lambda connection: store.put_asset(connection, file, vector=Vector(model, numbers), text=text))


def redo(database: Database, asset: UUID, recompute: FakeRecompute, tasks: list[RedoTask] = BOTH) -> Redone:
    return asyncio.run(reprocess(database, asset, tasks, recompute, models(database, TINY), TINY))


def texts(database: Database, asset: UUID) -> tuple[str, list[str]]:
    """Return the text of the document, and those of the lines."""
    ((text,),) = rows(database, "select text from immich_ai.ocr_document where asset_id = %s", asset)
    return text, [
        line for (line,) in rows(database, "select text from immich_ai.ocr_line where asset_id = %s order by n", asset)
    ]


def vector(database: Database, asset: UUID) -> str:
    ((found,),) = rows(database, "select vector::text from immich_ai.embedding where asset_id = %s", asset)
    return str(found)


def test_what_is_read_anew_replaces_all_that_was_read_before(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg", "旧的文字", "第二行")
    before = vector(database, asset)
    done = redo(database, asset, FakeRecompute("新的文字"))
    assert texts(database, asset) == ("新的文字", ["新的文字"])
    assert vector(database, asset) != before
    assert done.done == [RedoTask.OCR, RedoTask.CLIP]


def test_one_task_leaves_the_other_as_it_is(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg", "旧")
    before = vector(database, asset)
    redo(database, asset, FakeRecompute("新"), [RedoTask.OCR])
    assert vector(database, asset) == before
    redo(database, asset, FakeRecompute("无人读"), [RedoTask.CLIP])
    assert texts(database, asset) == ("新", ["新"])
    assert vector(database, asset) != before


def test_a_picture_without_text_any_more_is_read_and_empty(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg", "幻觉")
    redo(database, asset, FakeRecompute())
    assert texts(database, asset) == ("", [])


def test_a_failing_computation_writes_nothing(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg", "旧")
    before = vector(database, asset)
    recompute = FakeRecompute("新")
    recompute.error = BROKEN
    with pytest.raises(ServiceError) as caught:
        redo(database, asset, recompute)
    assert caught.value is BROKEN
    assert texts(database, asset) == ("旧", ["旧"])
    assert vector(database, asset) == before
    assert rows(database, "select * from immich_ai.failure") == []


def test_success_forgets_the_failures_of_its_tasks(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg")
    other = index(database, tmp_path / "b.jpg")
    problems = [Problem("ocr", "timeout", "It took too long."), Problem("clip", "timeout", "It took too long.")]

    async def fail(connection: store.Connection) -> None:
        known = await store.get_asset(connection, asset)
        for problem in problems:
            await store.put_problem(connection, known.owner, known.uri, problem, asset)

    run(database, fail)
    assert asyncio.run(failed_assets(database)) == [asset]
    redo(database, asset, FakeRecompute("字"), [RedoTask.OCR])
    assert rows(database, "select task from immich_ai.failure") == [("clip",)]
    redo(database, asset, FakeRecompute("字"))
    assert asyncio.run(failed_assets(database)) == []
    assert asyncio.run(all_assets(database)) == sorted([asset, other])


def test_a_file_that_has_changed_is_done_as_a_whole(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg", "旧")
    before = vector(database, asset)
    (tmp_path / "a.jpg").write_bytes(picture("red"))
    redo(database, asset, FakeRecompute("新"), [RedoTask.OCR])
    assert texts(database, asset) == ("新", ["新"])
    assert vector(database, asset) != before
    ((known,),) = rows(database, "select content_hash from immich_ai.asset where id = %s", asset)
    assert known == picture_hash((tmp_path / "a.jpg").read_bytes())


def test_a_file_that_is_gone_or_no_picture_is_refused_by_name(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg", "旧")
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ServiceError) as caught:
        redo(database, asset, FakeRecompute("新"))
    assert caught.value.code is ErrorCode.UNREADABLE_PICTURE
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ServiceError, match=r"a\.jpg") as caught:
        redo(database, asset, FakeRecompute("新"))
    assert caught.value.code is ErrorCode.UNREADABLE_PICTURE
    assert texts(database, asset) == ("旧", ["旧"])


def test_an_unknown_asset_is_said_to_be_unknown(database: Database) -> None:
    with pytest.raises(ServiceError) as caught:
        redo(database, uuid4(), FakeRecompute("新"))
    assert caught.value.code is ErrorCode.UNKNOWN_ASSET


def test_faces_are_refused_where_none_are_kept(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg", "旧")
    with pytest.raises(ServiceError, match="only Immich") as caught:
        redo(database, asset, FakeRecompute("新"), [RedoTask.OCR, RedoTask.FACES])
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert texts(database, asset) == ("旧", ["旧"])


def test_vectors_of_another_model_are_not_mixed_with(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg", "旧", model="ViT-B-16")
    with pytest.raises(ServiceError, match=r"ViT-B-16.*cn-clip-tiny.*CLIP_MODEL=ViT-B-16") as caught:
        redo(database, asset, FakeRecompute("新"))
    assert caught.value.code is ErrorCode.STORED_MODEL_DIFFERS
    assert texts(database, asset) == ("旧", ["旧"])
    redo(database, asset, FakeRecompute("新"), [RedoTask.OCR])  # text has nothing to do with it
    assert texts(database, asset) == ("新", ["新"])


def test_one_picture_is_done_again_by_one_at_a_time_and_others_meanwhile(database: Database, tmp_path: Path) -> None:
    one, other = index(database, tmp_path / "a.jpg"), index(database, tmp_path / "b.jpg")
    known = models(database, TINY)

    async def all_at_once(assets: list[UUID], recompute: FakeRecompute) -> int:
        await asyncio.gather(*(reprocess(database, asset, BOTH, recompute, known, TINY) for asset in assets))
        return recompute.most_running

    assert asyncio.run(all_at_once([one] * 3, FakeRecompute("新"))) == 1
    assert asyncio.run(all_at_once([one, other], FakeRecompute("新"))) == 2


def test_a_picture_stored_on_its_side_is_turned_before_it_is_computed_on(database: Database, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored with its top at the right
    file = io.BytesIO()
    Image.new("RGB", (100, 50)).save(file, "JPEG", exif=exif)
    asset = index(database, tmp_path / "a.jpg", data=file.getvalue())
    recompute = FakeRecompute("字")
    redo(database, asset, recompute)
    for sent in recompute.pictures:
        turned = Image.open(io.BytesIO(sent))
        assert turned.size == (50, 100)
        assert turned.getexif().get(0x0112, 1) == 1


def test_the_runners_lines_become_fractions_of_the_picture() -> None:
    runners = FakeRunners()
    recompute = RunnersRecompute(runners, max_pixels=10_000)
    found = asyncio.run(recompute.read(picture(size=(100, 50)), "PP-OCRv6_small", DEFAULT_OCR_OPTIONS))
    assert found.model == "PP-OCRv6_small"
    (line,) = found.lines
    assert line.text == "发票 A-1"
    assert line.box == pytest.approx((0.1, 0.1, 0.5, 0.1, 0.5, 0.3, 0.1, 0.3))
    assert (line.box_score, line.text_score) == pytest.approx((0.75, 0.98765))
    embedded = asyncio.run(recompute.embed(picture(), NAME))
    assert embedded.model == NAME
    with pytest.raises(ServiceError, match="MAX_PICTURE_PIXELS"):
        asyncio.run(recompute.read(picture(size=(200, 100)), "PP-OCRv6_small", DEFAULT_OCR_OPTIONS))


class Together(FakeRecompute):
    """Computes nothing until ``number`` pictures are being computed at the same time."""

    def __init__(self, number: int) -> None:
        super().__init__("新")
        self._number = number
        self._all = asyncio.Event()

    async def _note(self, picture: bytes) -> None:
        self.running += 1
        if self.running == self._number:
            self._all.set()
        await asyncio.wait_for(self._all.wait(), 30)


def test_more_pictures_than_the_pool_has_connections_are_done_again_at_once(database: Database, tmp_path: Path) -> None:
    assets = [index(database, tmp_path / f"{n}.jpg", "旧") for n in range(12)]
    known = models(database, TINY)

    async def story() -> None:
        pooled = Database(database.conninfo, Facts(database.source, database.cutter, ("immich_ai", "public")))
        await pooled.open()
        try:
            together = Together(len(assets))
            await asyncio.gather(*(reprocess(pooled, asset, [RedoTask.OCR], together, known, TINY) for asset in assets))
        finally:
            await pooled.close()

    asyncio.run(story())
    assert {texts(database, asset)[0] for asset in assets} == {"新"}


def test_a_file_that_is_indexed_anew_meanwhile_is_computed_on_again(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg", "旧")

    class IndexedMeanwhile(FakeRecompute):
        async def _note(self, picture: bytes) -> None:
            self.pictures.append(picture)
            if len(self.pictures) == 1:
                await asyncio.to_thread(index, database, tmp_path / "a.jpg", "别的", data=changed)

    changed = picture("red")
    recompute = IndexedMeanwhile("新")
    redo(database, asset, recompute, [RedoTask.OCR])
    assert recompute.pictures == [picture(), changed]
    assert texts(database, asset) == ("新", ["新"])
