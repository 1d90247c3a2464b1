"""Runs of indexing on a real database and a service that is pretended."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest

from search.indexing import predictor, run
from search.indexing.places import place
from search.indexing.plan import Options
from search.indexing.predictor import CannotGoOn, Predictor
from search.indexing.retries import RetryingDatabase
from search.indexing.run import Run, Tally
from search.indexing.worker import Worker
from search.store import index as store
from search.store.database import Database
from search.store.records import Failed
from search.store.vector_indexes import index_owners
from settings import Settings
from tests.search.indexing.fake_service import MODELS, FakeService, error
from tests.search.indexing.files import picture, video


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "FIRST_WAIT", 0.001)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return a folder of four pictures, one of them broken and one, a JPEG, with a wrong name."""
    folder = tmp_path / "library"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("one.jpg", "two.heic", "sub/three.jpg")):
        (folder / name).write_bytes(picture(number))
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def index(
    database: Database,
    *addresses: Path | str,
    service: FakeService | None = None,
    run_with: Options | None = None,
    config: Settings | None = None,
) -> Tally:
    options = run_with or Options()
    options = replace(options, models=options.models or MODELS)

    async def inside() -> Tally:
        async with (service or FakeService()).client() as client:
            patient = RetryingDatabase(database, give_up_after=5)
            places = [place(str(address)) for address in addresses]
            roots = [one.uri for one in places]
            worker = Worker(patient, Predictor(client, give_up_after=5), config or Settings(), options, roots)
            return await Run(patient, worker, options).index(places)

    return asyncio.run(inside())


def names(database: Database) -> list[str]:
    async def inside() -> Sequence[tuple[str, object]]:
        async with database.connection() as connection:
            return await store.uris_after(connection, "", "/", "", 1000)

    return sorted(Path(uri).name for uri, _ in asyncio.run(inside()))


def failed(database: Database) -> list[Failed]:
    async def inside() -> list[Failed]:
        async with database.connection() as connection:
            return await store.failures(connection)

    return asyncio.run(inside())


def figures(tally: Tally) -> dict[str, int]:
    found = {
        name: getattr(tally, name)
        for name in ("computed", "unchanged", "touched", "moved", "removed", "failed", "failed_before")
    }
    return {name: number for name, number in found.items() if number}


def test_a_second_run_sends_nothing(database: Database, library: Path) -> None:
    first = index(database, library)
    assert (first.seen, first.done, figures(first)) == (4, 4, {"computed": 3, "failed": 1})
    service = FakeService()
    second = index(database, library, service=service)
    assert (figures(second), service.asked) == ({"unchanged": 3, "failed_before": 1}, [])


