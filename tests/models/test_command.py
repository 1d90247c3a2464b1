"""``list``, ``verify``, ``path`` and ``rm``: what they print, where, and the exit codes that a script goes by."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models.catalog import ModelEntry, ModelKind, load_catalog
from models.places import cache_folder
from models.store import stored
from settings import Settings
from tests.models.commands import Run, runner
from tests.models.conftest import write_files
from tools.harness.fake_hub import Web

MakeSettings = Callable[..., Settings]
MakeEntry = Callable[..., ModelEntry]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("MACHINE_LEARNING_CACHE_FOLDER", str(tmp_path / "cache"))
    monkeypatch.setenv("OFFLINE", "true")
    monkeypatch.delenv("MODEL_CATALOG", raising=False)
    return runner(capsys)


@pytest.fixture
def cn_clip(tmp_path: Path, make_settings: MakeSettings) -> Path:
    """Return a CN-CLIP ViT-B-16 that somebody placed into the cache folder."""
    entry = load_catalog().find(ModelKind.CLIP, "ViT-B-16")
    folder = cache_folder(entry, make_settings())
    write_files(folder, [file.name for file in entry.files])
    return folder


def test_list_names_every_model_with_size_place_and_licence(run: Run) -> None:
    lines = run("list").out.splitlines()
    assert lines[0].split() == ["NAME", "TASK", "SIZE", "HERE", "LICENCE"]
    assert len(lines) == 1 + len(load_catalog().entries)
    rows = {line.split()[0]: line for line in lines}
    assert "191 MB   -        non-commercial research only" in rows["buffalo_l"]
    assert "  package  non-commercial" in rows["buffalo_s"]


def test_list_as_json_is_for_scripts(run: Run, cn_clip: Path) -> None:
    models = {model["name"]: model for model in json.loads(run("list", "--task", "clip", "--json").out)}
    assert {model["task"] for model in models.values()} == {"clip"}
    assert [(place["kind"], place["folder"]) for place in models["ViT-B-16"]["here"]] == [("cache", str(cn_clip))]
    assert models["ViT-L-14"]["here"] == []
    assert (models["ViT-L-14"]["bytes"], models["ViT-L-14"]["embedding_size"]) == (1_626_000_000, 768)
    assert models["ViT-L-14"]["on_its_way"] is None


def test_a_folder_that_lacks_a_file_is_not_listed_as_here(run: Run, cn_clip: Path) -> None:
    assert "\nViT-B-16 " in run("list", "--here", "--task", "clip").out
    (cn_clip / "textual/tokenizer.json").unlink()
    assert "ViT-B-16 " not in run("list", "--here", "--task", "clip").out
    ran = run("verify", "ViT-B-16")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"ViT-B-16 (clip): incomplete, lacks textual/tokenizer.json ({cn_clip})\n"


@pytest.fixture
def own_faces(run: Run, web: Web, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModelEntry:
    """Return a face model of the user's catalog."""
    monkeypatch.setenv("MODEL_CATALOG", str(tmp_path / "own.toml"))
    return make_entry(web, b"detection" * 1000)


def test_verify_reads_every_byte_of_what_is_here(run: Run, own_faces: ModelEntry, make_settings: MakeSettings) -> None:
    folder = cache_folder(own_faces, make_settings())
    write_files(folder, ["detection/model.onnx", "recognition/model.onnx"])
    (folder / "recognition/model.onnx").write_bytes(b"recognition")
    ran = run("verify")
    assert ran.code == 1
    assert f"own-faces (facial-recognition): damaged, wrong bytes: detection/model.onnx ({folder})" in ran.err
    assert "buffalo_s (facial-recognition): right, 2 files" in ran.out
    path = folder / "detection/model.onnx"
    path.write_bytes(b"detection" * 1000)
    assert run("verify", "own-faces").code == 0
    stat = path.stat()
    path.write_bytes(b"detectioN" * 1000)  # same size, and the clock put back: nothing that a note of digests would see
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run("verify", "own-faces").code == 1


def test_verify_says_what_cannot_be_checked(run: Run, cn_clip: Path) -> None:
    ran = run("verify", "ViT-B-16")
    assert (ran.code, ran.out) == (0, f"ViT-B-16 (clip): unchecked, nobody knows its digests ({cn_clip})\n")


def test_verify_of_a_model_that_is_not_here_fails(run: Run) -> None:
    ran = run("verify", "buffalo_l")
    assert ran.code == 1
    assert ran.err == "buffalo_l is not here. `python -m models pull buffalo_l` fetches it.\n"


def test_path_prints_a_folder_or_the_files_where_they_lie_in_several(run: Run, cn_clip: Path) -> None:
    assert run("path", "ViT-B-16").out == f"{cn_clip}\n"
    assert [Path(line).name for line in run("path", "buffalo_s").out.splitlines()] == [
        "scrfd_500m_bnkps.onnx",
        "w600k_mbf.onnx",
    ]
    ran = run("path", "buffalo_l")
    assert (ran.code, ran.out) == (1, "")


def test_rm_empties_the_store_and_the_cache_folder(
    run: Run, cn_clip: Path, tmp_path: Path, make_settings: MakeSettings
) -> None:
    assert run("pull", "ViT-B-16").code == 0
    assert stored("ViT-B-16") is not None
    ran = run("rm", "ViT-B-16")
    assert ran.code == 0
    assert len(ran.out.splitlines()) == 2
    assert stored("ViT-B-16") is None
    assert not cn_clip.exists()
    assert not list((tmp_path / "cache").rglob("*.onnx"))
    assert not list((tmp_path / "bentoml").rglob("*.onnx"))
    assert run("rm", "ViT-B-16").code == 1


