"""Faces that the first look does not find: large, turned, in long pictures, on a transparent ground."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from runners.contract import Faces, Float32
from runners.faces import FaceModel, load_faces
from runners.faces.alignment import Pixels
from runners.faces.detection import Detections, Detector
from runners.faces.second_look import OVERVIEW
from tests.runners.faces.reference import FILES, MAX_PIXELS, T1, face_model, job, opened, pixels, png

MIN_SCORE = 0.7


def found(picture: Pixels, model: FaceModel | None = None) -> Faces:
    (answer,) = (model or face_model()).run([job(png(np.ascontiguousarray(picture)), MIN_SCORE)])
    assert isinstance(answer, Faces)
    return answer


@pytest.fixture(scope="module")
def one_look() -> Iterator[FaceModel]:
    model = load_faces(FILES, opened, max_pixels=MAX_PIXELS, looks_again=False)
    yield model
    model.close()


def close_up(number: int, margin: float = 0.0) -> tuple[Pixels, Float32]:
    """Cut one face of t1 out, as large as its box and ``margin`` of it on each side; return it with its vector."""
    faces = found(pixels(T1))
    x1, y1, x2, y2 = faces.boxes[number]
    more = margin * max(x2 - x1, y2 - y1)
    left, top = max(0, round(x1 - more)), max(0, round(y1 - more))
    return pixels(T1)[top : round(y2 + more), left : round(x2 + more)], faces.embeddings[number]


@pytest.mark.parametrize("number", range(6))
def test_a_face_that_fills_its_picture_is_found(number: int, one_look: FaceModel) -> None:
    cut, vector = close_up(number)
    large = np.asarray(Image.fromarray(cut).resize((600, 600 * cut.shape[0] // cut.shape[1])))
    assert len(found(large, one_look).scores) == 0
    faces = found(large)
    assert len(faces.scores) == 1
    height, width = large.shape[:2]
    assert (faces.boxes[0] >= 0).all()
    assert (faces.boxes[0] <= (width, height, width, height)).all()
    assert np.prod(faces.boxes[0, 2:] - faces.boxes[0, :2]) > 0.6 * width * height
    assert float(faces.embeddings[0] @ vector) > 0.6


@pytest.mark.parametrize(
    ("number", "turns"),
    [
        pytest.param(number, turns, marks=[pytest.mark.slow] * (turns != 1 + number % 3))
        for number in range(6)
        for turns in (1, 2, 3)
    ],
)
def test_a_turned_face_that_fills_its_picture_is_found(number: int, turns: int) -> None:
    cut, vector = close_up(number)
    faces = found(np.rot90(cut, turns))
    assert len(faces.scores) == 1
    assert float(faces.embeddings[0] @ vector) > 0.6


@pytest.mark.parametrize("turns", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_the_faces_of_a_turned_picture_are_found_where_they_are(turns: int, one_look: FaceModel) -> None:
    upright = found(pixels(T1))
    turned = np.rot90(pixels(T1), turns)
    assert len(found(turned, one_look).scores) < len(upright.scores)
    cut, vector = close_up(0, margin=1.0)
    alone = found(cut)
    faces = found(np.rot90(cut, turns))
    assert len(faces.scores) >= 1
    height, width = cut.shape[:2]
    x1, y1, x2, y2 = alone.boxes[0]
    expected = {
        1: (y1, width - x2, y2, width - x1),
        2: (width - x2, height - y2, width - x1, height - y1),
        3: (height - y2, x1, height - y1, x2),
    }[turns]
    best = int((faces.embeddings @ vector).argmax())
    np.testing.assert_allclose(faces.boxes[best], expected, atol=0.12 * (x2 - x1))
    assert float(faces.embeddings[best] @ vector) > 0.7


@pytest.mark.parametrize("at", [0, pytest.param(2100, marks=pytest.mark.slow), 5300])
def test_small_faces_of_a_panorama_are_found_where_they_are(at: int, one_look: FaceModel) -> None:
    panorama = np.full((600, 6000, 3), 90, np.uint8)
    small = np.asarray(Image.fromarray(pixels(T1)).resize((640, 443)))
    panorama[80:523, at : at + 640] = small
    assert len(found(panorama, one_look).scores) == 0
    faces = found(panorama)
    assert len(faces.scores) == 6
    assert (faces.boxes[:, [0, 2]] >= at - 1).all()
    assert (faces.boxes[:, [0, 2]] <= at + 641).all()
    similar = faces.embeddings @ found(small).embeddings.T
    assert (similar.max(axis=1) > 0.7).all()


def test_a_tall_strip_of_photos_is_looked_through() -> None:
    strip = np.full((6000, 600, 3), 90, np.uint8)
    strip[4000:4415] = np.asarray(Image.fromarray(pixels(T1)).resize((600, 415)))
    faces = found(strip)
    assert len(faces.scores) == 6
    assert (faces.boxes[:, [1, 3]] >= 3999).all()
    assert (faces.boxes[:, [1, 3]] <= 4416).all()


def test_a_picture_in_which_faces_are_found_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_faces(FILES, opened, max_pixels=MAX_PIXELS)
    monkeypatch.setattr("runners.faces.second_look", None)
    assert len(found(pixels(T1), model).scores) == 6
    model.close()


def test_a_picture_without_faces_costs_one_more_call_on_a_small_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_faces(FILES, opened, max_pixels=MAX_PIXELS)
    looks: list[tuple[int, int]] = []
    detect = Detector.detect

    def counted(detector: Detector, picture: Pixels, min_score: float) -> Detections:
        looks.append(detector.size)
        return detect(detector, picture, min_score)

    monkeypatch.setattr(Detector, "detect", counted)
    grain = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    faces = found(np.asarray(Image.fromarray(grain).resize((800, 600))), model)
    assert len(faces.scores) == 0
    assert looks == [(640, 640), OVERVIEW]
    model.close()


def test_a_face_on_a_transparent_ground_is_found() -> None:
    cut, _ = close_up(0, margin=0.5)
    image = Image.new("RGBA", (600, 600), (0, 0, 0, 0))
    image.paste(Image.fromarray(cut).resize((300, 300)), (150, 150))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    (answer,) = face_model().run([job(buffer.getvalue(), MIN_SCORE)])
    assert isinstance(answer, Faces)
    assert len(answer.scores) == 1


def small_in_large(turns: int, size: int, at: tuple[int, int]) -> tuple[Pixels, Float32]:
    """Show a face of about ``size`` pixels in a picture of 12 megapixels; return that with the face's vector."""
    cut, vector = close_up(0, margin=0.9)
    scale = size / (max(cut.shape[:2]) / 2.8)
    small = Image.fromarray(cut).resize((round(cut.shape[1] * scale), round(cut.shape[0] * scale)))
    picture = np.full((3000, 4000, 3), (120, 130, 140), np.uint8)
    turned = np.rot90(np.asarray(small), turns)
    picture[at[1] : at[1] + turned.shape[0], at[0] : at[0] + turned.shape[1]] = turned
    return picture, vector


