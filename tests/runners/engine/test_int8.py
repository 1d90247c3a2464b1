"""Convolutions computed in int8: on the grid of int8 they answer exactly as in fp32, off it nearly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from onnx import helper

from runners.engine import EnginePlan, Session, int8, openvino_core
from runners.engine import open_session as open_graph
from runners.engine.int8 import Ranges, convolutions, multiplies_int8, quantize
from runners.engine.onnxruntime import OnnxRuntimeSession
from tests.runners.engine.graphs import FEATURES, WEIGHTS, convolution_graph, model_of, random, run, types

PRODUCT, OUTPUT = "product", "y"
"""Names of convolutions: the one of `convolution_graph`, and of `one`."""
RANGES: Ranges = {PRODUCT: (-4.0, 4.0)}


def integers(*shape: int, most: int = 127, least: int = -127) -> NDArray[np.float32]:
    """Return whole numbers, among which are ``most`` and ``least`` in each row of the first axis."""
    numbers = np.random.default_rng(3).integers(least, most, shape, endpoint=True).astype(np.float32)
    flat = numbers.reshape(shape[0], -1)
    flat[:, 0], flat[:, 1] = most, least
    return numbers


def one(weights: NDArray[np.float32]) -> ov.Model:
    """Return a graph of one convolution."""
    return model_of([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weights}, ["n", weights.shape[1], "h", "w"])


@pytest.mark.parametrize(("least", "most"), [(-128, 127), (0, 255)])
def test_whole_numbers_go_through_a_convolution_unchanged(least: int, most: int) -> None:
    weights, x = integers(8, 3, 3, 3), integers(2, 3, 9, 9, least=least, most=most)
    exact = run(one(weights), x)
    model = one(weights)
    assert quantize(model, {OUTPUT: (least, most)}) == 1
    np.testing.assert_array_equal(run(model, x), exact)


def test_each_output_has_a_scale_of_its_own() -> None:
    scales = np.array([0.25, 1, 64, 4, 2, 16], np.float32)
    weights, x = integers(6, 40, 1, 1) * scales.reshape(-1, 1, 1, 1), integers(5, 40, 1, 1)
    exact = run(one(weights), x)
    model = one(weights)
    assert quantize(model, {OUTPUT: (-128, 127)}) == 1
    np.testing.assert_allclose(run(model, x), exact, rtol=1e-6)


def test_values_outside_of_the_range_count_as_its_ends() -> None:
    weights, x = integers(4, 3, 1, 1), integers(1, 3, 8, 8, least=-300, most=300)
    expected = run(one(weights), x.clip(-128, 127))
    model = one(weights)
    quantize(model, {OUTPUT: (-128, 127)})
    np.testing.assert_array_equal(run(model, x), expected)


def test_numbers_of_any_kind_come_out_within_two_per_cent() -> None:
    weights, x = random(16, 8, 3, 3), random(1, 8, 20, 20, seed=1)
    exact = run(one(weights), x)
    model = one(weights)
    quantize(model, {OUTPUT: (float(x.min()), float(x.max()))})
    assert np.abs(run(model, x) - exact).mean() < 0.02 * np.abs(exact).mean()


def test_those_without_a_range_stay_and_those_of_one_input_share_its_int8_values() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Conv", ["x", "v"], ["b"], name="second"),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Conv", ["c", "u"], ["y"]),
    ]
    constants = {"w": random(4, 3, 1, 1), "v": random(4, 3, 1, 1, seed=1), "u": random(2, 4, 1, 1, seed=2)}
    model = model_of(nodes, constants, ["n", 3, "h", "w"])
    assert [node.get_friendly_name() for node in convolutions(model)] == ["first", "second", "y"]
    assert quantize(model, {"first": (-1, 1), "second": (-1, 1), "fourth": (-1, 1)}) == 2
    assert types(model).count("FakeQuantize") == 3, "two kernels, and one input"


@pytest.mark.parametrize(
    ("flags", "able"), [("avx512_vnni", True), ("avx_vnni", True), ("avx2 avx512f", False), ("", False)]
)
def test_a_cpu_without_vnni_does_not_multiply_int8(flags: str, able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "cpu_flags", lambda: frozenset(flags.split()))
    assert multiplies_int8() is able


def test_the_flags_of_this_cpu_are_read() -> None:
    assert {"fpu", "sse2"} <= openvino_core.cpu_flags()


@pytest.fixture
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "multiplies_int8", lambda: True)


def opened(folder: Path, plan: EnginePlan, ranges: Ranges | None = RANGES) -> Session:
    return open_graph(convolution_graph(folder / "model.onnx"), plan, ranges=ranges)


@pytest.mark.usefixtures("vnni")
@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_a_graph_whose_ranges_are_known_is_computed_in_int8(
    precision: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "runners.engine")
    session = opened(tmp_path, EnginePlan("cpu", 1, engine="openvino", precision=precision))  # type: ignore[arg-type]
    x = np.random.default_rng(0).normal(size=(5, FEATURES)).astype(np.float32)
    exact = np.maximum(x @ WEIGHTS, 0)
    answer = session.run({"x": x[..., np.newaxis, np.newaxis]})[0][..., 0, 0]
    assert 0 < np.abs(answer - exact).mean() < 0.02 * np.abs(exact).mean()
    assert "in int8 on the CPU (its values were measured, and this CPU has VNNI)" in caplog.text


@pytest.mark.usefixtures("vnni")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_precision_that_is_asked_for_is_had(
    precision: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "runners.engine")
    opened(tmp_path, EnginePlan("cpu", 1, engine="openvino", precision=precision))  # type: ignore[arg-type]
    assert f"in {precision} on the CPU" in caplog.text


@pytest.mark.usefixtures("vnni")
def test_onnx_runtime_computes_it_in_fp32(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "runners.engine")
    session = opened(tmp_path, EnginePlan("cpu", 1, engine="onnxruntime", precision="auto"))
    assert isinstance(session, OnnxRuntimeSession)
    assert "in fp32 on the CPU" in caplog.text


@pytest.mark.usefixtures("vnni")
def test_compiled_models_of_other_ranges_are_not_taken_for_these(tmp_path: Path) -> None:
    plan = EnginePlan("cpu", 1, engine="openvino", precision="auto", compiled=tmp_path / "compiled")
    x = np.full((1, FEATURES, 1, 1), 4, np.float32)
    wide, narrow = (opened(tmp_path, plan, ranges).run({"x": x})[0] for ranges in (RANGES, {PRODUCT: (-0.5, 0.5)}))
    assert np.abs(wide).max() > 4 * np.abs(narrow).max()
    np.testing.assert_array_equal(opened(tmp_path, plan).run({"x": x})[0], wide)