def test_rm_leaves_what_is_the_users_or_a_packages(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(
        tmp_path / "root/ViT-B-16", [file.name for file in load_catalog().find(ModelKind.CLIP, "ViT-B-16").files]
    )
    monkeypatch.setenv("CLIP_DOWNLOAD_ROOT", str(tmp_path / "root"))
    ran = run("rm", "ViT-B-16", "buffalo_s")
    assert ran.code == 1
    assert f"ViT-B-16: {tmp_path / 'root/ViT-B-16'} is not ours to remove." in ran.err
    assert [line.endswith(" is not ours to remove.") for line in ran.err.splitlines()] == [True, True]
    assert (tmp_path / "root/ViT-B-16/config.json").exists()
    assert run("verify", "buffalo_s").code == 0


def test_rm_of_a_linked_folder_removes_the_link_and_leaves_the_folder(run: Run, cn_clip: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "immich/ViT-B-16"
    elsewhere.parent.mkdir()
    cn_clip.rename(elsewhere)
    cn_clip.symlink_to(elsewhere)
    ran = run("rm", "ViT-B-16")
    assert ran.code == 0
    assert ran.out == f"ViT-B-16: removed the link {cn_clip}; the folder that it led to stays as it is: {elsewhere}\n"
    assert not cn_clip.is_symlink()
    assert (elsewhere / "config.json").exists()
    assert run("rm", "ViT-B-16").code == 1


def test_rm_leaves_a_model_alone_where_the_folder_of_its_task_is_a_link(
    run: Run, cn_clip: Path, tmp_path: Path
) -> None:
    cn_clip.parent.rename(tmp_path / "immich-cache")
    cn_clip.parent.symlink_to(tmp_path / "immich-cache")
    ran = run("rm", "ViT-B-16")
    assert ran.code == 1
    assert f"ViT-B-16: {cn_clip} is not ours to remove." in ran.err
    assert (tmp_path / "immich-cache/ViT-B-16/config.json").exists()


def test_a_model_of_the_users_catalog_that_lies_in_a_folder_needs_no_pull(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "mine", ["detection/model.onnx", "recognition/model.onnx"])
    catalog = tmp_path / "own.toml"
    catalog.write_text(
        f'[[models]]\nname = "mine"\nfamily = "pp-ocr"\nadvice = "Mine."\nfolder = "{tmp_path / "mine"}"\n'
    )
    monkeypatch.setenv("MODEL_CATALOG", str(catalog))
    assert "in your folder, nothing to fetch" in run("pull", "mine").out
    assert run("path", "mine").out.strip() == str(tmp_path / "mine")
    assert run("rm", "mine").code == 1
    assert (tmp_path / "mine/detection/model.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "COMMAND"),
        (("fetch",), "invalid choice"),
        (("pull",), "NAME"),
        (("list", "--task", "speech"), "invalid choice"),
        (("pull", "buffalo_xl"), "Did you mean buffalo_l"),
        (("verify", "nobody-knows-me"), "No model is called 'nobody-knows-me'"),
        (("path", "ViT-B-16", "--task", "ocr"), "No ocr model is called"),
    ],
)
def test_a_wrong_command_line_ends_with_2(run: Run, arguments: tuple[str, ...], complaint: str) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.err


def test_a_name_of_several_tasks_wants_a_task(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = tmp_path / "own.toml"
    catalog.write_text('[[models]]\nname = "ViT-B-16"\nfamily = "pp-ocr"\nadvice = "Mine."\n')
    monkeypatch.setenv("MODEL_CATALOG", str(catalog))
    ran = run("path", "ViT-B-16")
    assert (ran.code, ran.err) == (2, "ViT-B-16 is several models: clip, ocr. Name one with --task.\n")


def test_a_broken_catalog_is_one_sentence(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.toml").write_text("[[models]]\n")
    monkeypatch.setenv("MODEL_CATALOG", str(tmp_path / "own.toml"))
    ran = run("list")
    assert (ran.code, len(ran.err.splitlines())) == (1, 1)


def test_settings_problems_are_told_by_their_names(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHINE_LEARNING_PRELOAD", "{")
    ran = run("list")
    assert ran.code == 1
    assert ran.err.startswith("Nothing was done: these settings are wrong")
    assert "MACHINE_LEARNING_PRELOAD" in ran.err


def test_it_runs_inside_a_bento_and_finds_the_models_packed_with_it(tmp_path: Path) -> None:
    """The layout of a Bento: ``src/`` with the code, ``models/`` with a store of its own, ``bento.yaml``."""
    source = tmp_path / "bento/src"
    for package in ("models", "settings"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__", "tiny"))
    for path in ROOT.glob("*.py"):
        shutil.copy(path, source)
    (tmp_path / "bento/bento.yaml").write_text("name: immich-bento\n")
    names = [file.name for file in load_catalog().find(ModelKind.CLIP, "ViT-B-16").files]
    write_files(tmp_path / "given", names)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MACHINE_LEARNING_", "BENTOML_"))}
    environment = {**kept, "MACHINE_LEARNING_CACHE_FOLDER": str(tmp_path / "cache"), "OFFLINE": "true"}

    def command(*arguments: str, home: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-m", "models", *arguments]
        return subprocess.run(
            call, cwd=source, env={**environment, "BENTOML_HOME": str(tmp_path / home)}, capture_output=True, text=True
        )

    assert command("pull", "ViT-B-16", "--from", str(tmp_path / "given"), home="bento").returncode == 0
    found = command("path", "ViT-B-16", home="nothing-there")
    assert (found.returncode, Path(found.stdout.strip()).parents[1]) == (0, tmp_path / "bento/models")