@pytest.mark.parametrize("size", [100, 115])
def test_a_small_upright_face_of_a_large_picture_is_found_where_it_is(size: int, one_look: FaceModel) -> None:
    picture, vector = small_in_large(0, size, (2600, 700))
    assert len(found(picture, one_look).scores) == 0
    faces = found(picture)
    assert len(faces.scores) == 1
    assert (faces.boxes[0, :2] > (2600, 700)).all()
    assert (faces.boxes[0, 2:] < (2600 + 2.8 * size, 700 + 2.8 * size)).all()
    assert float(faces.embeddings[0] @ vector) > 0.5


@pytest.mark.parametrize("turns", [1, *(pytest.param(turns, marks=pytest.mark.slow) for turns in (2, 3))])
def test_a_small_turned_face_of_a_large_picture_is_found_where_it_is(turns: int, one_look: FaceModel) -> None:
    picture, vector = small_in_large(turns, 180, (900, 1800))
    assert len(found(picture, one_look).scores) == 0
    faces = found(picture)
    assert len(faces.scores) == 1
    assert (faces.boxes[0, :2] > (900, 1800)).all()
    assert (faces.boxes[0, 2:] < (900 + 2.8 * 180, 1800 + 2.8 * 180)).all()
    assert float(faces.embeddings[0] @ vector) > 0.5