def test_owners_get_their_indexes_at_the_end_of_a_run_that_did_something(
    database: Database, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def counted(connection: store.Connection, model: str) -> None:
        asked.append(model)
        await index_owners(connection, model)

    monkeypatch.setattr(run, "index_owners", counted)
    index(database, library)
    assert asked == [MODELS["clip"]]
    index(database, library)
    assert len(asked) == 1, "nothing was new"
    (library / "one.jpg").unlink()
    index(database, library)
    assert len(asked) == 2


def test_a_run_that_was_told_to_stop_makes_no_index_of_owners(
    database: Database, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_asset = store.put_asset

    async def unexpected(connection: store.Connection, model: str) -> None:
        raise AssertionError("an index was begun")

    async def inside() -> Tally:
        async with FakeService().client() as client:
            patient, options = RetryingDatabase(database, give_up_after=5), Options(models=MODELS, jobs=1)
            worker = Worker(patient, Predictor(client, give_up_after=5), Settings(), options, [str(library)])
            one = Run(patient, worker, options)

            async def put_and_stop(*given: Any, **named: Any) -> Any:
                one.stop()
                return await put_asset(*given, **named)

            monkeypatch.setattr("search.indexing.worker.put_asset", put_and_stop)
            return await one.index([place(str(library))])

    monkeypatch.setattr(run, "index_owners", unexpected)
    assert asyncio.run(inside()).computed > 0


def test_a_broken_picture_is_tried_again_when_asked_and_when_it_was_mended(database: Database, library: Path) -> None:
    index(database, library)
    assert figures(index(database, library, run_with=Options(retry_failed=True))) == {"unchanged": 3, "failed": 1}
    (one,) = failed(database)
    assert (Path(str(one.uri)).name, one.task, one.code, one.attempts) == (
        "broken.png",
        "read",
        "unreadable_picture",
        2,
    )
    (library / "broken.png").write_bytes(picture(9, kind="PNG"))
    assert figures(index(database, library)) == {"unchanged": 3, "computed": 1}
    assert failed(database) == []


def test_a_touched_file_is_read_but_not_sent_and_a_changed_one_is(database: Database, library: Path) -> None:
    index(database, library)
    os.utime(library / "one.jpg", (1_700_000_000, 1_700_000_000))
    (library / "two.heic").write_bytes(picture(22))
    service = FakeService()
    assert figures(index(database, library, service=service)) == {
        "unchanged": 1,
        "touched": 1,
        "computed": 1,
        "failed_before": 1,
    }
    assert [sent for sent, _ in service.asked] == [picture(22)]
    assert figures(index(database, library)) == {"unchanged": 3, "failed_before": 1}


def test_a_deleted_file_is_removed_and_a_moved_one_is_not_sent_again(database: Database, library: Path) -> None:
    index(database, library)
    (library / "one.jpg").unlink()
    (library / "two.heic").rename(library / "sub" / "renamed.jpg")
    service = FakeService()
    assert figures(index(database, library, service=service)) == {
        "unchanged": 1,
        "moved": 1,
        "removed": 1,
        "failed_before": 1,
    }
    assert service.asked == []
    assert names(database) == ["broken.png", "renamed.jpg", "three.jpg"]
    assert figures(index(database, library)) == {"unchanged": 2, "failed_before": 1}


def test_a_copy_is_a_picture_of_its_own(database: Database, library: Path) -> None:
    index(database, library)
    shutil.copy(library / "one.jpg", library / "copy.jpg")
    assert figures(index(database, library))["computed"] == 1
    assert "copy.jpg" in names(database)
    assert "one.jpg" in names(database)


def test_a_file_outside_of_what_is_indexed_is_never_taken_for_one_that_moved_in(
    database: Database, library: Path, tmp_path: Path
) -> None:
    index(database, library)
    shutil.copytree(library, tmp_path / "backup")
    shutil.rmtree(library)  # a disk that is not there
    assert "moved" not in figures(index(database, tmp_path / "backup"))
    assert len(names(database)) == 8


def test_an_empty_folder_and_one_that_is_gone_remove_nothing_unless_told_to(database: Database, library: Path) -> None:
    index(database, library)
    shutil.rmtree(library)
    library.mkdir()
    tally = index(database, library)
    assert "Is the disk there?" in tally.warnings[0]
    library.rmdir()
    tally = index(database, library)
    assert "nothing was removed" in tally.warnings[-1]
    assert len(names(database)) == 4
    assert index(database, library, run_with=Options(prune=True)).removed == 4
    assert names(database) == []
    assert failed(database) == []


def test_most_of_a_library_is_not_removed_unless_told_to(database: Database, tmp_path: Path) -> None:
    for number in range(22):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number))
    index(database, tmp_path)
    for number in range(12):
        (tmp_path / f"{number}.jpg").unlink()
    tally = index(database, tmp_path)
    assert tally.removed == 0
    assert "12 of the 22 pictures" in tally.warnings[0]
    (tmp_path / "11.jpg").write_bytes(picture(11))
    assert index(database, tmp_path).removed == 11


