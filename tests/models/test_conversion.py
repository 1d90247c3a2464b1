"""A conversion ends in a whole folder or in none, in bounded memory, and needs nothing of PyTorch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.convert import ConversionRefused, conversion, convert, installed_vocabulary
from models.convert.architecture import KNOWN, ResNet, read_architecture
from models.convert.check import open_graph
from models.convert.tensor import ArrayTensor
from models.convert.tokenizer import cn_clip_tokenizer
from models.convert.vocabulary import read_vocabulary
from tests.cnclip_reference import (
    TINY,
    TINY_RESNET,
    image_features,
    official_checkpoint,
    random_model,
    reference_tokens,
    text_features,
)
from tools.tiny.cn_clip import ARCHITECTURES, Architecture

ROOT = Path(__file__).parents[2]
TEXTS = ["一只在雪地里的猫", "A dog, on the BEACH", "", "长" * 100]
FILES = [
    "config.json",
    "textual/model.onnx",
    "textual/tokenizer.json",
    "textual/tokenizer_config.json",
    "visual/model.onnx",
    "visual/preprocess_cfg.json",
]
DEEP = Architecture(
    "ViT-B-16", TINY.text, {**TINY.changes, "vision_layers": 5, "text_num_hidden_layers": 4, "embed_dim": 96}
)
WIDE = Architecture("ViT-H-14", TINY.text, {**TINY.changes, "vision_width": 1280, "vision_patch_size": 32})
"""ViT-H-14's width, whose heads are of another width than those of all others."""
UNEVEN_RESNET = Architecture(
    "RN50", "RBT3-chinese", {**TINY_RESNET.changes, "vision_width": 32, "vision_layers": (2, 1, 3, 2)}
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return official_checkpoint(random_model(TINY), tmp_path_factory.mktemp("checkpoint") / "clip_cn.pt", half=True)


def converted(checkpoint: Path, folder: Path, **options: Any) -> Path:
    return convert(checkpoint, folder, vocabulary=installed_vocabulary(), **options).folder


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- the numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [
        pytest.param(TINY, "fp32", id="vit"),
        pytest.param(TINY, "fp16", id="vit, fp16"),
        pytest.param(DEEP, "fp32", id="deep"),
        pytest.param(DEEP, "fp16", id="deep, fp16"),
        pytest.param(WIDE, "fp32", id="wide"),
        pytest.param(WIDE, "fp16", id="wide, fp16", marks=pytest.mark.slow),
        pytest.param(TINY_RESNET, "fp32", id="resnet"),
        pytest.param(TINY_RESNET, "fp16", id="resnet, fp16", marks=pytest.mark.slow),
        pytest.param(UNEVEN_RESNET, "fp32", id="uneven"),
        pytest.param(UNEVEN_RESNET, "fp16", id="uneven, fp16"),
    ],
)
def test_graphs_answer_as_cn_clips_own_torch_forward(
    tmp_path: Path, architecture: Architecture, precision: Any
) -> None:
    model = random_model(architecture)
    folder = converted(
        official_checkpoint(model, tmp_path / "clip_cn.pt", half=True), tmp_path / "model", precision=precision
    )
    model = model.half().float()
    pixels = np.random.default_rng(1).integers(
        0, 256, (3, architecture.image_size, architecture.image_size, 3), np.uint8
    )
    tokens = reference_tokens(TEXTS)
    given = {"visual": {"image": pixels}, "textual": {"text": tokens}}
    expected = {"visual": image_features(model, pixels), "textual": text_features(model, TEXTS)}
    for half, feeds in given.items():
        session = open_graph(folder / half / "model.onnx")
        for rows in (1, 3):
            (vectors,) = session.run(["embedding"], {name: batch[:rows] for name, batch in feeds.items()})
            assert vectors.dtype == np.float32
            assert np.sum(vectors * expected[half][:rows], axis=1).min() > 0.9999
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    short = open_graph(folder / "textual/model.onnx").run(None, {"text": tokens[:1, :16]})[0]
    assert short[0] @ expected["textual"][0] > 0.9999


