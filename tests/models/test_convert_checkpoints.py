"""What conversion reads and what it refuses, on a small CN-CLIP of the user's own."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.catalog import ModelKind, load_catalog
from models.convert import ConversionRefused, architecture, conversion, convert_and_store, installed_vocabulary
from models.convert.check import open_graph
from models.convert.checkpoint import read_checkpoint
from models.convert.graph import GraphWriter
from models.entry import ModelEntry
from models.resolve import resolve
from models.store import all_stored, stored
from settings import Settings
from tests.cnclip_reference import TINY, image_features, official_checkpoint, random_model
from tests.models import broken_checkpoints
from tests.models.commands import Run, hugging_face_names, runner, write_safetensors

MakeSettings = Callable[..., Settings]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Return the command, with a catalog that has a small CN-CLIP called Own-CLIP."""
    catalog = tmp_path / "own.toml"
    entry = '[[models]]\nname = "{}"\nfamily = "cn-clip"\nembedding_size = {}\ninput_size = 64\nadvice = "For tests."\n'
    catalog.write_text(entry.format("Own-CLIP", 64) + entry.format("Own-Wide", 512))
    monkeypatch.setenv("MODEL_CATALOG", str(catalog))
    monkeypatch.setenv("MACHINE_LEARNING_CACHE_FOLDER", str(tmp_path / "cache"))
    return runner(capsys)


@pytest.fixture
def entry(run: Run, tmp_path: Path) -> ModelEntry:
    return load_catalog(tmp_path / "own.toml").find(ModelKind.CLIP, "Own-CLIP")


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(TINY)


@pytest.fixture
def checkpoint(model: Any, tmp_path: Path) -> Path:
    return official_checkpoint(model, tmp_path / "clip_cn_own.pt")


def answers(path: Path, image: Any) -> Any:
    return open_graph(path).run(None, {"image": image})[0]


# --- what is stored ---------------------------------------------------------------------------------------------------


def test_a_model_of_the_users_catalog_is_converted_stored_and_found(
    run: Run, entry: ModelEntry, checkpoint: Path, make_settings: MakeSettings
) -> None:
    ran = run("convert", checkpoint, "--as", "Own-CLIP")
    assert ran.code == 0, ran.err
    kept = stored("Own-CLIP")
    assert kept is not None
    assert ran.out.startswith(f"Own-CLIP: stored as {kept.tag} ")
    files = resolve(entry, make_settings())
    assert set(files) == {file.name for file in entry.files if file.required}
    assert {path.parents[len(Path(name).parts) - 1] for name, path in files.items()} == {kept.folder}
    assert set(kept.digests) == set(files)
    assert kept.metadata["precision"] == "fp32"
    assert kept.metadata["licence"].startswith("MIT")
    assert run("verify", "Own-CLIP").code == 0
    assert run("path", "Own-CLIP").out.strip() == str(kept.folder)


def test_bentoml_itself_lists_what_was_converted(run: Run, checkpoint: Path) -> None:
    import bentoml
    from bentoml._internal.models import ModelStore

    assert run("convert", checkpoint, "--as", "Own-CLIP").code == 0
    store = ModelStore(Path(os.environ["BENTOML_HOME"]) / "models")
    (listed,) = bentoml.models.list(_model_store=store)
    assert listed.tag.name == "own-clip"
    assert listed.info.labels == {"project": "immich-bento", "task": "clip", "family": "cn-clip", "model": "Own-CLIP"}
    assert Path(bentoml.models.get("own-clip:latest", _model_store=store).path_of("visual/model.onnx")).is_file()


def test_the_same_checkpoint_twice_is_one_version_and_another_precision_is_another(run: Run, checkpoint: Path) -> None:
    for _ in range(2):
        assert run("convert", checkpoint, "--as", "Own-CLIP").code == 0
    (first,) = all_stored("Own-CLIP")
    assert run("convert", checkpoint, "--as", "Own-CLIP", "--precision", "fp16").code == 0
    assert len(all_stored("Own-CLIP")) == 2
    latest = stored("Own-CLIP")
    assert latest is not None
    assert latest.folder != first.folder
    assert latest.metadata["precision"] == "fp16"


