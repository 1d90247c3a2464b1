"""Doing Immich's pictures again: uploads, re-reads, deletions and a changed model, played into Immich's own tables."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from datetime import datetime, timezone
from uuid import UUID, uuid4

import psycopg
import pytest
from PIL import Image
from psycopg.conninfo import make_conninfo

from errors import ErrorCode, ServiceError
from search.indexing.redo import Redone, RedoTask
from search.indexing.reprocess import all_assets, failed_assets, reprocess
from search.store.database import Database, Facts
from search.store.grants import grants
from settings import Settings
from tests.fake_immich import FakeImmich
from tests.search.conftest import UnpooledDatabase
from tests.search.indexing.redoing import BROKEN, FakeRecompute, models, picture, rows, settings, upload

BOTH = [RedoTask.OCR, RedoTask.CLIP]


@pytest.fixture
def immich() -> Iterator[FakeImmich]:
    with FakeImmich() as fake:
        yield fake


def configured(immich: FakeImmich, **overrides: object) -> Settings:
    return settings(
        **({"clip_model": "cn-clip-tiny", "immich_url": immich.url, "immich_api_key": immich.key} | overrides)
    )


def redo(
    database: Database,
    immich: FakeImmich,
    asset: UUID,
    recompute: FakeRecompute,
    tasks: list[RedoTask] = BOTH,
    **overrides: object,
) -> Redone:
    immich.previews.setdefault(str(asset), picture())
    config = configured(immich, **overrides)
    return asyncio.run(reprocess(database, asset, tasks, recompute, models(database, config), config))


def stored(database: Database, asset: UUID) -> tuple[list[str], list[str], str]:
    """Return the texts of Immich's lines, its search row if there is one, and the vector."""
    lines = rows(database, 'select text from asset_ocr where "assetId" = %s order by y1', asset)
    search = rows(database, 'select text from ocr_search where "assetId" = %s', asset)
    ((vector,),) = rows(database, 'select embedding::text from smart_search where "assetId" = %s', asset)
    return [text for (text,) in lines], [text for (text,) in search], vector


def test_the_rows_are_those_that_immich_writes(immich_database: Database, immich: FakeImmich) -> None:
    asset = upload(immich_database, "旧的文字", "第二行")
    before = datetime.now(timezone.utc)
    redo(immich_database, immich, asset, FakeRecompute("营业执照", "No. A-102 号"))
    texts, search, vector = stored(immich_database, asset)
    assert texts == ["营业执照", "No. A-102 号"]
    assert search == ["营业 业执 执照 No. A-102 号"]
    assert vector.startswith("[0,1,0,")
    ((read_at,),) = rows(immich_database, 'select "ocrAt" from asset_job_status where "assetId" = %s', asset)
    assert before <= read_at <= datetime.now(timezone.utc)
    line = rows(
        immich_database,
        'select x1, y1, x2, y2, x3, y3, x4, y4, "boxScore", "textScore", "isVisible" from asset_ocr where '
        '"assetId" = %s order by y1',
        asset,
    )[0]
    assert line == pytest.approx((0.1, 0.1, 0.5, 0.1, 0.5, 0.2, 0.1, 0.2, 0.9, 0.95, True))


def test_our_own_document_follows_in_the_same_transaction(immich_database: Database, immich: FakeImmich) -> None:
    asset = upload(immich_database, "旧的文字")
    redo(immich_database, immich, asset, FakeRecompute("新的", "文字"))
    ((text, model, source_read_at),) = rows(
        immich_database, "select text, model, source_read_at from immich_ai.ocr_document where asset_id = %s", asset
    )
    assert (text, model) == ("新的\n文字", "PP-OCRv5_mobile")
    assert [(source_read_at,)] == rows(
        immich_database, 'select "ocrAt" from asset_job_status where "assetId" = %s', asset
    )
    assert (
        rows(immich_database, "select * from immich_ai.stale_documents(%s, 10, true)", UUID(int=0)) == []
    )  # sync has nothing to do


def test_text_that_is_no_longer_read_disappears_everywhere(immich_database: Database, immich: FakeImmich) -> None:
    asset = upload(immich_database, "幻觉")
    redo(immich_database, immich, asset, FakeRecompute(), [RedoTask.OCR])
    texts, search, _ = stored(immich_database, asset)
    assert (texts, search) == ([], [])
    assert rows(immich_database, "select text from immich_ai.ocr_document where asset_id = %s", asset) == [("",)]


