"""The benchmark on a GPU, with servers without models and a faked driver; and what its script does without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.tools.bench.fake_server import COMMAND
from tools.bench import agreement, contenders, gpu, workload
from tools.bench.__main__ import main
from tools.bench.weights import Weights
from tools.harness.rendered import Page, jpeg
from tools.harness.server import ROOT

SCRIPT = ROOT / "tools/bench/gpu.sh"
DRIVER = """#!/bin/sh
case "$*" in
    *query-gpu=name*) echo "Fake H100" ;;
    *query-gpu=memory*) echo 81559 ;;
    *query-gpu=driver*) echo 580.1 ;;
    -L) echo "GPU 0: Fake H100" ;;
esac
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def shell(folder: Path, *arguments: str, path: str = "/usr/bin:/bin", **environment: str) -> tuple[int, str]:
    """Run the script with what it keeps in ``folder``; return its status and what it says."""
    done = subprocess.run(
        [str(SCRIPT), *arguments],
        env={"PATH": path, "HOME": str(folder), "GPU_FOLDER": str(folder / "kept"), **environment},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_gpu_is_held_to_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = jpeg(Image.new("RGB", (64, 48), "red"))
    monkeypatch.setattr(gpu, "NVIDIA_SMI", str(executable(tmp_path / "nvidia-smi", DRIVER)))
    monkeypatch.setattr(gpu, "weights", lambda folder: Weights({}, "no model"))
    monkeypatch.setattr(contenders, "OURS", COMMAND)
    monkeypatch.setattr(contenders, "weights", lambda folder: Weights({"CLIP_MODEL": "none"}, "no model"))
    for module in (workload, agreement):
        monkeypatch.setattr(module, "pictures", lambda task: [small])
    monkeypatch.setattr(agreement, "mixed_pages", lambda: [Page("one", ("营业执照",), small)])
    assert main(["gpu", "--requests", "2", "--concurrency", "1", "--json"]) == 0
    tables: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["tables"]
    assert ["card", "Fake H100"] in tables[0]["rows"]
    assert ["of it in use after the loads, less what was before, MiB", 0] in tables[0]["rows"]
    assert {row[0]: row[3] for row in tables[-1]["rows"]} == {
        "CLIP image: least cosine to fp32": "yes",
        "CLIP text: least cosine to fp32": "yes",
        "faces: share of the peer's found by ours, IoU above 0.9": "yes",
        "faces: least cosine of embeddings": "yes",
        "OCR: character accuracy, ours less the peer's": "yes",
        "OCR: share of pages with the same text": "yes",
    }


def test_without_a_driver_the_benchmark_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "NVIDIA_SMI", str(tmp_path / "none"))
    with pytest.raises(RuntimeError, match="No NVIDIA GPU can be used here"):
        main(["gpu"])


def test_a_driver_without_a_gpu_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "NVIDIA_SMI", str(executable(tmp_path / "nvidia-smi", "#!/bin/sh\n")))
    with pytest.raises(RuntimeError, match="lists none"):
        gpu.asked_of_driver("name")


def test_the_script_refuses_a_machine_without_a_gpu(tmp_path: Path) -> None:
    status, said = shell(tmp_path)
    assert (status, said) == (2, "There is no NVIDIA driver here (no nvidia-smi). Nothing was run.\n")
    executable(tmp_path / "bin/nvidia-smi", "#!/bin/sh\n")
    status, said = shell(tmp_path, path=f"{tmp_path}/bin:/usr/bin:/bin")
    assert (status, said) == (2, "nvidia-smi lists no GPU here. Nothing was run.\n")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("wrong", [["fly"], ["pack"], ["take"]])
def test_the_script_says_how_it_is_called(wrong: list[str], tmp_path: Path) -> None:
    status, said = shell(tmp_path, *wrong)
    assert status == 64
    assert "tools/bench/gpu.sh" in said


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Return a Python whose pip writes one wheel of 130 MB, and whose virtual environments cannot import anything."""
    executable(
        tmp_path / "venv-python",
        f'#!/bin/sh\ncase "$*" in *"pip install"*) echo "$*" > {tmp_path}/installed ;; *) exit 1 ;; esac\n',
    )
    return executable(
        tmp_path / "python",
        f"""#!/bin/bash
case "$*" in
    *"pip download"*)
        while [ "$1" != --dest ]; do shift; done
        head -c 130000000 /dev/zero > "$2/big-1.0-py3-none-any.whl" ;;
    *"-m venv"*)
        mkdir -p "${{@: -1}}/bin"
        cp {tmp_path}/venv-python "${{@: -1}}/bin/python" ;;
    *) exec {sys.executable} "$@" ;;
esac
""",
    )


def test_wheels_travel_in_parts_below_60_mb_and_are_put_together(tmp_path: Path, python: Path) -> None:
    have = tmp_path / "have.txt"
    have.write_text("numpy==2.5.2\nnvidia_cublas\nOpenCV.Python-Headless @ file:///x\n")
    status, said = shell(tmp_path, "pack", str(tmp_path / "packed"), str(have), PYTHON=str(python))
    assert status == 0, said
    wanted = [line.split("==")[0] for line in (tmp_path / "packed/wanted.txt").read_text().splitlines()]
    assert {"onnxruntime-gpu", "bentoml", "insightface"} <= set(wanted)
    assert not {"numpy", "nvidia-cublas", "opencv-python-headless"} & set(wanted)
    parts = sorted((tmp_path / "packed").glob("part-*"))
    assert [part.stat().st_size < 60_000_000 for part in parts] == [True] * 3

    executable(tmp_path / "bin/nvidia-smi", DRIVER)
    path = f"{tmp_path}/bin:/usr/bin:/bin"
    for part in parts[:2]:  # each call carries one part alone
        carried = tmp_path / f"carried-{part.name}"
        carried.mkdir()
        for name in (part.name, "parts.sha256", "wanted.txt"):
            os.link(part.parent / name, carried / name)
        status, said = shell(tmp_path, "take", str(carried))
        assert status == 0, said
    assert "2 of 3 parts" in said
    status, said = shell(tmp_path, path=path, PYTHON=str(python))
    assert status == 3
    assert "Parts are missing or damaged" in said

    assert shell(tmp_path, "take", str(tmp_path / "packed"))[0] == 0
    status, said = shell(tmp_path, path=path, PYTHON=str(python))
    assert "kept/wheels/big-1.0-py3-none-any.whl" in (tmp_path / "installed").read_text()
    assert status == 3
    assert "ONNX Runtime does not open CUDA here" in said


def test_parts_are_not_mixed_with_older_ones(tmp_path: Path, python: Path) -> None:
    status, said = shell(tmp_path, "pack", str(tmp_path), PYTHON=str(python))
    assert status == 1
    assert "exists" in said