def test_weights_above_2_gb_lie_in_a_file_of_their_own_that_belongs_to_the_model(
    run: Run,
    entry: ModelEntry,
    model: Any,
    checkpoint: Path,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conversion, "LARGEST_INSIDE", 100_000)
    assert run("convert", checkpoint, "--as", "Own-CLIP").code == 0
    files = resolve(entry, make_settings(), "visual")
    data = files["visual/model.onnx.data"]
    assert data.stat().st_size > 10 * files["visual/model.onnx"].stat().st_size
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    np.testing.assert_allclose(answers(files["visual/model.onnx"], image), image_features(model, image), atol=1e-5)
    with data.open("r+b") as file:
        file.seek(5000)
        file.write(b"damaged")
    ran = run("verify", "Own-CLIP")
    assert (ran.code, "damaged, wrong bytes: visual/model.onnx.data" in ran.err) == (1, True)
    with pytest.raises(Exception, match="wrong bytes"):
        resolve(entry, make_settings(), "visual")
    data.unlink()
    assert "incomplete, lacks visual/model.onnx.data" in run("verify", "Own-CLIP").err
    with pytest.raises(Exception, match=r"lacks visual/model\.onnx\.data"):
        resolve(entry, make_settings(), "visual")


# --- forms of checkpoints ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin", "half precision", "bare"])
def test_other_forms_of_a_checkpoint_come_to_the_same_vectors(
    run: Run, entry: ModelEntry, model: Any, make_settings: MakeSettings, tmp_path: Path, form: str
) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    named = hugging_face_names(model.state_dict(), layers=2)
    named["text_model.embeddings.position_ids"] = torch.arange(512.0)[None]
    if form == "model.safetensors":
        write_safetensors(folder / form, named)
        (folder / "config.json").write_text(json.dumps({"model_type": "chinese_clip"}))
    elif form == "pytorch_model.bin":
        torch.save(named, folder / form)
    else:
        state = {
            name: tensor.half() if form == "half precision" else tensor for name, tensor in model.state_dict().items()
        }
        torch.save({"state_dict": state} if form == "half precision" else state, folder / "clip_cn_own.pt")
    ran = run("convert", folder, "--as", "Own-CLIP")
    assert ran.code == 0, ran.err
    image = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    ours = answers(resolve(entry, make_settings())["visual/model.onnx"], image)
    np.testing.assert_allclose(ours, image_features(model, image), atol=2e-3 if form == "half precision" else 1e-5)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "complaint"),
    [
        (broken_checkpoints.hostile, "was not opened for safety"),
        (broken_checkpoints.hostile_legacy, "is no checkpoint"),
        (broken_checkpoints.legacy, "in the form that PyTorch wrote before 1.6"),
        (broken_checkpoints.compressed, "is compressed or encrypted"),
        (broken_checkpoints.truncated, "is no checkpoint"),
        (broken_checkpoints.web_page, "is no checkpoint"),
        (broken_checkpoints.empty, "is no checkpoint"),
        (broken_checkpoints.of_another_form, "holds no weights by name"),
        (broken_checkpoints.lacking, "it lacks visual.proj"),
        (broken_checkpoints.of_other_shapes, "its visual.proj has the shape [3, 3], not [128, 64]"),
        (broken_checkpoints.of_unknown_names, "it has 'visual.extra', which the model has not"),
        (broken_checkpoints.not_finite, "visual.proj hold numbers that are not finite"),
        (broken_checkpoints.of_negative_variance, "visual.conv1.weight hold numbers that are not finite"),
        (broken_checkpoints.of_another_vocabulary, "knows 100 word pieces"),
        (broken_checkpoints.of_many_positions, "its number of positions is 5,000"),
        (broken_checkpoints.of_a_long_name, "it has 'visual.xxx"),
        (broken_checkpoints.of_zeros, "its image half makes no vector of a picture: its weights are zeros"),
        (broken_checkpoints.of_a_zero_text, "its text half makes no vector of a text: its weights are zeros"),
        (broken_checkpoints.of_few_positions, "its texts have at most 20 tokens, not 52"),
        (broken_checkpoints.without_layers, "its number of layers is 0"),
        (broken_checkpoints.of_odd_width, "is no multiple of 64"),
    ],
)
def test_what_is_no_cn_clip_is_refused_in_one_sentence_and_nothing_is_stored(
    run: Run,
    model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path, Any], None],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "clip_cn_own.pt", model)
    ran = run("convert", "clip_cn_own.pt", "--as", "Own-CLIP", "--quiet")
    assert (ran.code, ran.out) == (1, "")
    assert complaint in ran.err
    assert len(ran.err.splitlines()) == 1
    assert len(ran.err) < 1000
    assert stored("Own-CLIP") is None
    assert not (tmp_path / "hostile-was-here").exists()