def test_lines_that_an_edit_had_hidden_stay_hidden(immich_databases: Database, immich: FakeImmich) -> None:
    asset = upload(immich_databases, "第一行", "被裁掉的")
    hide = """update asset_ocr set "isVisible" = false where "assetId" = %s and text = '被裁掉的'"""
    rows(immich_databases, hide, asset)
    redo(immich_databases, immich, asset, FakeRecompute("第一行新", "被裁掉的新", "第三行"), [RedoTask.OCR])
    written = rows(immich_databases, 'select text, "isVisible" from asset_ocr where "assetId" = %s order by y1', asset)
    assert written == [("第一行新", True), ("被裁掉的新", False), ("第三行", True)]
    _, search, _ = stored(immich_databases, asset)
    assert search == ["第一 一行 行新 第三 三行"]
    ((text,),) = rows(immich_databases, "select text from immich_ai.ocr_document where asset_id = %s", asset)
    assert text == "第一行新\n第三行"


def test_an_immich_before_2_5_hides_nothing(immich_database: Database, immich: FakeImmich) -> None:
    asset = upload(immich_database, "旧")
    rows(immich_database, "select immich_ai.use_standalone()")
    rows(immich_database, 'alter table asset_ocr drop column "isVisible"')
    rows(immich_database, "select immich_ai.use_immich()")
    redo(immich_database, immich, asset, FakeRecompute("新"), [RedoTask.OCR])
    assert stored(immich_database, asset)[0] == ["新"]


def test_a_picture_that_was_never_read_gets_its_rows(immich_database: Database, immich: FakeImmich) -> None:
    asset = upload(immich_database)
    for table in ("smart_search", "ocr_search", "asset_job_status"):
        rows(immich_database, f'delete from {table} where "assetId" = %s', asset)
    redo(immich_database, immich, asset, FakeRecompute("字"))
    texts, search, vector = stored(immich_database, asset)
    assert (texts, search) == (["字"], ["字"])
    assert vector.startswith("[0,1,")


def test_a_failing_computation_or_an_immich_that_is_away_writes_nothing(
    immich_database: Database, immich: FakeImmich
) -> None:
    asset = upload(immich_database, "旧")
    before = stored(immich_database, asset)
    recompute = FakeRecompute("新")
    recompute.error = BROKEN
    with pytest.raises(ServiceError):
        redo(immich_database, immich, asset, recompute)
    immich.previews[str(asset)] = b"no picture"
    with pytest.raises(ServiceError):
        redo(immich_database, immich, asset, FakeRecompute("新"))
    immich.status = 500
    with pytest.raises(ServiceError) as caught:
        redo(immich_database, immich, asset, FakeRecompute("新"), [*BOTH, RedoTask.FACES])
    assert caught.value.code is ErrorCode.IMMICH_UNAVAILABLE
    assert stored(immich_database, asset) == before