def test_heads_of_another_width_are_told_to_the_writer(tmp_path: Path) -> None:
    changes = {**TINY.changes, "text_num_attention_heads": 4, "vision_head_width": 32}
    model = random_model(Architecture(TINY.vision, TINY.text, changes))
    tensors = {name: ArrayTensor(tensor.numpy()) for name, tensor in model.state_dict().items()}
    architecture = read_architecture({name: tensor.shape for name, tensor in tensors.items()})
    tokenizer = cn_clip_tokenizer(read_vocabulary(installed_vocabulary()))
    told = architecture.with_heads(vision=4, text=4)
    assert min(conversion.write_model(told, tensors, tokenizer, tmp_path, "fp32", lambda *_: None)) > 0.9999
    pixels = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), np.uint8)
    for half, feeds, expected in (
        ("visual", {"image": pixels}, image_features(model, pixels)),
        ("textual", {"text": reference_tokens(TEXTS)}, text_features(model, TEXTS)),
    ):
        (vectors,) = open_graph(tmp_path / half / "model.onnx").run(None, feeds)
        assert np.sum(vectors * expected, axis=1).min() > 0.9999


@pytest.mark.parametrize("name", KNOWN)
def test_the_published_architectures_are_told_by_their_shapes(name: str) -> None:
    import torch

    with torch.device("meta"):
        state = ARCHITECTURES[name].build().state_dict()
    architecture = read_architecture({key: tuple(tensor.shape) for key, tensor in state.items()})
    assert architecture == KNOWN[name]
    configuration = ARCHITECTURES[name].configuration
    assert architecture.vision.image_size == configuration["image_resolution"]
    assert architecture.embedding_size == configuration["embed_dim"]
    assert architecture.text.heads == configuration["text_num_attention_heads"]
    channels = architecture.vision.width * (32 if isinstance(architecture.vision, ResNet) else 1)
    assert architecture.vision.heads == channels // configuration.get("vision_head_width", 64)


# --- whole or not at all ----------------------------------------------------------------------------------------------


def test_a_converted_folder_holds_the_files_of_its_family(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, float]] = []
    assert files(converted(checkpoint, tmp_path / "model", report=lambda *news: heard.append(news))) == FILES
    assert [share for _, share in heard] == sorted(share for _, share in heard)
    assert (heard[0][1], heard[-1][1]) == (0.0, 1.0)
    monkeypatch.setattr(conversion, "LARGEST_INSIDE", 0)
    large = converted(checkpoint, tmp_path / "large")
    assert files(large) == sorted([*FILES, "textual/model.onnx.data", "visual/model.onnx.data"])
    same = [open_graph(folder / "visual/model.onnx") for folder in (tmp_path / "model", large)]
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(*(session.run(None, {"image": image})[0] for session in same))


def test_a_folder_that_exists_is_not_written_to(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ConversionRefused, match=r"model exists\. Remove it"):
        converted(checkpoint, tmp_path / "model")
    assert files(tmp_path / "model") == []


@pytest.mark.parametrize("stage", ["Writing the image half", "Writing the text half", "Checking the text half"])
def test_a_process_that_is_killed_leaves_no_model_and_the_next_one_cleans_up(
    tmp_path: Path, checkpoint: Path, stage: str
) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from models.convert import convert, installed_vocabulary\n"
        "def report(what, _):\n"
        f"    if what.startswith({stage!r}): os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), vocabulary=installed_vocabulary(), report=report)"
    )
    command = [sys.executable, "-c", script, str(checkpoint), str(tmp_path / "model")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    assert (tmp_path / ".model.converting/config.json").is_file()
    (tmp_path / ".model.converting/stray").touch()
    assert files(converted(checkpoint, tmp_path / "model")) == FILES
    assert not (tmp_path / ".model.converting").exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        converted(checkpoint, tmp_path / "model")
    assert files(tmp_path) == [".model.lock"]
    assert [path.name for path in tmp_path.iterdir()] == [".model.lock"]


def test_two_processes_write_one_folder(tmp_path: Path, checkpoint: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from models.convert import convert, installed_vocabulary\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), vocabulary=installed_vocabulary())"
    )
    command = [sys.executable, "-c", script, str(checkpoint), str(tmp_path / "model")]
    running = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in running]
    assert sorted(process.returncode for process in running) == [0, 1]
    assert "exists. Remove it" in "".join(said)
    assert files(tmp_path / "model") == FILES


