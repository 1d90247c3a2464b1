"""No name that comes from elsewhere leads out of the folder that it belongs to, wherever the name comes from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from errors import ModelUnavailable
from models import store
from models.catalog import ModelEntry, ModelKind, load_catalog
from models.paths import UnsafeName, checked_name, path_below
from models.places import cache_folder
from models.pull import pull
from models.resolve import resolve
from settings import Settings
from tests.models.conftest import QUICK, write_files
from tools.harness.fake_hub import Web

MakeSettings = Callable[..., Settings]

CLIMBING = [
    "../victim",
    "a/../../victim",
    "/victim",
    "a//victim",
    "a\\..\\victim",
    "C:victim",
    "a/\x00",
    "a/\n",
    "",
    ".",
    "a/.",
    ".lock",
]


@pytest.fixture
def vit_b_16() -> ModelEntry:
    return load_catalog().find(ModelKind.CLIP, "ViT-B-16")


@pytest.mark.parametrize("name", [*CLIMBING, None, 3, "a" * 256, "\ud800"])
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(UnsafeName):
        path_below(tmp_path, name)


@pytest.mark.parametrize("name", ["config.json", "visual/model.onnx", "textual/0a1b2c", "a b/ü.bin"])
def test_ordinary_names_are_kept_as_they_are(tmp_path: Path, name: str) -> None:
    assert path_below(tmp_path, name) == tmp_path / name


@given(
    st.one_of(
        st.text(max_size=40),
        st.lists(st.sampled_from(["..", ".", "", "a", "/", "\\", "C:", "\x7f"]), max_size=6).map("/".join),
    )
)
@example("a/../b")
def test_whatever_the_name_the_path_is_inside_the_folder_or_there_is_none(name: str) -> None:
    folder = Path("/some/folder")
    try:
        path = folder / checked_name(name)
    except UnsafeName:
        return
    assert os.path.normpath(path) == str(path)
    assert path.is_relative_to(folder)
    assert path != folder


def test_a_link_that_leads_out_of_the_folder_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model/visual").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeName, match="link that leads out"):
        path_below(tmp_path / "model", "visual/model.onnx")
    (tmp_path / "linked").symlink_to(tmp_path / "model")  # the folder itself may be one: that is the user's choice
    assert path_below(tmp_path / "linked", "textual/model.onnx").parent.parent == tmp_path / "linked"


def _record(names: list[str]) -> str:
    digests = "".join(f"    {name!r}: sha256:{'0' * 64}\n" for name in names)
    return f"creation_time: '2026-01-01'\nmetadata:\n  digests:\n{digests}"


@pytest.mark.parametrize("name", ["../../victim", "/victim", "visual/../../../victim"])
def test_a_model_yaml_whose_names_climb_is_not_pulled_from(
    make_settings: MakeSettings, vit_b_16: ModelEntry, tmp_path: Path, name: str
) -> None:
    disk = tmp_path / "disk/ViT-B-16"
    names = [file.name for file in vit_b_16.files]
    write_files(disk, names)
    (disk / "model.yaml").write_text(_record([*names, name]))
    before = sorted(path for path in tmp_path.rglob("*") if path.name == "victim")
    with pytest.raises(ModelUnavailable, match="does not stay below its folder"):
        pull(vit_b_16, make_settings(), carried=tmp_path / "disk")
    assert sorted(path for path in tmp_path.rglob("*") if path.name == "victim") == before
    assert store.stored("ViT-B-16") is None


def test_a_file_elsewhere_is_not_overwritten_by_a_model_yaml(
    make_settings: MakeSettings, vit_b_16: ModelEntry, tmp_path: Path
) -> None:
    disk = tmp_path / "disk/ViT-B-16"
    write_files(disk, [file.name for file in vit_b_16.files])
    (tmp_path / "disk/victim").write_text("evil")
    victim = store.home() / "victim"
    victim.parent.mkdir(parents=True)
    victim.write_text("mine")
    (disk / "model.yaml").write_text(_record(["../victim"]))
    with pytest.raises(ModelUnavailable):
        pull(vit_b_16, make_settings(), carried=tmp_path / "disk")
    with pytest.raises(UnsafeName):
        store.save(vit_b_16, {"../../../victim": tmp_path / "disk/victim"}, {})
    assert victim.read_text() == "mine"


def test_a_file_called_like_the_record_is_not_written_through_to_where_it_came_from(
    make_settings: MakeSettings, vit_b_16: ModelEntry, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    write_files(disk, [*(file.name for file in vit_b_16.files), "model.yaml"])
    store.save(vit_b_16, {path.relative_to(disk).as_posix(): path for path in disk.rglob("*") if path.is_file()}, {})
    assert (disk / "model.yaml").read_text() == "model.yaml"


def test_a_version_in_the_store_whose_record_climbs_is_not_served(
    make_settings: MakeSettings, vit_b_16: ModelEntry
) -> None:
    folder = store.home() / "models/vit-b-16/0123"
    write_files(folder, [file.name for file in vit_b_16.files])
    (folder / "model.yaml").write_text(_record(["../../../victim"]))
    with pytest.raises(ModelUnavailable, match="no vit-b-16"):
        resolve(vit_b_16, make_settings(offline=True))


def test_a_link_out_of_a_folder_that_was_carried_here_is_not_followed(
    make_settings: MakeSettings, vit_b_16: ModelEntry, tmp_path: Path
) -> None:
    write_files(tmp_path / "disk", [file.name for file in vit_b_16.files])
    (tmp_path / "secret").write_text("key")
    (tmp_path / "disk/config.json").unlink()
    (tmp_path / "disk/config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelUnavailable, match="is a link that leads out of"):
        pull(vit_b_16, make_settings(), carried=tmp_path / "disk")


def test_the_links_of_a_hub_cache_are_followed(make_settings: MakeSettings, tmp_path: Path) -> None:
    entry = load_catalog().find(ModelKind.CLIP, "ViT-B-32__openai")
    repository = tmp_path / "disk/models--immich-app--ViT-B-32__openai"
    for number, file in enumerate(entry.files):
        write_files(repository / "blobs", [str(number)])
        link = repository / "snapshots/c0ffee" / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(repository / "blobs" / str(number))
    assert pull(entry, make_settings(), carried=repository / "snapshots/c0ffee").how == "stored"


@pytest.mark.parametrize(
    "name", ["../evil.onnx", "visual/../../evil.onnx", "/evil.onnx", "visual\\evil.onnx", "visual/.lock"]
)
def test_a_record_beside_downloads_cannot_name_files_elsewhere(
    web: Web, make_settings: MakeSettings, tmp_path: Path, name: str
) -> None:
    entry = load_catalog().find(ModelKind.CLIP, "ViT-B-32__openai")
    files = {file.name: b"{}" for file in entry.files}
    web.add_repository("immich-app/ViT-B-32__openai", {**files, name: b"evil"})
    found = resolve(entry, make_settings(hf_endpoint=web.url), limits=QUICK)
    assert set(found) == set(files)
    record = cache_folder(entry, make_settings()) / ".manifest.json"
    record.write_text(record.read_text().replace('"config.json"', '"../config.json"'))
    (tmp_path / "cache/clip/config.json").write_text("{}")
    with pytest.raises(ModelUnavailable):
        resolve(entry, make_settings(offline=True))
