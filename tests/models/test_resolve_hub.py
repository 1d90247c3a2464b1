"""Models whose digests the hub knows: fetched part by part, checked against its list, mended, and never taken half."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from errors import ModelUnavailable
from models.catalog import ModelEntry, ModelKind, load_catalog
from models.places import cache_folder
from models.resolve import resolve
from settings import Settings
from tests.models.conftest import QUICK, write_files
from tools.harness.fake_hub import Web

MakeSettings = Callable[..., Settings]

CATALOG = load_catalog()

REPO = "immich-app/ViT-B-32__openai"
FILES = {
    "visual/model.onnx": b"visual" * 1000,
    "visual/preprocess_cfg.json": b"{}",
    "visual/model.armnn": b"for another engine",
    "visual/rknpu/rk3588/model.rknn": b"for another engine",
    "textual/model.onnx": b"textual" * 1000,
    "textual/0a1b2c": b"weights above 2 GB lie in files of any name",
    "textual/tokenizer.json": b'{"a": 1}',
    "textual/tokenizer_config.json": b"{}",
    "config.json": b"{}",
    "README.md": b"# CLIP",
    ".gitattributes": b"*.onnx lfs",
}
VISUAL = {"visual/model.onnx", "visual/preprocess_cfg.json", "config.json"}
TEXTUAL = {
    "textual/model.onnx",
    "textual/0a1b2c",
    "textual/tokenizer.json",
    "textual/tokenizer_config.json",
    "config.json",
}


@pytest.fixture
def clip(web: Web) -> ModelEntry:
    web.add_repository(REPO, FILES)
    return CATALOG.find(ModelKind.CLIP, "immich-app/ViT-B-32::openai")


def test_a_hub_model_is_fetched_part_by_part_and_later_checked_without_network(
    web: Web, make_settings: MakeSettings, clip: ModelEntry, digests: list[str]
) -> None:
    settings = make_settings(hf_endpoint=web.url + "/")
    assert set(resolve(clip, settings, "visual", limits=QUICK)) == VISUAL
    assert {path.rpartition("c0ffee/")[2] for path, _ in web.asked if "/resolve/" in path} == VISUAL
    assert set(resolve(clip, settings, "textual", limits=QUICK)) == TEXTUAL
    asked = len(web.asked)
    offline = make_settings(offline=True)
    found = resolve(clip, offline)
    assert {name: path.read_bytes() for name, path in found.items()} == {name: FILES[name] for name in VISUAL | TEXTUAL}
    assert len(web.asked) == asked
    digests.clear()
    (cache_folder(clip, settings) / ".verified.json").unlink()
    resolve(clip, offline)
    assert len(digests) == len(VISUAL | TEXTUAL)


@pytest.mark.parametrize("name", ["textual/model.onnx", "textual/tokenizer.json", "textual/0a1b2c"])
def test_a_hub_model_that_was_damaged_or_lost_a_file_is_mended(
    web: Web, make_settings: MakeSettings, clip: ModelEntry, name: str
) -> None:
    settings = make_settings(hf_endpoint=web.url)
    path = resolve(clip, settings, "textual", limits=QUICK)[name]
    path.write_bytes(b"damaged")
    with pytest.raises(ModelUnavailable, match="wrong bytes"):
        resolve(clip, make_settings(offline=True), "textual")
    before = len(web.asked)
    assert resolve(clip, settings, "textual", limits=QUICK)[name].read_bytes() == FILES[name]
    assert len(web.asked) == before + 2  # the list and the one file
    path.unlink()
    assert resolve(clip, settings, "textual", limits=QUICK)[name].read_bytes() == FILES[name]


def test_both_halves_come_from_one_revision_even_if_the_repository_moves_on(
    web: Web, make_settings: MakeSettings, clip: ModelEntry
) -> None:
    settings = make_settings(hf_endpoint=web.url)
    resolve(clip, settings, "visual", limits=QUICK)
    web.add_repository(REPO, {**FILES, "textual/model.onnx": b"newer"}, commit="beef")
    assert (
        resolve(clip, settings, "textual", limits=QUICK)["textual/model.onnx"].read_bytes()
        == FILES["textual/model.onnx"]
    )


def test_a_revision_that_the_hub_has_no_more_is_replaced_by_the_newest(
    web: Web, make_settings: MakeSettings, clip: ModelEntry
) -> None:
    settings = make_settings(hf_endpoint=web.url)
    resolve(clip, settings, "visual", limits=QUICK)
    newer = {**FILES, "textual/model.onnx": b"newer", "visual/model.onnx": b"newer, too"}
    web.add_repository(REPO, newer, commit="beef")
    del web.files[f"/api/models/{REPO}/revision/c0ffee"]
    assert resolve(clip, settings, "textual", limits=QUICK)["textual/model.onnx"].read_bytes() == b"newer"
    assert resolve(clip, settings, "visual", limits=QUICK)["visual/model.onnx"].read_bytes() == b"newer, too"


def test_a_folder_of_the_same_name_with_no_record_is_taken_as_it_is(
    web: Web, make_settings: MakeSettings, clip: ModelEntry, tmp_path: Path
) -> None:
    write_files(tmp_path / "ViT-B-32__openai", sorted(VISUAL))
    settings = make_settings(hf_endpoint=web.url, clip_download_root=tmp_path)
    assert resolve(clip, settings, "visual")["config.json"].parent == tmp_path / "ViT-B-32__openai"
    assert not web.asked


def test_what_a_crash_left_without_a_record_is_checked_before_it_is_used(
    web: Web, make_settings: MakeSettings, clip: ModelEntry
) -> None:
    settings = make_settings(hf_endpoint=web.url)
    write_files(cache_folder(clip, settings), ["visual/model.onnx"])
    assert (
        resolve(clip, settings, "visual", limits=QUICK)["visual/model.onnx"].read_bytes() == FILES["visual/model.onnx"]
    )


@pytest.mark.parametrize(
    ("listing", "complaint"),
    [
        (b"<html>", "no list of files with digests"),
        (b"[]", "no list of files with digests"),
        (b'{"id": "a/b", "sha": "../x", "siblings": []}', "no list of files with digests"),
        (
            b'{"id": "a/b", "sha": "c0ffee", "siblings": [{"rfilename": "config.json", "size": 1}]}',
            "no list of files with digests",
        ),
        (b'{"id": "a/b", "sha": "c0ffee", "siblings": []}', "the repository has no visual/model.onnx"),
    ],
)
def test_a_hub_that_does_not_say_what_its_files_are_is_not_trusted(
    web: Web, make_settings: MakeSettings, clip: ModelEntry, listing: bytes, complaint: str
) -> None:
    web.files[f"/api/models/{REPO}/revision/main"] = listing
    with pytest.raises(ModelUnavailable, match=complaint):
        resolve(clip, make_settings(hf_endpoint=web.url), "visual", limits=QUICK)
    assert not list((cache_folder(clip, make_settings())).rglob("*.onnx"))


def test_names_that_lead_out_of_the_folder_are_never_written(
    web: Web, make_settings: MakeSettings, clip: ModelEntry, tmp_path: Path
) -> None:
    evil = {
        "../evil.onnx": b"x",
        "visual/../../evil.onnx": b"x",
        "/evil.onnx": b"x",
        "visual/..": b"x",
        "visual/.verified.json": b"x",
    }
    web.add_repository(REPO, {**FILES, **evil})
    found = resolve(clip, make_settings(hf_endpoint=web.url), limits=QUICK)
    assert set(found) == VISUAL | TEXTUAL
    assert not list(tmp_path.rglob("evil*"))


def test_a_record_that_was_damaged_is_as_good_as_none(web: Web, make_settings: MakeSettings, clip: ModelEntry) -> None:
    settings = make_settings(hf_endpoint=web.url)
    resolve(clip, settings, "visual", limits=QUICK)
    record = cache_folder(clip, settings) / ".manifest.json"
    assert json.loads(record.read_text())["commit"] == "c0ffee"
    record.write_text("{")
    assert set(resolve(clip, settings, "textual", limits=QUICK)) == TEXTUAL