# --- the vocabulary ---------------------------------------------------------------------------------------------------


def wheel(path: Path, content: bytes, name: str = "cn_clip/clip/vocab.txt") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def test_the_vocabulary_is_the_same_out_of_the_package_and_its_wheel(tmp_path: Path) -> None:
    pieces = read_vocabulary(installed_vocabulary())
    assert (len(pieces), pieces[0], pieces[101]) == (21128, "[PAD]", "[CLS]")
    assert read_vocabulary(wheel(tmp_path / "a.whl", installed_vocabulary().read_bytes())) == pieces


@pytest.mark.parametrize(
    ("content", "name", "complaint"),
    [
        (b"a\nb\n", "cn_clip/clip/vocab.txt", "is not the vocabulary of CN-CLIP: it has sha256:"),
        (bytes(300_000_000), "cn_clip/clip/vocab.txt", "is larger than 1,048,576 bytes"),
        (b"", "other/vocab.txt", "is no wheel of cn-clip"),
    ],
)
def test_a_wheel_without_the_vocabulary_is_refused(tmp_path: Path, content: bytes, name: str, complaint: str) -> None:
    with pytest.raises(ConversionRefused, match=complaint):
        read_vocabulary(wheel(tmp_path / "a.whl", content, name))
    with pytest.raises(ConversionRefused, match="There is no vocabulary"):
        read_vocabulary(tmp_path / "none")
    (tmp_path / "text").write_bytes(b"\xff")
    with pytest.raises(ConversionRefused, match="is no vocabulary: it is not UTF-8"):
        read_vocabulary(tmp_path / "text", None)


# --- what it needs ----------------------------------------------------------------------------------------------------


def test_nothing_of_pytorch_is_imported(tmp_path: Path, checkpoint: Path) -> None:
    script = (
        "import sys\n"
        "blocked = ('torch', 'torchvision', 'cn_clip', 'transformers', 'safetensors')\n"
        "sys.modules.update(dict.fromkeys(blocked))\n"  # None: importing it raises ImportError
        "from pathlib import Path; from models.convert import convert, installed_vocabulary\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), vocabulary=installed_vocabulary())\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in blocked and sys.modules[name] is not None]"
    )
    subprocess.run([sys.executable, "-c", script, str(checkpoint), str(tmp_path / "model")], cwd=ROOT, check=True)
    assert files(tmp_path / "model") == FILES


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_vit_b_16_takes_less_than_30_seconds_and_its_weights_and_500_mb(tmp_path: Path, precision: str) -> None:
    checkpoint = official_checkpoint(random_model(), tmp_path / "clip_cn.pt")
    script = (
        "import sys; from pathlib import Path; from models.convert import convert, installed_vocabulary\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), vocabulary=installed_vocabulary(), precision=sys.argv[3])\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(next(line.split()[1] for line in status.splitlines() if line.startswith('VmHWM')))"
    )
    before = os.times()
    ran = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint), str(tmp_path / "model"), precision],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    after, peak = os.times(), int(ran.stdout) * 1024
    cpu_seconds = after.children_user + after.children_system - before.children_user - before.children_system
    weights = sum(path.stat().st_size for path in (tmp_path / "model").rglob("*.data"))
    assert peak < weights + 500_000_000
    assert cpu_seconds < 60  # 30 s of two cores, however busy the machine is
