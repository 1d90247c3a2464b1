"""``runners.faces`` as its callers see it, on real weights, beside insightface itself."""

from __future__ import annotations

import io
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from errors import ErrorCode, ModelUnavailable
from runners.contract import Faces, Failure, ImageJob, OcrOptions
from runners.engine import EnginePlan, Session, open_session
from runners.faces import load_faces
from runners.faces.alignment import Pixels
from runners.faces.detection import Detections
from tests.runners.faces.reference import FILES, MAX_PIXELS, T1, face_model, job, opened, pixels, png, reference_faces


def only(answers: Sequence[Faces | Failure]) -> Faces:
    (answer,) = answers
    assert isinstance(answer, Faces)
    return answer


def assert_same(ours: Faces | Failure, reference: Faces) -> None:
    assert isinstance(ours, Faces)
    assert ours.boxes.shape == reference.boxes.shape
    np.testing.assert_allclose(ours.boxes, reference.boxes, atol=0.01)
    np.testing.assert_allclose(ours.scores, reference.scores, atol=1e-5)
    assert ((ours.embeddings * reference.embeddings).sum(axis=1) > 0.999).all()


def test_the_six_faces_of_t1_are_those_that_insightface_finds() -> None:
    ours = only(face_model().run([job(T1)]))
    assert len(ours.boxes) == 6
    assert_same(ours, reference_faces(pixels(T1)))


@pytest.mark.parametrize("looks_again", [False, True])
def test_openvino_finds_the_same_faces(looks_again: bool) -> None:
    def in_openvino(path: Path, *, picture_size: tuple[int, int] | None) -> Session:
        return open_session(path, EnginePlan("cpu", 2, engine="openvino"), picture_size=picture_size)

    model = load_faces(FILES, in_openvino, max_pixels=MAX_PIXELS, looks_again=looks_again)
    assert_same(only(model.run([job(T1)])), reference_faces(pixels(T1)))
    small = np.ascontiguousarray(pixels(T1)[::2, ::2])
    assert_same(only(model.run([job(png(small), 0.3)])), reference_faces(small, 0.3))
    model.close()


@pytest.mark.parametrize("min_score", [0.05, 0.1, 0.3, 0.86])
def test_faces_are_those_of_insightface_at_any_threshold(min_score: float) -> None:
    assert_same(only(face_model().run([job(T1, min_score)])), reference_faces(pixels(T1), min_score))


def test_a_picture_of_many_faces_is_answered_as_by_insightface() -> None:
    crowd = np.tile(pixels(T1), (3, 3, 1))
    ours = only(face_model().run([job(png(crowd))]))
    assert len(ours.boxes) > 40, "more than fit in one call of the recogniser"
    assert_same(ours, reference_faces(crowd))


@pytest.mark.parametrize("turned", [0, 1])
def test_a_panorama_is_answered_as_by_insightface(turned: int) -> None:
    panorama = np.zeros((1000, 9000, 3), np.uint8)
    panorama[57:943, 4000:5280] = pixels(T1)
    panorama = np.ascontiguousarray(np.rot90(panorama, turned))
    assert_same(only(face_model().run([job(png(panorama), 0.05)])), reference_faces(panorama, 0.05))


def test_answers_are_float32_sorted_and_of_norm_one() -> None:
    answer = only(face_model().run([job(T1, 0.1)]))
    assert {answer.boxes.dtype, answer.scores.dtype, answer.embeddings.dtype} == {np.dtype(np.float32)}
    assert (np.diff(answer.scores) <= 0).all()
    assert answer.embeddings.shape == (len(answer.boxes), 512)
    np.testing.assert_allclose(np.linalg.norm(answer.embeddings, axis=1), 1, atol=1e-5)


def test_no_job_of_a_batch_is_answered_by_the_threshold_of_another() -> None:
    thresholds = [0.5, 0.87, 0.999, 0.1, 0.86, 0.5, 0.873, 0.05, 0.87]
    answers = face_model().run([job(T1, threshold) for threshold in thresholds])
    for threshold, answer in zip(thresholds, answers, strict=True):
        assert_same(answer, only(face_model().run([job(T1, threshold)])))
        assert isinstance(answer, Faces)
        assert (answer.scores >= threshold).all()
    assert [len(answer.scores) for answer in answers if isinstance(answer, Faces)][:3] == [6, 3, 0]


def test_a_batch_is_answered_as_its_pictures_are_alone() -> None:
    t1 = pixels(T1)
    pictures = [t1, t1[:, :700], t1[200:], t1[:, ::-1], np.rot90(t1), np.tile(t1, (2, 2, 1))]
    jobs = [job(png(np.ascontiguousarray(picture))) for picture in pictures]
    for together, alone in zip(face_model().run(jobs), [only(face_model().run([one])) for one in jobs], strict=True):
        assert_same(together, alone)


def test_a_picture_that_cannot_be_read_spoils_only_its_own_answer() -> None:
    small_model = load_faces(FILES, opened, max_pixels=2_000_000)
    large = io.BytesIO()
    Image.new("RGB", (2000, 1001)).save(large, "PNG")
    answers = small_model.run([job(T1), job(b"no picture"), job(T1[:5000]), job(T1), job(large.getvalue()), job(b"")])
    codes = [answer.code if isinstance(answer, Failure) else len(answer.boxes) for answer in answers]
    unreadable = ErrorCode.UNREADABLE_PICTURE
    assert codes == [6, unreadable, unreadable, 6, ErrorCode.PICTURE_TOO_LARGE, unreadable]
    assert isinstance(answers[1], Failure)
    assert "not a picture" in answers[1].message


