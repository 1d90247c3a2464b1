"""Both layouts of Immich's model cache: revision main in a model's folder, v2 in a folder of that name in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from errors import ModelUnavailable
from models.catalog import ModelEntry, ModelKind, load_catalog
from models.listing import rows
from models.places import cache_folder
from models.pull import remove
from models.resolve import resolve
from settings import Settings
from tests.models.conftest import QUICK, write_files
from tools.harness.fake_hub import Web

MakeSettings = Callable[..., Settings]
MakeEntry = Callable[..., ModelEntry]

CATALOG = load_catalog()
CLIP = CATALOG.find(ModelKind.CLIP, "ViT-B-32__openai")
NAMES = [file.name for file in CLIP.files if file.required]
REPO = "immich-app/ViT-B-32__openai"


def model_folder(settings: Settings) -> Path:
    """Return the folder in which Immich keeps the revision main."""
    return settings.cache_folder / "clip" / CLIP.name


@pytest.mark.parametrize("wanted", ["main", "v2"])
@pytest.mark.parametrize("there", [["main"], ["v2"], ["main", "v2"]], ids="+".join)
def test_a_clip_model_is_found_in_either_layout_and_in_the_wanted_one_first(
    make_settings: MakeSettings, wanted: str, there: Sequence[str]
) -> None:
    settings = make_settings(model_revision=wanted, offline=True)
    folders = {"main": model_folder(settings), "v2": model_folder(settings) / "v2"}
    for revision in there:
        write_files(folders[revision], NAMES)
    found = resolve(CLIP, settings)
    assert set(found) == set(NAMES)
    taken = folders[wanted if wanted in there else there[0]]
    assert found["visual/model.onnx"] == taken / "visual/model.onnx"
    (row,) = rows([CLIP], settings)
    assert row.places[0].folder == taken


@pytest.mark.parametrize("revision", ["main", "v2"])
def test_the_wanted_revision_is_what_is_fetched(web: Web, make_settings: MakeSettings, revision: str) -> None:
    for branch in ("main", "v2"):
        files = {name: f"{name} of {branch}".encode() for name in NAMES}
        web.add_repository(REPO, files, commit=f"c0ffee{branch}", branch=branch)
    settings = make_settings(hf_endpoint=web.url, model_revision=revision)
    found = resolve(CLIP, settings, limits=QUICK)
    below = model_folder(settings) if revision == "main" else model_folder(settings) / "v2"
    assert found["visual/model.onnx"] == below / "visual/model.onnx"
    assert {path.read_text() for path in found.values()} == {f"{name} of {revision}" for name in NAMES}
    assert resolve(CLIP, make_settings(offline=True)) == found  # found later, whichever is wanted then


def test_a_revision_that_the_hub_does_not_have_is_named_and_so_is_the_way_out(
    web: Web, make_settings: MakeSettings
) -> None:
    web.add_repository(REPO, dict.fromkeys(NAMES, b"main"))
    with pytest.raises(ModelUnavailable) as caught:
        resolve(CLIP, make_settings(hf_endpoint=web.url, model_revision="v2"), limits=QUICK)
    assert f"{REPO} (v2): " in str(caught.value)
    assert "set MACHINE_LEARNING_MODEL_REVISION=main" in str(caught.value)


def test_a_repository_of_somebody_elses_has_no_revisions(make_settings: MakeSettings) -> None:
    entry = CATALOG.find(ModelKind.CLIP, "fg-clip2-base")
    assert cache_folder(entry, make_settings(model_revision="v2")).name == "fg-clip2-base"


def test_a_face_graph_of_v2_is_left_alone_and_a_sentence_says_why(
    web: Web, make_settings: MakeSettings, make_entry: MakeEntry
) -> None:
    entry, settings = make_entry(web, b"detection"), make_settings(model_revision="v2")
    path = settings.cache_folder / "facial-recognition/own-faces/v2/detection/model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"detection of v2")
    with pytest.raises(ModelUnavailable) as caught:
        resolve(entry, make_settings(model_revision="v2", offline=True))
    assert f"{path}: a graph of Immich's revision v2, whose digest the catalog does not have" in str(caught.value)
    found = resolve(entry, settings, limits=QUICK)
    assert found["detection/model.onnx"] == settings.cache_folder / "facial-recognition/own-faces/detection/model.onnx"
    assert path.read_bytes() == b"detection of v2"


def test_removing_a_model_removes_both_revisions(make_settings: MakeSettings) -> None:
    settings = make_settings()
    write_files(model_folder(settings), NAMES)
    write_files(model_folder(settings) / "v2", NAMES)
    assert remove(CLIP, settings).folders == (model_folder(settings),)
    assert not model_folder(settings).exists()
