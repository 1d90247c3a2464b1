"""Both engines answer alike, from many threads at once, refuse what is no graph, and give back what they took."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from errors import ErrorCode, ModelUnavailable
from models.packages import package_folder
from runners.engine import EnginePlan, Session, open_session
from runners.engine.session import TensorSpec
from runners.ocr.recognition import load_alphabet
from tests.runners.engine.graphs import FEATURES, METADATA, WEIGHTS, integer_graph, linear_graph

Device = Literal["cpu", "openvino"]
DEVICES: tuple[Device, ...] = ("cpu", "openvino")
F32, U8, I32, I64 = (np.dtype(kind) for kind in (np.float32, np.uint8, np.int32, np.int64))
ROOT = Path(__file__).parents[3]


def rows(number: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(number, FEATURES)).astype(np.float32)


def relu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = np.maximum(x.astype(np.float64) @ WEIGHTS, 0).astype(np.float32)
    return result


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    chosen: Device = request.param
    return chosen


@pytest.fixture
def linear(tmp_path: Path, device: Device) -> Session:
    return open_session(linear_graph(tmp_path / "linear.onnx"), EnginePlan(device, 2))


def test_a_graph_tells_its_inputs_outputs_and_metadata(linear: Session) -> None:
    assert list(linear.inputs) == [TensorSpec("x", F32, (None, FEATURES))]
    assert list(linear.outputs) == [TensorSpec("y", F32, (None, FEATURES)), TensorSpec("total", F32, ())]
    assert dict(linear.metadata) == METADATA


@pytest.mark.parametrize("number", [1, 3, 17])
def test_several_outputs_come_in_their_order_for_any_batch(linear: Session, number: int) -> None:
    x = rows(number)
    y, total = linear.run({"x": x})
    assert y.dtype == total.dtype == np.float32
    np.testing.assert_allclose(y, relu(x), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(total, relu(x).sum(), rtol=1e-4)


def test_an_array_that_is_not_contiguous_is_read_rightly(linear: Session) -> None:
    wide = rows(8)
    for x in (np.asfortranarray(wide), wide[::2], np.ascontiguousarray(wide.T).T):
        np.testing.assert_allclose(linear.run({"x": x})[0], relu(x), rtol=1e-4, atol=1e-4)


def test_answers_stay_as_they_are_when_the_session_runs_again(linear: Session) -> None:
    first, _ = linear.run({"x": rows(4, seed=1)})
    kept = first.copy()
    linear.run({"x": rows(4, seed=2)})
    np.testing.assert_array_equal(first, kept)


def test_a_fixed_axis_is_told_and_kept(tmp_path: Path, device: Device) -> None:
    session = open_session(linear_graph(tmp_path / "one.onnx", batch=1), EnginePlan(device, 2))
    assert session.inputs[0].shape == (1, FEATURES)
    np.testing.assert_allclose(session.run({"x": rows(1)})[0], relu(rows(1)), rtol=1e-4, atol=1e-4)
    with pytest.raises(Exception, match=r"(?i)dimension|shape"):
        session.run({"x": rows(2)})


def test_bytes_and_integers_are_taken_as_they_are(tmp_path: Path, device: Device) -> None:
    session = open_session(integer_graph(tmp_path / "integers.onnx"), EnginePlan(device, 2))
    assert {spec.name: spec.dtype for spec in session.inputs} == {"pixels": U8, "ids": I64, "mask": I32}
    pixels = np.array([[0, 51, 102, 255], [255, 0, 255, 0]], np.uint8)
    ids, mask = np.array([9, 2], np.int64), np.array([[1, 1, 1, 1], [1, 0, 0, -1]], np.int32)
    (mixed,) = session.run({"pixels": pixels, "ids": ids, "mask": mask})
    expected = [[36, 37.2, 38.4, 40], [9, 9, 10, 11]]
    np.testing.assert_allclose(mixed, np.array(expected, np.float32), rtol=1e-6)


def test_eight_threads_at_once_get_their_own_answers(linear: Session) -> None:
    together = threading.Barrier(8)

    def ask(caller: int) -> None:
        together.wait(60)
        for turn in range(40):
            x = rows(1 + (caller + turn) % 5, seed=caller * 100 + turn)
            np.testing.assert_allclose(linear.run({"x": x})[0], relu(x), rtol=1e-4, atol=1e-4)

    with ThreadPoolExecutor(8) as callers:
        list(callers.map(ask, range(8)))


def test_a_closed_session_says_so(linear: Session) -> None:
    linear.run({"x": rows(1)})
    linear.close()
    linear.close()
    with pytest.raises(RuntimeError, match="closed"):
        linear.run({"x": rows(1)})


@pytest.mark.parametrize(
    "content", [b"", b"rubbish" * 50, b"<html>not found</html>", None], ids=["empty", "rubbish", "html", "missing"]
)
def test_what_is_no_graph_is_an_unavailable_model(tmp_path: Path, device: Device, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelUnavailable) as caught:
        open_session(path, EnginePlan(device, 2))
    assert caught.value.code is ErrorCode.MODEL_UNAVAILABLE
    assert str(path) in caught.value.message
    assert "Delete the model's folder" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_graph_that_is_cut_short_is_an_unavailable_model(tmp_path: Path, device: Device) -> None:
    path = linear_graph(tmp_path / "linear.onnx")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ModelUnavailable):
        open_session(path, EnginePlan(device, 2))


def test_a_session_for_cuda_never_falls_to_the_cpu_silently(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA: there is nothing to fall from")
    with pytest.raises(ModelUnavailable, match="CUDA"), pytest.warns(UserWarning, match="CUDA"):
        open_session(linear_graph(tmp_path / "linear.onnx"), EnginePlan("cuda", 2))


def test_the_first_plan_of_a_process_decides_the_threads_and_a_second_does_no_harm(tmp_path: Path) -> None:
    path = linear_graph(tmp_path / "linear.onnx")
    for threads in (1, 2, 3):
        open_session(path, EnginePlan("cpu", threads)).run({"x": rows(1)})


# In a process of its own: what other tests opened would count too.
_COUNT_THREADS = """
import sys, threading, time, numpy, psutil
from pathlib import Path
from runners.engine import EnginePlan, open_session
device, path = sys.argv[1], Path(sys.argv[2])
counts, sessions = [], []
for _ in range(6):
    sessions.append(open_session(path, EnginePlan(device, 3)))
    callers = [threading.Thread(target=s.run, args=({"x": numpy.ones((200, 64), numpy.float32)},)) for s in sessions]
    for caller in callers: caller.start()
    for caller in callers: caller.join()
    seen = []
    for _ in range(10):  # the kernel still lists a thread for a moment after it was joined
        time.sleep(0.01)
        seen.append(psutil.Process().num_threads())
    counts.append(min(seen))