def test_a_checkpoint_of_another_known_model_is_told_by_its_shapes(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run("convert", checkpoint, "--as", "ViT-B-16")
    assert ran.code == 1
    assert "does not fit ViT-B-16: the shapes of its weights are of no published CN-CLIP" in ran.err
    shapes = {name: tensor.shape for name, tensor in read_checkpoint(checkpoint).items()}
    monkeypatch.setitem(architecture.KNOWN, "Tiny", architecture.read_architecture(shapes))
    ran = run("convert", checkpoint, "--as", "ViT-B-16")
    assert ran.code == 1
    assert "the shapes of its weights are those of Tiny: convert it with --as Tiny" in ran.err


def test_a_model_whose_sizes_the_catalog_tells_otherwise_is_refused(run: Run, checkpoint: Path) -> None:
    ran = run("convert", checkpoint, "--as", "Own-Wide")
    assert ran.code == 1
    assert "makes 64 numbers of pictures of 64 pixels; the catalog says 512" in ran.err


@pytest.mark.parametrize(("half", "weight"), [("image", "visual.proj"), ("text", "text_projection")])
def test_a_graph_that_answers_otherwise_than_its_weights_is_not_stored(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, half: str, weight: str
) -> None:
    original = GraphWriter.weight

    def wrong(writer: GraphWriter, name: str, array: Any) -> str:
        return original(
            writer, name, array * np.where(np.arange(array.shape[1]) == 0, -3, 1) if name == weight else array
        )

    monkeypatch.setattr(GraphWriter, "weight", wrong)
    ran = run("convert", checkpoint, "--as", "Own-CLIP")
    assert ran.code == 1
    assert f"The {half} half of {checkpoint} does not answer as its weights do" in ran.err
    assert "Nothing was stored" in ran.err
    assert stored("Own-CLIP") is None


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("no-such.pt", "--as", "Own-CLIP"), 1, "There is no no-such.pt."),
        ((".", "--as", "Own-CLIP"), 1, "holds none of model.safetensors, pytorch_model.bin, clip_cn_*.pt"),
        (("no-such.pt", "--as", "ViT-B-32__openai"), 1, "only CN-CLIP is converted"),
        (("no-such.pt", "--as", "nobody"), 2, "No clip model is called 'nobody'"),
        (("no-such.pt",), 2, "--as"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_told_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    ran = run("convert", *arguments)
    assert ran.code == code
    assert complaint in ran.err


def test_without_a_vocabulary_the_command_says_where_to_get_it(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.convert.vocabulary._MEMBER", "cn_clip/clip/nothing.txt")
    ran = run("convert", checkpoint, "--as", "Own-CLIP")
    assert ran.code == 1
    assert "pip install --no-deps cn-clip==1.6.0" in ran.err
    assert "--vocabulary" in ran.err


def test_the_vocabulary_may_be_named(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "cn_clip-1.6.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(installed_vocabulary(), "cn_clip/clip/vocab.txt")
    ran = run("convert", checkpoint, "--as", "Own-CLIP", "--vocabulary", wheel)
    assert ran.code == 0, ran.err


def test_a_folder_of_the_users_is_not_converted_into(entry: ModelEntry, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionRefused, match="is served from"):
        convert_and_store(checkpoint, replace(entry, folder=tmp_path), vocabulary=installed_vocabulary())


def test_a_converted_folder_that_is_carried_to_another_machine_takes_its_weights_along(
    run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "LARGEST_INSIDE", 100_000)
    conversion.convert(checkpoint, tmp_path / "disk/Own-CLIP", vocabulary=installed_vocabulary())
    ran = run("pull", "Own-CLIP", "--from", tmp_path / "disk")
    assert ran.code == 0, ran.err
    kept = stored("Own-CLIP")
    assert kept is not None
    assert {"visual/model.onnx.data", "textual/model.onnx.data"} <= set(kept.digests)
    image = np.zeros((1, 64, 64, 3), np.uint8)
    assert answers(kept.folder / "visual/model.onnx", image).shape == (1, 64)