def test_a_job_for_faces_that_immich_refuses_writes_nothing_either(
    immich_database: Database, immich: FakeImmich, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = upload(immich_database, "旧")
    before = stored(immich_database, asset)
    usual = immich.answer
    monkeypatch.setattr(
        immich, "answer", lambda request, key, body: (403, b"{}") if "jobs" in request else usual(request, key, body)
    )
    with pytest.raises(ServiceError, match=r"job\.create"):
        redo(immich_database, immich, asset, FakeRecompute("新"), [*BOTH, RedoTask.FACES])
    assert stored(immich_database, asset) == before


def test_faces_are_immichs_own_job_and_need_no_picture(immich_database: Database, immich: FakeImmich) -> None:
    asset = upload(immich_database, "字")
    assert redo(immich_database, immich, asset, FakeRecompute(), [RedoTask.FACES]).done == [RedoTask.FACES]
    assert immich.requests == ["POST /api/assets/jobs"]
    assert immich.jobs == [{"assetIds": [str(asset)], "name": "refresh-faces"}]


@pytest.mark.parametrize("change", ['"deletedAt" = now()', "visibility = 'hidden'", "visibility = 'locked'"])
def test_what_search_does_not_show_is_not_done_again(
    immich_database: Database, immich: FakeImmich, change: str
) -> None:
    asset = upload(immich_database, "旧")
    rows(immich_database, f"update public.asset set {change} where id = %s", asset)
    with pytest.raises(ServiceError) as caught:
        redo(immich_database, immich, asset, FakeRecompute("新"))
    assert caught.value.code is ErrorCode.UNKNOWN_ASSET
    assert immich.requests == []
    assert asyncio.run(all_assets(immich_database)) == []


def test_a_picture_that_immich_deletes_meanwhile_is_unknown_and_leaves_nothing(
    immich_database: Database, immich: FakeImmich
) -> None:
    asset = upload(immich_database, "旧")

    class DeletedMeanwhile(FakeRecompute):
        async def _note(self, picture: bytes) -> None:
            async with await psycopg.AsyncConnection.connect(immich_database.conninfo) as other:
                await other.execute("delete from public.asset where id = %s", (asset,))

    with pytest.raises(ServiceError) as caught:
        redo(immich_database, immich, asset, DeletedMeanwhile("新"))
    assert caught.value.code is ErrorCode.UNKNOWN_ASSET
    assert rows(immich_database, "select * from asset_ocr") == []
    assert rows(immich_database, "select * from immich_ai.ocr_document") == []
    with pytest.raises(ServiceError):
        redo(immich_database, immich, uuid4(), FakeRecompute("新"))


def change_model(database: Database, size: int) -> None:
    """Change the column as Immich does when a CLIP model of another size is chosen."""
    rows(database, "truncate smart_search")
    rows(database, "drop index clip_index")
    rows(database, f"alter table smart_search alter column embedding set data type vector({size})")


def test_a_model_of_another_size_than_immich_keeps_is_refused(immich_database: Database, immich: FakeImmich) -> None:
    asset = upload(immich_database, "旧")
    change_model(immich_database, 768)
    with pytest.raises(
        ServiceError, match=r"768 numbers, but CLIP_MODEL cn-clip-tiny makes 512.*Smart Search"
    ) as caught:
        redo(immich_database, immich, asset, FakeRecompute("新"))
    assert caught.value.code is ErrorCode.STORED_MODEL_DIFFERS
    assert rows(immich_database, "select text from asset_ocr") == [("旧",)]
    redo(immich_database, immich, asset, FakeRecompute("新"), [RedoTask.OCR])
    assert rows(immich_database, "select text from asset_ocr") == [("新",)]


def test_a_model_that_changes_while_it_is_computed_is_refused_too(
    immich_database: Database, immich: FakeImmich
) -> None:
    asset = upload(immich_database, "旧")
    config = configured(immich)
    known = models(immich_database, config)
    change_model(immich_database, 768)
    immich.previews[str(asset)] = picture()
    with pytest.raises(ServiceError, match="768 dimensions") as caught:
        asyncio.run(reprocess(immich_database, asset, BOTH, FakeRecompute("新"), known, config))
    assert caught.value.code is ErrorCode.STORED_MODEL_DIFFERS
    assert rows(immich_database, "select text from asset_ocr") == [("旧",)]


def test_without_a_model_of_ours_immichs_own_settings_say_what_computes(
    immich_database: Database, immich: FakeImmich
) -> None:
    config = configured(immich, clip_model="")
    defaults = models(immich_database, config)
    assert (defaults.clip, defaults.ocr) == ("ViT-B-32__openai", "PP-OCRv5_mobile")
    options = defaults.ocr_options
    assert (options.min_detection_score, options.min_recognition_score, options.max_resolution) == (0.5, 0.8, 736)
    rows(
        immich_database,
        "insert into public.system_metadata values ('system-config', %s)",
        '{"machineLearning":{"clip":{"modelName":"immich-app/ViT-B-16__openai"},"ocr":{"modelName":"PP-OCRv5_server","maxResolution":1000}}}',
    )
    chosen = models(immich_database, config)
    assert (chosen.clip, chosen.ocr, chosen.clip_refusal) == ("ViT-B-16__openai", "PP-OCRv5_server", None)
    assert (chosen.ocr_options.min_recognition_score, chosen.ocr_options.max_resolution) == (0.8, 1000)
    recompute = FakeRecompute("字")
    redo(immich_database, immich, upload(immich_database), recompute, [RedoTask.OCR])
    assert recompute.options[0].max_resolution == 1000
    rows(
        immich_database,
        "update public.system_metadata set value = %s",
        '{"machineLearning":{"ocr":{"modelName":"Tesseract","maxResolution":"x"}}}',
    )
    assert (
        models(immich_database, config).ocr == "PP-OCRv5_mobile"
    )  # settings that cannot be understood are Immich's defaults
    rows(
        immich_database,
        "update public.system_metadata set value = %s",
        '{"machineLearning":{"ocr":{"modelName":"Tesseract"}}}',
    )
    with pytest.raises(ServiceError, match="Tesseract"):
        models(immich_database, config).ocr_or_refuse()


@pytest.fixture
def reader(immich_database: Database) -> Iterator[tuple[str, Database]]:
    """Yield a role that may search, and no more; and the database as it sees it."""
    name = f"reader_{uuid4().hex[:8]}"
    rows(immich_database, f"create role {name} login password '{name}'")
    rows(immich_database, f"grant usage on schema immich_ai to {name}")
    rows(immich_database, f"grant select on all tables in schema immich_ai to {name}")
    rows(
        immich_database,
        f"grant select on public.asset, public.smart_search, public.asset_ocr, public.asset_job_status to {name}",
    )
    conninfo = make_conninfo(immich_database.conninfo, user=name, password=name)
    yield (
        name,
        UnpooledDatabase(conninfo, Facts(immich_database.source, immich_database.cutter, ("immich_ai", "public"))),
    )
    rows(immich_database, f"drop owned by {name}")
    rows(immich_database, f"drop role {name}")


def test_a_role_that_may_only_read_is_told_what_it_lacks(
    immich_database: Database, immich: FakeImmich, reader: tuple[str, Database]
) -> None:
    asset = upload(immich_database, "旧")
    with pytest.raises(ServiceError, match="search grants") as caught:
        redo(reader[1], immich, asset, FakeRecompute("新"))
    assert caught.value.code is ErrorCode.SEARCH_UNAVAILABLE
    assert stored(immich_database, asset)[0] == ["旧"]


def test_the_rights_that_are_printed_are_enough(
    immich_database: Database, immich: FakeImmich, reader: tuple[str, Database]
) -> None:
    asset = upload(immich_database, "旧")
    name, database = reader
    with psycopg.connect(immich_database.conninfo, autocommit=True) as connection:
        for statement in list(grants(connection, name)):
            if not statement.startswith("--"):
                connection.execute(statement.encode())
    redo(database, immich, asset, FakeRecompute("新"))
    redo(database, immich, asset, FakeRecompute())
    assert stored(immich_database, asset)[:2] == ([], [])
    assert models(database, configured(immich, clip_model="")).ocr == "PP-OCRv5_mobile"


def test_the_forks_row_is_as_the_fork_writes_it(fork_database: Database, immich: FakeImmich) -> None:
    asset = upload(fork_database, tables="assets")
    immich.previews[str(asset)] = picture(size=(200, 100))
    recompute = FakeRecompute("发票", "A-1")
    redo(fork_database, immich, asset, recompute)
    ((text, known),) = rows(fork_database, 'select text, "ocrJson" from ocr_info where "assetId" = %s', asset)
    assert text == "发票 A-1"
    assert (known["texts"], known["scores"]) == (["发票", "A-1"], ["0.95", "0.95"])
    assert known["boxes"][0] == pytest.approx({"x1": 20.0, "y1": 10.0, "x2": 100.0, "y2": 20.0})
    assert recompute.options[0].min_recognition_score == 0.5
    assert rows(fork_database, "select text from immich_ai.ocr_document where asset_id = %s", asset) == [("发票\nA-1",)]
    redo(fork_database, immich, asset, FakeRecompute())
    assert rows(fork_database, "select text from immich_ai.ocr_document where asset_id = %s", asset) == [("",)]


def test_the_preview_is_computed_on_as_it_comes(immich_database: Database, immich: FakeImmich) -> None:
    asset = upload(immich_database, "字")
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (100, 50)).save(file, "JPEG", exif=exif)
    immich.previews[str(asset)] = file.getvalue()
    recompute = FakeRecompute("字")
    redo(immich_database, immich, asset, recompute)
    assert set(recompute.pictures) == {file.getvalue()}