def test_a_folder_that_cannot_be_listed_keeps_all_of_the_library(
    database: Database, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(database, library)
    (library / "one.jpg").unlink()
    true_scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("/sub"):
            raise PermissionError(13, "Permission denied")
        return true_scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    tally = index(database, library)
    assert tally.removed == 0
    assert any("could not be listed: Permission denied" in warning for warning in tally.warnings)
    assert "one.jpg" in names(database)


def test_owners_do_not_touch_each_others_pictures(database: Database, library: Path) -> None:
    index(database, library)
    assert figures(index(database, library, run_with=Options("bob"))) == {"computed": 3, "failed": 1}
    (library / "one.jpg").unlink()
    assert index(database, library, run_with=Options("bob")).removed == 1
    assert "one.jpg" in names(database)


def test_a_task_that_was_left_out_is_made_up_for_without_the_others(database: Database, library: Path) -> None:
    index(database, library, run_with=Options(models={"ocr": MODELS["ocr"]}))
    service = FakeService()
    assert figures(index(database, library, service=service)) == {"computed": 3, "failed_before": 1}
    assert {tasks for _, tasks in service.asked} == {frozenset({"clip"})}


def test_another_model_computes_its_task_anew(database: Database, library: Path) -> None:
    index(database, library)
    service = FakeService()
    tally = index(database, library, service=service, run_with=Options(models={**MODELS, "clip": "ViT-B-16"}))
    assert (tally.computed, {tasks for _, tasks in service.asked}) == (3, {frozenset({"clip"})})


def test_a_task_that_failed_for_a_picture_is_not_tried_again_but_the_other_is_there(
    database: Database, library: Path
) -> None:
    service = FakeService(
        lambda sent, tasks: error(422, "odd_picture") if "ocr" in tasks and sent == picture(0) else None
    )
    first = index(database, library, service=service)
    assert (first.computed, first.failed) == (3, 2)
    assert {(one.task, one.code) for one in failed(database)} == {
        ("read", "unreadable_picture"),
        ("ocr", "odd_picture"),
    }
    assert figures(index(database, library)) == {"unchanged": 2, "failed_before": 2}
    assert figures(index(database, library, run_with=Options(retry_failed=True))) == {
        "unchanged": 2,
        "computed": 1,
        "failed": 1,
    }


def test_a_file_that_is_too_large_or_cannot_be_opened_is_told_and_not_held_against_it(
    database: Database, library: Path
) -> None:
    (library / "gone.jpg").write_bytes(picture(5))
    (library / "gone.jpg").chmod(0)
    (library / "large.jpg").write_bytes(picture(6) + bytes(100_000))
    tally = index(database, library, config=Settings(max_body_bytes=50_000))
    codes = {Path(str(one.uri)).name: one.code for one in failed(database)}
    assert codes["large.jpg"] == "body_too_large"
    if os.geteuid() != 0:  # root may open everything
        assert codes["gone.jpg"] == "unreadable_picture"
    assert tally.done == 6
    (library / "large.jpg").unlink()
    index(database, library)
    assert "large.jpg" not in {Path(str(one.uri)).name for one in failed(database)}


def test_a_video_is_one_picture_of_its_middle(database: Database, tmp_path: Path) -> None:
    video(tmp_path / "film.mp4")
    service = FakeService()
    assert figures(index(database, tmp_path, service=service)) == {"computed": 1}
    ((sent, _),) = service.asked
    assert sent.startswith(b"\xff\xd8")
    assert figures(index(database, tmp_path)) == {"unchanged": 1}


def test_an_object_store_is_indexed_like_a_folder(database: Database) -> None:
    system = fsspec.filesystem("memory")
    for number in range(3):
        system.pipe_file(f"/bucket/{number}.jpg", picture(number))
    try:
        assert figures(index(database, "memory://bucket")) == {"computed": 3}
        system.rm("/bucket/1.jpg")
        assert figures(index(database, "memory://bucket")) == {"unchanged": 2, "removed": 1}
    finally:
        system.rm("/bucket", recursive=True)


def test_a_name_that_is_not_utf_8_is_indexed_and_removed(database: Database, tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).write_bytes(picture(1))
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    (tmp_path / "one.jpg").write_bytes(picture(2))
    assert figures(index(database, tmp_path)) == {"computed": 2}
    assert figures(index(database, tmp_path)) == {"unchanged": 2}


def test_a_path_that_no_index_of_the_database_takes_is_left_out_and_told(database: Database, tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(picture(1))
    deep = tmp_path
    here = os.getcwd()
    try:
        for _ in range(12):  # one step at a time, since a call takes 4,096 bytes at most
            os.chdir(deep)
            deep = Path("长" * 60)
            deep.mkdir()
        os.chdir(deep)
        Path("two.jpg").write_bytes(picture(2))
    finally:
        os.chdir(here)
    tally = index(database, tmp_path)
    assert figures(tally) == {"computed": 1}
    assert "1 files were left out: their paths are longer" in tally.warnings[0]


def test_an_error_of_everybodys_ends_the_run_and_the_next_goes_on(database: Database, library: Path) -> None:
    with pytest.raises(CannotGoOn, match="unknown_model"):
        index(database, library, service=FakeService(lambda sent, tasks: error(422, "unknown_model")))
    assert figures(index(database, library))["computed"] == 3


def test_a_run_that_is_stopped_finishes_what_it_began_and_removes_nothing(database: Database, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}.jpg").write_bytes(picture(number))
    index(database, tmp_path)
    (tmp_path / "00.jpg").unlink()
    for number in range(1, 20):
        (tmp_path / f"{number:02}.jpg").write_bytes(picture(number + 100))

    async def inside() -> tuple[Tally, int]:
        service = FakeService()
        async with service.client() as client:
            patient, options = RetryingDatabase(database), Options(jobs=2, models=MODELS)
            run = Run(patient, Worker(patient, Predictor(client), Settings(), options, [str(tmp_path)]), options)

            def answer(sent: bytes, tasks: set[str]) -> httpx.Response | None:
                run.stop()
                return None

            service.answer = answer
            return await run.index([place(str(tmp_path))]), len(service.asked)

    tally, asked = asyncio.run(inside())
    assert tally.computed == asked <= 2
    assert tally.removed == 0
    assert figures(index(database, tmp_path)) == {"computed": 19 - asked, "unchanged": asked, "removed": 1}
