"""Which engine and precision a model gets, what is said where that cannot be had, and the log line that tells."""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from errors import ModelUnavailable
from runners.engine import QUANTIZED, EnginePlan, choice, open_session
from runners.engine.choice import EngineUnusable, choose
from runners.engine.onnxruntime import OnnxRuntimeSession
from runners.engine.openvino import OpenVinoSession
from tests.runners.engine.graphs import FEATURES, linear_graph

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "bf16_speedup", lambda kept: 2.1)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.fixture
def slow_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "bf16_speedup", lambda kept: 0.56)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.fixture
def no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "bf16_speedup", lambda kept: 0.0)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.fixture
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "openvino_problem", lambda: "libtbb.so.12: cannot open shared object file")


@pytest.mark.usefixtures("bf16")
def test_auto_is_openvino_in_bf16_where_that_is_faster() -> None:
    made = choose("auto", "auto")
    assert (made.engine, made.precision) == ("openvino", "bf16")
    assert made.why == "bf16 is 2.10 times as fast as fp32 here"


@pytest.mark.usefixtures("slow_bf16")
def test_auto_is_fp32_where_the_cpu_has_bf16_but_is_slow_at_it() -> None:
    made = choose("auto", "auto")
    assert (made.engine, made.precision) == ("openvino", "fp32")
    assert made.why == "bf16 is 0.56 times as fast as fp32 here"
    assert choose("auto", "bf16") == choice.Choice(
        "openvino", "bf16", "PRECISION=bf16, though bf16 is 0.56 times as fast as fp32 here"
    )


@pytest.mark.usefixtures("no_bf16")
def test_auto_is_openvino_in_fp32_on_other_cpus_of_that_kind() -> None:
    made = choose("auto", "auto")
    assert (made.engine, made.precision) == ("openvino", "fp32")
    assert made.why == "this CPU has no bf16"


@pytest.mark.usefixtures("bf16")
def test_auto_is_onnxruntime_on_processors_that_nothing_was_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    made = choose("auto", "auto")
    assert (made.engine, made.precision) == ("onnxruntime", "fp32")
    assert "aarch64" in made.why
    assert choose("openvino", "auto").engine == "openvino"


@pytest.mark.usefixtures("bf16")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_precision_that_is_asked_for_is_had(precision: choice.Precision) -> None:
    assert choose("auto", precision) == choice.Choice("openvino", precision, f"PRECISION={precision}")


@pytest.mark.usefixtures("no_openvino")
def test_without_openvino_auto_is_onnxruntime_and_says_why() -> None:
    made = choose("auto", "auto")
    assert (made.engine, made.precision) == ("onnxruntime", "fp32")
    assert "libtbb" in made.why
    assert choose("auto", "fp32").engine == "onnxruntime"


@pytest.mark.usefixtures("no_openvino")
@pytest.mark.parametrize(("engine", "precision"), [("openvino", "auto"), ("auto", "bf16"), ("auto", "int8")])
def test_without_openvino_what_needs_it_is_an_error(engine: choice.EngineName, precision: choice.Precision) -> None:
    with pytest.raises(EngineUnusable, match=r"(ENGINE=openvino|PRECISION=\w+) needs OpenVINO.*libtbb"):
        choose(engine, precision)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_onnxruntime_has_one_precision(precision: choice.Precision) -> None:
    assert choose("onnxruntime", "auto").precision == choose("onnxruntime", "fp32").precision == "fp32"
    with pytest.raises(EngineUnusable, match="ENGINE=openvino"):
        choose("onnxruntime", precision)


@pytest.mark.usefixtures("bf16")
def test_one_line_in_the_log_says_what_computes_a_model_and_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "runners.engine")
    session = open_session(
        linear_graph(tmp_path / "linear.onnx"), EnginePlan("cpu", 2, engine="auto", precision="auto")
    )
    assert isinstance(session, OpenVinoSession)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "runners.engine"]
    assert "linear.onnx is computed by openvino in bf16 on the CPU (bf16 is 2.10 times as fast as fp32 here)" in line


@pytest.mark.usefixtures("bf16")
def test_a_graph_that_bears_no_less_stays_in_fp32(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "runners.engine")
    path, plan = linear_graph(tmp_path / "linear.onnx"), EnginePlan("cpu", 2, engine="auto", precision="auto")
    exact = open_session(path, plan, exact=True)
    assert "in fp32" in caplog.text
    x = np.random.default_rng(0).normal(size=(3, FEATURES)).astype(np.float32)
    reference = open_session(path, EnginePlan("cpu", 2)).run({"x": x})[0]
    np.testing.assert_allclose(exact.run({"x": x})[0], reference, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("bf16")
def test_a_graph_that_openvino_refuses_is_computed_by_onnxruntime_where_the_engine_is_left_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("no kernel for\nthat")

    caplog.set_level(logging.INFO, "runners.engine")
    monkeypatch.setattr(OpenVinoSession, "__init__", refuse)
    path = linear_graph(tmp_path / "linear.onnx")
    assert isinstance(open_session(path, EnginePlan("cpu", 2, engine="auto", precision="auto")), OnnxRuntimeSession)
    assert "OpenVINO cannot load it: no kernel for that" in caplog.text
    with pytest.raises(ModelUnavailable, match="no kernel"):
        open_session(path, EnginePlan("cpu", 2, engine="openvino", precision="auto"))


@pytest.mark.usefixtures("bf16")
def test_int8_without_a_twin_is_computed_as_under_auto_and_says_which_command_makes_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "runners.engine")
    open_session(linear_graph(tmp_path / "model.onnx"), EnginePlan("cpu", 2, engine="auto", precision="int8"))
    assert "python -m tools.quantize" in caplog.text
    assert "in bf16" in caplog.text


@pytest.mark.usefixtures("bf16")
def test_int8_is_taken_from_beside_the_graph(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import openvino as ov

    caplog.set_level(logging.INFO, "runners.engine")
    path = linear_graph(tmp_path / "model.onnx")
    ov.save_model(ov.Core().read_model(str(linear_graph(tmp_path / "other.onnx", batch=1))), str(tmp_path / QUANTIZED))
    session = open_session(path, EnginePlan("cpu", 2, engine="auto", precision="int8"))
    assert session.inputs[0].shape == (1, FEATURES), "the twin is not what was loaded"
    assert "in int8" in caplog.text


_IMPORT = """
import socket, sys
def refuse(*arguments): raise AssertionError("a connection was tried")
socket.socket.connect = socket.getaddrinfo = refuse
import runners.engine.openvino, threading
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")], sys.modules
assert threading.active_count() == 1
"""


def test_importing_openvino_reports_nothing_to_anybody(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", _IMPORT], cwd=tmp_path, env=environment, check=True)
    assert list(tmp_path.iterdir()) == [], "a client's id was written"
