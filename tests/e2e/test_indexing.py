"""``python -m search index`` against the real service: ten files, kept up to date."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.e2e.indexed import KEY, Place, place
from tests.search.indexing.files import picture, video
from tools.harness.rendered import Look, jpeg, page

LINES = ("增值税电子发票 No. 42", "雪地里的小狗", "RE16 零件清单", "会议室 A-102", "Hello world 你好", "人民广场地铁站")


@pytest.fixture(scope="module")
def here() -> Iterator[Place]:
    with place() as one, one.server():
        yield one


@pytest.fixture(scope="module")
def library(here: Place) -> Path:
    """Return a folder of six rendered texts, one of them lying on its side, a picture without text, a broken one, a
    video, and one that is not read.
    """
    folder = here.folder / "library"
    (folder / "sub").mkdir(parents=True)
    for number, line in enumerate(LINES[:5]):
        (folder / f"text{number}.jpg").write_bytes(
            jpeg(page([line], size=(720, 240), look=Look(font_size=48), margin=60))
        )
    lying, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    page([LINES[5]], size=(720, 240), look=Look(font_size=48), margin=60).rotate(90, expand=True).save(
        lying, "JPEG", exif=exif, quality=90
    )
    (folder / "sub" / "lying.jpg").write_bytes(lying.getvalue())
    Image.new("RGB", (200, 200), (120, 150, 90)).save(folder / "plain.png")  # no edge that could be read as a stroke
    (folder / "broken.jpg").write_bytes((folder / "text0.jpg").read_bytes()[:4000])
    video(folder / "sub" / "film.mp4", size=(320, 240))
    return folder


def test_a_library_is_indexed_kept_up_to_date_and_found(here: Place, library: Path) -> None:
    said = here.run("index", str(library))
    assert "9 files" in said
    assert "8 computed, 1 failed" in said
    assert "broken.jpg" in said
    for line in (line.replace(" ", "") for line in LINES):
        read = "SELECT a.uri FROM immich_ai.asset a JOIN immich_ai.ocr_document d ON d.asset_id = a.id"
        (only,) = here.rows(f"{read} WHERE replace(d.text, ' ', '') = '{line}'")
        assert Path(only["uri"]).parent in (library, library / "sub")
    vectors, empty = (
        "(SELECT count(*) FROM immich_ai.embedding) AS vectors",
        "count(*) FILTER (WHERE text = '') AS empty",
    )
    counts = here.rows(f"SELECT {vectors}, {empty} FROM immich_ai.ocr_document")
    assert counts == [{"vectors": 8, "empty": 2}]

    log = Path(here.folder / "serve.log")
    sent = log.read_text().count("POST /predict")
    assert "0 computed, 8 unchanged, 1 failed before" in here.run("index", str(library))
    assert log.read_text().count("POST /predict") == sent

    os.utime(library / "text0.jpg", (1_700_000_000, 1_700_000_000))
    (library / "text1.jpg").unlink()
    (library / "broken.jpg").write_bytes((library / "text2.jpg").read_bytes())
    said = here.run("index", str(library), "--retry-failed")
    assert "1 computed, 6 unchanged, 1 touched, with the same content, 1 removed" in said
    assert log.read_text().count("POST /predict") == sent + 1
    stats = httpx.get(here.server().url + "/stats", headers={"api-key": KEY}, timeout=30).json()
    assert {name: stats[name] for name in ("assets", "read", "empty", "failed", "waiting", "embedded")} == {
        "assets": 8, "read": 6, "empty": 2, "failed": 0, "waiting": 0, "embedded": 8,
    }  # fmt: skip

    found = httpx.get(
        here.server().url + "/search", params={"q": "ocr:零件"}, headers={"api-key": KEY}, timeout=30
    ).json()
    assert {hit["name"] for hit in found["hits"]} == {"text2.jpg", "broken.jpg"}


def test_pictures_are_done_again_and_one_that_is_unknown_is_told(here: Place, library: Path) -> None:
    one = str(here.rows("SELECT id FROM immich_ai.asset ORDER BY uri LIMIT 1")[0]["id"])
    unknown = "00000000-0000-0000-0000-000000000000"
    process = here.command("reprocess", one, unknown, "--tasks", "clip")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "1 done again, 1 failed" in said
    assert f"The index has no asset {unknown}" in said


def test_ctrl_c_finishes_what_is_in_flight_and_says_how_to_go_on(here: Place) -> None:
    folder = here.folder / "many"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}.png").write_bytes(picture(number, kind="PNG"))
    command = here.command("index", str(folder), "--owner", "ann")
    while not here.rows("SELECT FROM immich_ai.asset WHERE owner = 'ann'"):
        assert command.poll() is None
    command.send_signal(signal.SIGINT)
    said, _ = command.communicate(timeout=60)
    assert command.returncode == 130, said
    assert "Finishing what is in flight" in said
    assert "goes on from here" in said
    (row,) = here.rows("SELECT count(*) AS n FROM immich_ai.asset WHERE owner = 'ann'")
    assert 0 < row["n"] < 300
    (half,) = here.rows(
        "SELECT count(*) AS n FROM immich_ai.asset a WHERE NOT EXISTS (SELECT FROM immich_ai.embedding e WHERE "
        "e.asset_id = a.id)"
    )
    assert half["n"] == 0
