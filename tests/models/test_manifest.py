"""A record of digests that is damaged is told apart from none: what it is about is never taken unchecked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from errors import ModelUnavailable
from models.catalog import ModelEntry, ModelKind, load_catalog
from models.digest import Digest
from models.manifest import DamagedRecord, Manifest, read_manifest, usable_manifest, write_manifest
from models.places import cache_folder, places, verify
from models.resolve import resolve
from tests.models.conftest import QUICK, write_files
from tests.models.small_clip import (
    HUGGINGFACE_FILE,
    FakeConversion,
    MakeSettings,
    entry,
    made_of_words,
    on_both_hubs,
)
from tools.harness.fake_hub import Web

__all__ = ["entry", "made_of_words"]

MANIFEST = Manifest("a/b", "c0ffee", {"visual/model.onnx": (Digest("sha256", "0" * 64), 12)})
GOOD = {
    "repo": "a/b",
    "commit": "c0ffee",
    "files": {"visual/model.onnx": {"digest": "sha256:" + "0" * 64, "bytes": 12}},
}
DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"\xff\xfe",
    b"{}",
    b"[" * 100_000,
    json.dumps({**GOOD, "files": []}).encode(),
    json.dumps({**GOOD, "commit": "../x"}).encode(),
    json.dumps({**GOOD, "files": {"a.onnx": {"digest": "sha256:x", "bytes": 12}}}).encode(),
    json.dumps({**GOOD, "files": {"a.onnx": {"digest": "sha256:" + "0" * 64, "bytes": float("inf")}}}).encode(),
    json.dumps({**GOOD, "files": {"a.onnx": {"digest": "sha256:" + "0" * 64, "bytes": -1}}}).encode(),
    b" " * 5_000_000,
]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "none") is None
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == [".manifest.json"]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_record_is_none_of_the_two(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".manifest.json").write_bytes(content)
    with pytest.raises(DamagedRecord, match=f"^{tmp_path}/.manifest.json is "):
        read_manifest(tmp_path)
    assert usable_manifest(tmp_path) is None


def test_a_record_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".manifest.json")
    with pytest.raises(DamagedRecord, match=r"\.manifest\.json is no file"):
        read_manifest(tmp_path)


def test_a_record_that_may_not_be_read_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(tmp_path, MANIFEST)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DamagedRecord, match=r"\.manifest\.json cannot be read \(Permission denied\)"):
        read_manifest(tmp_path)


def test_a_record_has_the_rights_of_the_files_that_it_is_about(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        (tmp_path / "model.onnx").touch()
        write_manifest(tmp_path, MANIFEST)
    finally:
        os.umask(before)
    rights = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert rights == {"model.onnx": 0o644, ".manifest.json": 0o644}


def test_weights_of_a_hub_beside_a_damaged_record_are_refused_offline_and_fetched_anew(
    web: Web, make_settings: MakeSettings
) -> None:
    clip = load_catalog().find(ModelKind.CLIP, "immich-app/ViT-B-32::openai")
    files = {file.name: file.name.encode() for file in clip.files}
    web.add_repository("immich-app/ViT-B-32__openai", files)
    settings = make_settings(hf_endpoint=web.url)
    path = resolve(clip, settings, "visual", limits=QUICK)["visual/model.onnx"]
    path.write_bytes(b"damaged, and nobody knows")
    record = cache_folder(clip, settings) / ".manifest.json"
    record.write_text("{")
    with pytest.raises(ModelUnavailable, match=r"its record cannot be trusted: .*\.manifest\.json is damaged"):
        resolve(clip, make_settings(offline=True), "visual")
    assert resolve(clip, settings, "visual", limits=QUICK)["visual/model.onnx"].read_bytes() == b"visual/model.onnx"
    assert json.loads(record.read_text())["commit"] == "c0ffee"


def test_a_converted_model_beside_a_damaged_record_is_refused_offline_and_made_anew(
    web: Web, make_settings: MakeSettings, entry: ModelEntry, made_of_words: FakeConversion
) -> None:
    settings = make_settings(**on_both_hubs(web, b"checkpoint" * 100), model_hub="huggingface")
    path = resolve(entry, settings, limits=QUICK)["textual/model.onnx"]
    path.write_bytes(b"damaged, and nobody knows")
    (cache_folder(entry, settings) / ".manifest.json").write_bytes(b"")
    with pytest.raises(ModelUnavailable, match="its record cannot be trusted"):
        resolve(entry, settings.model_copy(update={"offline": True}))
    assert resolve(entry, settings, limits=QUICK)["textual/model.onnx"].read_bytes() == b"textual/model.onnx"
    assert web.gets(HUGGINGFACE_FILE) == [None, None]
    assert len(made_of_words.digests) == 2


def test_a_folder_laid_by_hand_needs_no_record(make_settings: MakeSettings, entry: ModelEntry, tmp_path: Path) -> None:
    write_files(tmp_path / "mine" / entry.name, [file.name for file in entry.files])
    settings = make_settings(clip_download_root=tmp_path / "mine", offline=True)
    assert set(resolve(entry, settings)) == {file.name for file in entry.files}
    (tmp_path / "mine" / entry.name / ".manifest.json").write_text("{")
    with pytest.raises(ModelUnavailable, match="its record cannot be trusted"):
        resolve(entry, settings)
    (place,) = places(entry, settings)
    assert verify(entry, place).state == "damaged"


def test_a_folder_out_of_the_store_whose_yaml_is_damaged_is_not_taken_unchecked(
    make_settings: MakeSettings, entry: ModelEntry, tmp_path: Path
) -> None:
    write_files(tmp_path / "mine" / entry.name, [file.name for file in entry.files])
    (tmp_path / "mine" / entry.name / "model.yaml").write_text("metadata: {digests: [")
    with pytest.raises(ModelUnavailable, match=r"its record cannot be trusted: .*model\.yaml is damaged"):
        resolve(entry, make_settings(clip_download_root=tmp_path / "mine", offline=True))
