"""Which engine a process uses under which settings, and what it says where there is none."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from runners import engine
from runners.engine import DeviceUnusable, EnginePlan, plan_engine
from settings import Settings


def settings(**changes: Any) -> Settings:
    return Settings(_env_file=None, **changes)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.engine.onnxruntime.cuda_is_usable", lambda: True)


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.engine.onnxruntime.cuda_is_usable", lambda: False)


@pytest.mark.usefixtures("cuda")
def test_the_cpu_is_used_where_it_is_asked_for() -> None:
    assert plan_engine(settings(device="cpu", intra_op_threads=3, inter_op_threads=2)) == EnginePlan("cpu", 3, 2)


@pytest.mark.usefixtures("no_cuda")
def test_the_number_of_threads_follows_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "available_cores", lambda: 6)
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
    with pytest.raises(DeviceUnusable, match=r"DEVICE=cuda.*onnxruntime-gpu.*nvidia-smi.*DEVICE=cpu"):
        plan_engine(settings(device="cuda"))


def test_this_build_of_onnxruntime_says_whether_it_has_cuda() -> None:
    import onnxruntime

    from runners.engine.onnxruntime import cuda_is_usable

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert not cuda_is_usable()


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize(
    ("ids", "dealt"), [("0", [0, 0, 0, 0]), ("2", [2, 2, 2, 2]), ("0,1", [0, 1, 0, 1]), (" 3, 1 ,0,", [3, 1, 0, 3]), ("", [0, 0, 0, 0])]
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
    assert plan_engine(settings(device="openvino", intra_op_threads=2)) == EnginePlan("openvino", 2)


def test_openvino_that_is_not_installed_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "runners.engine.openvino", None)
    with pytest.raises(DeviceUnusable, match=r"DEVICE=openvino.*\[openvino\].*DEVICE=cpu"):
        plan_engine(settings(device="openvino"))


def test_openvino_without_a_device_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.engine.openvino.is_usable", lambda: False)
    with pytest.raises(DeviceUnusable, match="DEVICE=openvino"):
        plan_engine(settings(device="openvino"))