print(*counts)
"""


def thread_counts(device: Device, path: Path) -> list[int]:
    command = [sys.executable, "-c", _COUNT_THREADS, device, str(path)]
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=True
    )
    return [int(count) for count in done.stdout.split()]


def test_six_sessions_of_onnxruntime_have_the_threads_of_one(tmp_path: Path) -> None:
    counts = thread_counts("cpu", linear_graph(tmp_path / "linear.onnx"))
    assert len(set(counts)) == 1, counts


def test_a_further_session_of_openvino_brings_no_computing_threads(tmp_path: Path) -> None:
    # Each has two threads that only pass work on; those that compute are TBB's, and shared.
    counts = thread_counts("openvino", linear_graph(tmp_path / "linear.onnx"))
    assert counts[-1] - counts[0] <= 2 * (len(counts) - 1), counts


def test_opening_and_closing_again_and_again_does_not_grow(tmp_path: Path, device: Device) -> None:
    path = big_graph(tmp_path / "big.onnx")
    process, sizes = psutil.Process(), []
    for _ in range(36):
        session = open_session(path, EnginePlan(device, 2))
        session.run({"x": np.ones((32, 2048), np.float32)})
        session.close()
        sizes.append(process.memory_info().rss / 2**20)
    # 16 MiB of weights each: 12 that stayed would be 192. The allocator keeps some room of its own to begin with.
    assert max(sizes[-12:]) - max(sizes[-24:-12]) < 40, sizes


def big_graph(path: Path) -> Path:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2048])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2048])],
        [
            helper.make_tensor(
                "w", TensorProto.FLOAT, (2048, 2048), np.ones(2048 * 2048, np.float32).tobytes(), raw=True
            )
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_the_real_recogniser_reads_alike_under_both_engines_and_brings_its_alphabet() -> None:
    folder = package_folder("rapidocr")
    assert folder is not None
    path = folder / "models" / "PP-OCRv6_rec_small.onnx"
    whole = open_session(path, EnginePlan("cpu", 2))
    x = np.random.default_rng(3).uniform(-1, 1, (2, 3, 48, 160)).astype(np.float32)
    (expected,) = whole.run({"x": x})
    for device in DEVICES:
        reduced = open_session(path, EnginePlan(device, 2), best_class=True)
        assert reduced.metadata["character"] == whole.metadata["character"]
        alphabet = load_alphabet(reduced, None)
        assert len(alphabet) == whole.outputs[0].shape[-1] == 18710
        assert {"发", "票", "A", "z", "0", " "} <= set(alphabet)
        scores, classes, blanks = reduced.run({"x": x})
        np.testing.assert_allclose(scores, expected.max(axis=2), atol=1e-3)
        np.testing.assert_allclose(
            np.take_along_axis(expected, classes[..., None], axis=2)[..., 0], expected.max(axis=2), atol=1e-3
        )
        np.testing.assert_allclose(blanks, expected[..., -1], atol=1e-3)
        reduced.close()
    whole.close()