def test_what_failed_is_remembered_until_it_is_done(immich_database: Database, immich: FakeImmich) -> None:
    asset = upload(immich_database, "旧")
    immich.previews[str(asset)] = b"no picture"
    for attempts in (1, 2):
        with pytest.raises(ServiceError):
            redo(immich_database, immich, asset, FakeRecompute("新"))
        remembered = rows(immich_database, "select task, code, attempts from immich_ai.failure order by task")
        assert remembered == [("clip", "unreadable_picture", attempts), ("ocr", "unreadable_picture", attempts)]
    assert asyncio.run(failed_assets(immich_database)) == [asset]
    immich.previews[str(asset)] = picture()
    redo(immich_database, immich, asset, FakeRecompute("新"), [RedoTask.OCR])
    assert rows(immich_database, "select task from immich_ai.failure") == [("clip",)]
    redo(immich_database, immich, asset, FakeRecompute("新"))
    assert asyncio.run(failed_assets(immich_database)) == []


def test_trouble_of_the_service_is_not_remembered_with_a_picture(immich_database: Database, immich: FakeImmich) -> None:
    recompute = FakeRecompute("新")
    recompute.error = BROKEN
    with pytest.raises(ServiceError):
        redo(immich_database, immich, upload(immich_database, "旧"), recompute)
    with pytest.raises(ServiceError):
        redo(immich_database, immich, uuid4(), FakeRecompute("新"))
    assert rows(immich_database, "select * from immich_ai.failure") == []