def test_an_empty_batch_and_one_of_bad_pictures_only_are_answered() -> None:
    assert face_model().run([]) == []
    (answer,) = face_model().run([job(b"no picture")])
    assert isinstance(answer, Failure)


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (2, 1), (1, 3000), (3000, 1), (640, 640), (33_000, 3), (3, 33_000)]
)
@pytest.mark.parametrize("grey", [0, *(pytest.param(grey, marks=pytest.mark.slow) for grey in (128, 255))])
def test_a_blank_picture_of_any_shape_has_no_faces(width: int, height: int, grey: int) -> None:
    answer = only(face_model().run([job(png(np.full((height, width, 3), grey, np.uint8)))]))
    assert answer.boxes.shape == (0, 4)
    assert answer.scores.shape == (0,)
    assert answer.embeddings.shape == (0, 512)


def test_boxes_end_at_the_edges_of_the_picture_and_are_otherwise_those_of_insightface() -> None:
    cut = np.ascontiguousarray(pixels(T1)[:, 790:1180])
    ours, reference = only(face_model().run([job(png(cut), 0.1)])), reference_faces(cut, 0.1)
    height, width = cut.shape[:2]
    assert (reference.boxes[:, 0] < 0).any() or (reference.boxes[:, 2] > width).any()
    inside = np.clip(reference.boxes, 0, [width, height, width, height]).astype(np.float32)
    assert_same(ours, Faces(inside, reference.scores, reference.embeddings))


def test_one_picture_at_a_time_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_faces(FILES, opened, max_pixels=MAX_PIXELS)
    seen: list[weakref.ref[Pixels]] = []
    detect = model._detector.detect

    def watched(picture: Pixels, min_score: float) -> Detections:
        assert not any(one() is not None for one in seen), "a picture before is still there"
        seen.append(weakref.ref(picture))
        return detect(picture, min_score)

    monkeypatch.setattr(model._detector, "detect", watched)
    answers = model.run([job(T1)] * 3)
    assert [len(answer.boxes) for answer in answers if isinstance(answer, Faces)] == [6] * 3
    assert len(seen) == 3


def test_threads_may_share_a_model() -> None:
    thresholds = [0.5, 0.87, 0.999, 0.86] * 4
    alone = {threshold: only(face_model().run([job(T1, threshold)])) for threshold in set(thresholds)}
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda threshold: only(face_model().run([job(T1, threshold)])), thresholds))
    for threshold, answer in zip(thresholds, answers, strict=True):
        assert_same(answer, alone[threshold])


def test_a_job_with_options_of_another_task_is_our_own_mistake() -> None:
    with pytest.raises(TypeError, match="FaceOptions"):
        face_model().run([ImageJob(T1, "buffalo_s", OcrOptions(0.5, 0.5, 736))])


def test_graphs_that_are_no_face_model_are_refused_by_name_and_freed() -> None:
    closed: list[str] = []

    def watched(path: Path, *, picture_size: tuple[int, int] | None) -> Session:
        session = opened(path)
        session.close = lambda: closed.append(path.name)  # type: ignore[method-assign]
        return session

    swapped = {
        "detection/model.onnx": FILES["recognition/model.onnx"],
        "recognition/model.onnx": FILES["detection/model.onnx"],
    }
    with pytest.raises(ModelUnavailable, match=r"w600k_mbf\.onnx.*no SCRFD"):
        load_faces(swapped, watched, max_pixels=MAX_PIXELS)
    assert sorted(closed) == ["scrfd_500m_bnkps.onnx", "w600k_mbf.onnx"]

    both_detection = dict.fromkeys(FILES, FILES["detection/model.onnx"])
    with pytest.raises(ModelUnavailable, match="one output, not 9"):
        load_faces(both_detection, watched, max_pixels=MAX_PIXELS)
    assert closed[2:] == ["scrfd_500m_bnkps.onnx"] * 2


def test_the_first_graph_is_freed_when_the_second_cannot_be_opened() -> None:
    closed: list[str] = []

    def half(path: Path, *, picture_size: tuple[int, int] | None) -> Session:
        if path == FILES["recognition/model.onnx"]:
            raise ModelUnavailable("truncated")
        session = opened(path)
        session.close = lambda: closed.append(path.name)  # type: ignore[method-assign]
        return session

    with pytest.raises(ModelUnavailable, match="truncated"):
        load_faces(FILES, half, max_pixels=MAX_PIXELS)
    assert closed == ["scrfd_500m_bnkps.onnx"]


def test_a_closed_model_does_not_answer() -> None:
    model = load_faces(FILES, opened, max_pixels=MAX_PIXELS)
    model.close()
    with pytest.raises(RuntimeError, match="closed"):
        model.run([job(T1)])


def test_serving_faces_does_not_import_insightface_or_what_it_brings() -> None:
    import subprocess
    import sys

    heavy = "{'insightface', 'scipy', 'skimage', 'onnx', 'torch', 'bentoml'}"
    code = f"import sys, runners.faces; print(sorted({heavy} & sys.modules.keys()))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
