"""``pull`` ends with a whole model in the store, or with an error, an exit code and nothing that is served."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from errors import ModelUnavailable
from models import store
from models.catalog import ModelEntry, ModelKind, load_catalog
from models.places import cache_folder
from models.pull import pull
from models.resolve import resolve
from models.store import stored
from settings import Settings
from tests.models.commands import Ran, Run, runner
from tests.models.conftest import QUICK, write_files
from tools.harness.fake_hub import Fault, Web

MakeSettings = Callable[..., Settings]
MakeEntry = Callable[..., ModelEntry]

ROOT = Path(__file__).parents[2]
DETECTION = b"detection" * 5000
HUB = "immich-app/ViT-B-32__openai"
HUB_FILES = {
    "visual/model.onnx": b"visual" * 1000,
    "visual/preprocess_cfg.json": b"{}",
    "textual/model.onnx": b"textual" * 1000,
    "textual/0a1b2c": b"weights above 2 GB lie in files of any name",
    "textual/tokenizer.json": b'{"a": 1}',
    "textual/tokenizer_config.json": b"{}",
    "config.json": b"{}",
}


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, web: Web, make_entry: MakeEntry
) -> Run:
    """Return the command, with a face model ``own-faces`` whose files lie on the local server, and with low limits."""
    make_entry(web, DETECTION)
    monkeypatch.setenv("MODEL_CATALOG", str(tmp_path / "own.toml"))
    monkeypatch.setenv("MACHINE_LEARNING_CACHE_FOLDER", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    monkeypatch.setattr("models.resolve.Limits", lambda: QUICK)
    return runner(capsys)


@pytest.fixture
def entry(run: Run, tmp_path: Path) -> ModelEntry:
    return load_catalog(tmp_path / "own.toml").find(ModelKind.FACES, "own-faces")


def inode(path: Path) -> int:
    return path.stat().st_ino


# --- from a hub -------------------------------------------------------------------------------------------------------


def test_a_pulled_model_is_in_the_store_verified_and_served_from_there(
    run: Run, entry: ModelEntry, web: Web, make_settings: MakeSettings
) -> None:
    ran = run("pull", "own-faces")
    model = stored("own-faces")
    assert model is not None
    assert (ran.code, ran.out) == (0, f"own-faces: stored as {model.tag} ({model.folder})\n")
    assert (model.folder / "detection/model.onnx").read_bytes() == DETECTION
    found = resolve(entry, make_settings(offline=True))
    assert all(path.is_relative_to(model.folder) for path in found.values())
    assert run("verify", "own-faces").out == f"own-faces (facial-recognition): right, 2 files ({model.folder})\n"
    assert [path.name for path in store.staging_folder().iterdir()] == ["own-faces.lock"]
    asked = len(web.asked)
    assert "already stored" in run("pull", "own-faces").out
    assert len(web.asked) == asked


def test_a_model_of_the_hugging_face_hub_is_pulled_whole_through_hf_endpoint(
    run: Run, web: Web, make_settings: MakeSettings
) -> None:
    web.add_repository(HUB, HUB_FILES)
    assert run("pull", "immich-app/ViT-B-32::openai").code == 0
    model = stored("ViT-B-32__openai")
    assert model is not None
    assert {name: (model.folder / name).read_bytes() for name in model.digests} == HUB_FILES
    assert model.metadata["source"] == f"{HUB}@c0ffee"
    found = resolve(load_catalog().find(ModelKind.CLIP, "ViT-B-32__openai"), make_settings(offline=True), "textual")
    assert {name for name in HUB_FILES if not name.startswith("visual/")} == set(found)
    (model.folder / "textual/0a1b2c").write_bytes(b"damaged")
    assert "damaged, wrong bytes: textual/0a1b2c" in run("verify").err
    with pytest.raises(ModelUnavailable, match="wrong bytes"):
        resolve(load_catalog().find(ModelKind.CLIP, "ViT-B-32__openai"), make_settings(offline=True), "textual")
    assert run("pull", "ViT-B-32__openai").code == 0  # mends it
    assert run("verify", "ViT-B-32__openai").code == 0


def test_a_connection_that_is_cut_is_gone_on_with(run: Run, web: Web) -> None:
    web.faults["/detection.onnx"] = [Fault(cut_after=10_000), Fault(stall_after=20_000)]
    assert run("pull", "own-faces").code == 0
    assert web.gets("/detection.onnx") == [None, "bytes=10000-", "bytes=30000-"]


def test_a_pull_that_failed_half_way_goes_on_next_time(run: Run, web: Web) -> None:
    web.faults["/detection.onnx"] = [Fault(cut_after=10_000), *[Fault(status=503)] * 3]
    assert run("pull", "own-faces").code == 1
    assert run("pull", "own-faces").code == 0
    assert web.gets("/detection.onnx")[-1] == "bytes=10000-"


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (Fault(cut_after=0), "the connection broke"),
        (Fault(body=bytes(len(DETECTION))), "bytes whose digest is"),
        (Fault(body=b"<html>"), "has a file of 6 bytes, not of 45,000"),
        (Fault(status=404), "answered 404"),
        (Fault(status=429, headers={"Retry-After": "3600"}), "asks to wait 3600 s"),
        (Fault(status=500), "answered 500"),
        (Fault(status=503), "answered 503"),
        (Fault(stall_after=0), "sent nothing for"),
    ],
    ids=["cut", "wrong bytes", "web page", "404", "429", "500", "503", "stall"],
)
def test_a_pull_that_fails_says_what_it_tried_and_leaves_no_model(
    run: Run, entry: ModelEntry, web: Web, make_settings: MakeSettings, fault: Fault, complaint: str
) -> None:
    web.faults["/detection.onnx"] = [fault] * 20
    ran = run("pull", "own-faces", "buffalo_s", "--quiet")
    assert (ran.code, ran.out) == (1, "")
    assert complaint in ran.err
    assert f"{web.url}/detection.onnx" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert stored("own-faces") is None
    assert run("verify", "own-faces").code == 1
    assert run("path", "own-faces").code == 1
    assert "own-faces" not in run("list", "--here").out
    with pytest.raises(ModelUnavailable):
        resolve(entry, make_settings(offline=True))


def test_with_the_network_unplugged_pull_says_so_and_names_the_ways_out(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    ran = run("pull", "ViT-B-32__openai")
    assert ran.code == 1
    for part in ("127.0.0.1:9: no connection", "python -m models pull ViT-B-32__openai --from DIR", "HF_ENDPOINT"):
        assert part in ran.err
    monkeypatch.setenv("OFFLINE", "true")
    assert "OFFLINE is set" in run("pull", "own-faces").err


def test_a_cn_clip_that_no_hub_has_is_an_order_to_convert(run: Run, web: Web) -> None:
    ran = run("pull", "ViT-B-16")
    assert ran.code == 1
    for part in (
        "python -m models convert CHECKPOINT --as ViT-B-16",
        f"{web.url}/OFA-Sys/chinese-clip-vit-base-patch16/resolve/main/clip_cn_vit-b-16.pt: 127.0.0.1",
        "http://127.0.0.1:9/ms/models/AI-ModelScope/chinese-clip-vit-base-patch16/resolve/master/clip_cn_vit-b-16.pt",
    ):
        assert part in ran.err


def test_a_model_that_a_package_ships_is_not_stored_twice(run: Run) -> None:
    ran = run("pull", "buffalo_s")
    assert ran.code == 0
    assert "in a package, nothing to fetch" in ran.out
    assert stored("buffalo_s") is None


def test_what_the_service_fetched_before_is_linked_and_not_fetched_again(
    run: Run, entry: ModelEntry, web: Web, make_settings: MakeSettings
) -> None:
    path = resolve(entry, make_settings(), limits=QUICK)["detection/model.onnx"]
    asked = len(web.asked)
    ran = run("pull", "own-faces")
    assert ran.code == 0
    assert f"takes it from {cache_folder(entry, make_settings())}, which comes first" in ran.err
    model = stored("own-faces")
    assert model is not None
    assert inode(model.folder / "detection/model.onnx") == inode(path)  # no doubled disk use
    assert len(web.asked) == asked


def test_a_version_that_lost_a_file_is_not_accepted_and_pulled_again(
    run: Run, entry: ModelEntry, make_settings: MakeSettings
) -> None:
    assert run("pull", "own-faces").code == 0
    model = stored("own-faces")
    assert model is not None
    (model.folder / "recognition/model.onnx").unlink()
    assert "incomplete" in run("verify", "own-faces").err
    with pytest.raises(ModelUnavailable):
        resolve(entry, make_settings(offline=True))
    assert run("pull", "own-faces").code == 0
    assert run("verify", "own-faces").code == 0


# --- several at once, and killed --------------------------------------------------------------------------------------


def test_four_pulls_of_one_model_at_once_download_it_once(
    run: Run, entry: ModelEntry, web: Web, make_settings: MakeSettings
) -> None:
    web.faults["/detection.onnx"] = [Fault(delay=0.2, cut_after=1000)]
    start = threading.Barrier(4)

    def one(_: int) -> str:
        start.wait()
        return pull(entry, make_settings(), limits=QUICK).how

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(one, range(4))) == ["already stored"] * 3 + ["stored"]
    assert web.gets("/detection.onnx") == [None, "bytes=1000-"]


def test_two_processes_that_pull_one_model_end_well_and_one_that_is_killed_leaves_nothing(
    run: Run, entry: ModelEntry, web: Web, make_settings: MakeSettings
) -> None:
    command = [sys.executable, "-m", "models", "pull", "own-faces"]
    web.faults["/detection.onnx"] = [Fault(stall_after=20_000)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    bench = store.staging_folder() / "own-faces/detection"
    while not any(path.stat().st_size for path in bench.glob("*.partial")):
        assert process.poll() is None
    process.kill()
    process.wait()
    assert stored("own-faces") is None
    assert run("verify", "own-faces").code == 1
    with pytest.raises(ModelUnavailable):
        resolve(entry, make_settings(offline=True))
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = sorted(process.communicate(timeout=60)[0].split(":")[1].split(" as ")[0].strip() for process in both)
    assert outputs == ["already stored", "stored"]
    assert [process.returncode for process in both] == [0, 0]
    assert web.gets("/detection.onnx") == [None, "bytes=20000-"]
    assert run("verify", "own-faces").code == 0


# --- from a folder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [("own-faces/detection/model.onnx", "own-faces/recognition/model.onnx"), ("det_10g.onnx", "a/b/any.onnx")]
)
def test_files_are_found_by_their_digests_in_a_folder_that_was_carried_here(
    run: Run, web: Web, tmp_path: Path, names: tuple[str, str]
) -> None:
    carried = tmp_path / "disk"
    for name, data in zip(names, (DETECTION, b"recognition"), strict=True):
        (carried / name).parent.mkdir(parents=True, exist_ok=True)
        (carried / name).write_bytes(data)
    (carried / "wrong.onnx").write_bytes(bytes(len(DETECTION)))
    ran = run("pull", "own-faces", "--from", carried)
    assert ran.code == 0, ran.err
    assert run("verify", "own-faces").code == 0
    assert not web.asked


def test_a_folder_that_lacks_a_file_is_told_which(run: Run, tmp_path: Path) -> None:
    write_files(tmp_path / "disk", ["det.onnx", "rec.onnx"])
    ran = run("pull", "own-faces", "--from", tmp_path / "disk")
    assert ran.code == 1
    assert "no file there is detection/model.onnx, which has sha256:" in ran.err
    assert "no such folder" in run("pull", "own-faces", "--from", tmp_path / "nowhere").err
    assert stored("own-faces") is None


@pytest.mark.parametrize(
    "below",
    [
        ".",
        "ViT-B-32__openai",
        "clip/ViT-B-32__openai",
        "vit-b-32__openai/0123",
        f"hub/models--{HUB.replace('/', '--')}/snapshots/c0ffee",
    ],
)
def test_a_layout_is_found_wherever_it_usually_lies(run: Run, tmp_path: Path, web: Web, below: str) -> None:
    for name, data in HUB_FILES.items():
        path = tmp_path / "disk" / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    ran = run("pull", "ViT-B-32__openai", "--from", tmp_path / "disk")
    assert ran.code == 0, ran.err
    assert run("verify", "ViT-B-32__openai").code == 0
    assert not web.asked


def test_a_stored_model_is_carried_to_another_machine_with_its_digests(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(
        tmp_path / "disk/ViT-B-16", [file.name for file in load_catalog().find(ModelKind.CLIP, "ViT-B-16").files]
    )
    assert run("pull", "ViT-B-16", "--from", tmp_path / "disk").code == 0
    home = os.environ["BENTOML_HOME"]
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "other"))
    assert run("pull", "ViT-B-16", "--from", home).code == 0
    model = stored("ViT-B-16")
    assert model is not None
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "third"))
    (tmp_path / "other/models/vit-b-16" / model.folder.name / "visual/model.onnx").write_bytes(b"damaged on the way")
    assert "wrong bytes" in run("pull", "ViT-B-16", "--from", tmp_path / "other").err


def _first_sentences(ran: Ran) -> str:
    """Return what is said before the other ways out and the places, of which a person may read no more."""
    first = ran.err.splitlines()[-1].partition(" All that can be done: ")[0].partition(" Looked at: ")[0]
    assert ran.code == 1
    assert len(first) <= 300
    return first


def test_a_folder_that_does_not_exist_is_what_is_wrong_and_not_offline(run: Run, tmp_path: Path) -> None:
    ran = run("pull", "RN50", "--from", tmp_path / "nowhere")
    first = _first_sentences(ran)
    assert "nowhere does not exist" in first
    assert "name a folder that holds clip_cn_rn50.pt" in first
    assert "OFFLINE" not in ran.err
    assert "HF_ENDPOINT" not in ran.err


def test_checkpoints_of_another_name_in_the_folder_are_named_beside_the_one_that_is_looked_for(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    assert "disk holds no clip_cn_rn50.pt. " in _first_sentences(run("pull", "RN50", "--from", tmp_path / "disk"))
    write_files(tmp_path / "disk", ["clip_cn_vit-b-16.pt", "clip_cn_finetuned.pt"])
    ran = run("pull", "RN50", "--from", tmp_path / "disk")
    assert "disk holds no clip_cn_rn50.pt, but clip_cn_finetuned.pt, clip_cn_vit-b-16.pt. " in _first_sentences(ran)
    assert "`python -m models convert CHECKPOINT --as RN50`" in ran.err
    assert "OFFLINE" not in ran.err


def test_a_file_that_is_no_checkpoint_in_spite_of_its_name_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/clip_cn_vit-b-16.pt").write_bytes(b"PK\3\4" + bytes(5000))
    ran = run("pull", "ViT-B-16", "--from", tmp_path / "disk")
    assert "it has no directory at its end: it is truncated" in _first_sentences(ran)
    assert "no such folder" not in ran.err
    assert "vocab.txt" not in ran.err
    assert stored("ViT-B-16") is None


def test_that_no_hub_can_be_reached_is_said_in_three_hundred_characters(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("ViT-B-16", "ViT-L-14-336", "ViT-B-32__openai", "buffalo_l"):
        first = _first_sentences(run("pull", name))
        assert "127.0.0.1:9: no connection" in first
        assert "What to do: set HF_ENDPOINT" in first
        assert f"or run `python -m models pull {name} --from DIR`." in first
