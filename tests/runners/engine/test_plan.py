"""Which engine a process uses under which settings, and what it says where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runners.engine import DeviceUnusable, EnginePlan, check_engine, plan_engine
from runners.engine.cuda import _has_cuda_build, cuda_problem
from settings import Settings

FOLDER = Path("/cache")
ROOT = Path(__file__).parents[3]


def settings(**changes: Any) -> Settings:
    return Settings(_env_file=None, **{"cache_folder": FOLDER, **changes})


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.engine.plan.cuda_problem", lambda: None)


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.engine.plan.cuda_problem", lambda: "there is none")


@pytest.mark.usefixtures("cuda")
def test_the_cpu_is_used_where_it_is_asked_for() -> None:
    expected = EnginePlan("cpu", 3, 2, engine="auto", precision="auto", compiled=FOLDER / "compiled")
    assert plan_engine(settings(device="cpu", intra_op_threads=3, inter_op_threads=2)) == expected


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("asked", [{"engine": "openvino"}, {"precision": "bf16"}, {"precision": "int8"}])
def test_auto_leaves_a_gpu_alone_where_what_is_asked_for_is_the_cpus(asked: dict[str, str]) -> None:
    plan = plan_engine(settings(**asked))
    assert plan.device == "cpu"
    assert {"engine": plan.engine, "precision": plan.precision}.items() >= asked.items()


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("asked", [{"engine": "openvino"}, {"precision": "bf16"}, {"precision": "int8"}])
def test_cuda_and_what_it_does_not_have_is_an_error(asked: dict[str, str]) -> None:
    with pytest.raises(DeviceUnusable, match=r"DEVICE=cuda.*fp32.*DEVICE=cpu"):
        plan_engine(settings(device="cuda", **asked))


def test_openvino_and_onnxruntime_at_once_is_an_error() -> None:
    with pytest.raises(DeviceUnusable, match=r"DEVICE=openvino.*ENGINE=onnxruntime"):
        plan_engine(settings(device="openvino", engine="onnxruntime"))


def test_what_cannot_be_had_is_told_before_the_service_starts() -> None:
    with pytest.raises(DeviceUnusable, match="PRECISION=bf16"):
        check_engine(plan_engine(settings(device="cpu", engine="onnxruntime", precision="bf16")))
    choice = check_engine(plan_engine(settings(device="cpu", engine="onnxruntime")))
    assert choice is not None
    assert (choice.engine, choice.precision) == ("onnxruntime", "fp32")
    assert check_engine(EnginePlan("cuda", 1)) is None


@pytest.mark.usefixtures("no_cuda")
def test_the_number_of_threads_follows_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.engine.plan.available_cores", lambda: 6)
    assert plan_engine(settings()).threads == 6
    assert plan_engine(settings(device="openvino")).threads == 6


@pytest.mark.usefixtures("no_cuda")
def test_auto_falls_to_the_cpu() -> None:
    assert plan_engine(settings()).device == "cpu"


@pytest.mark.usefixtures("cuda")
def test_auto_takes_a_gpu_that_works() -> None:
    assert plan_engine(settings()).device == "cuda"


@pytest.mark.usefixtures("no_cuda")
def test_a_gpu_that_does_not_work_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DeviceUnusable, match=r"DEVICE=cuda.*there is none.*DEVICE=cpu"):
        plan_engine(settings(device="cuda"))


def test_this_build_of_onnxruntime_says_whether_it_has_cuda() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        assert _has_cuda_build()
    else:
        assert "onnxruntime-gpu is not installed" in str(cuda_problem())


@pytest.mark.skipif(_has_cuda_build(), reason="a build with CUDA has to be loaded to be asked")
def test_a_process_that_plans_for_the_cpu_does_not_load_onnxruntime() -> None:
    script = (
        "import sys, settings; from runners import engine; engine.plan_engine(settings.Settings()); "
        "print('onnxruntime' in sys.modules)"
    )
    planned = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        cwd=ROOT,
        env={**os.environ, "DEVICE": "auto"},
        capture_output=True,
        text=True,
    )
    assert planned.stdout == "False\n"


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize(
    ("ids", "dealt"),
    [("0", [0, 0, 0, 0]), ("2", [2, 2, 2, 2]), ("0,1", [0, 1, 0, 1]), (" 3, 1 ,0,", [3, 1, 0, 3]), ("", [0, 0, 0, 0])],
)
def test_gpus_are_dealt_out_by_position(ids: str, dealt: list[int]) -> None:
    config = settings(device="cuda", device_ids=ids)
    assert [plan_engine(config, position=position).device_id for position in range(4)] == dealt


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("ids", ["gpu0", "0;1", "-1", "0.5"])
def test_numbers_of_gpus_that_are_none_are_named(ids: str) -> None:
    with pytest.raises(DeviceUnusable, match="MACHINE_LEARNING_DEVICE_IDS"):
        plan_engine(settings(device="cuda", device_ids=ids))


def test_openvino_is_used_where_it_works() -> None:
    expected = EnginePlan("openvino", 2, engine="openvino", precision="fp32", compiled=FOLDER / "compiled")
    assert plan_engine(settings(device="openvino", intra_op_threads=2, precision="fp32")) == expected


def test_openvino_that_is_not_installed_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "runners.engine.openvino_core", None)
    with pytest.raises(DeviceUnusable, match=r"DEVICE=openvino.*pip install openvino.*DEVICE=cpu"):
        plan_engine(settings(device="openvino"))


def test_openvino_without_a_device_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.engine.openvino_core.is_usable", lambda: False)
    with pytest.raises(DeviceUnusable, match="DEVICE=openvino"):
        plan_engine(settings(device="openvino"))


class FakeRuntime:
    """onnxruntime-gpu, as far as it is asked."""

    def __init__(self, providers: list[str], error: Exception | None) -> None:
        self.calls: list[str] = []
        self.providers, self.error, self.OrtValue = providers, error, self

    def preload_dlls(self) -> None:
        self.calls.append("preload_dlls")

    def get_available_providers(self) -> list[str]:
        self.calls.append("get_available_providers")
        return self.providers

    def ortvalue_from_numpy(self, *_: object) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("providers", "error", "said"),
    [
        (["CUDAExecutionProvider"], None, None),
        (
            ["CUDAExecutionProvider"],
            RuntimeError("CUDA failure 100:\nno device"),
            "no GPU answers (CUDA failure 100: no",
        ),
        (["CPUExecutionProvider"], None, "have written over each other"),
    ],
)
def test_pips_cuda_is_loaded_first_and_each_reason_has_words_of_its_own(
    providers: list[str], error: Exception | None, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = FakeRuntime(providers, error)
    monkeypatch.setattr("runners.engine.cuda._has_cuda_build", lambda: True)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    problem = cuda_problem()
    assert runtime.calls[0] == "preload_dlls"
    assert problem is None if said is None else said in str(problem)
