"""The similarity of five landmarks, and the crop that it makes."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.faces.alignment import CROP_SIZE, TEMPLATE, aligned_crop, similarity
from tests.runners.faces.reference import T1, pixels, reference_crop, reference_detections

coordinates = st.floats(-2000, 12_000, width=32)
landmarks = st.lists(st.tuples(coordinates, coordinates), min_size=5, max_size=5).map(
    lambda points: np.array(points, np.float32)
)


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


@settings(deadline=None)
@given(
    scale=st.floats(1e-3, 1e3),
    angle=st.floats(-np.pi, np.pi),
    shift=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
)
def test_a_known_similarity_is_recovered(scale: float, angle: float, shift: tuple[float, float]) -> None:
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    known = np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]]])
    np.testing.assert_allclose(similarity(TEMPLATE, moved(TEMPLATE, known)), known, rtol=1e-7, atol=1e-7)


@settings(deadline=None)
@given(source=landmarks, nudge=st.tuples(*[st.floats(-0.05, 0.05)] * 4))
def test_no_other_similarity_comes_closer(source: np.ndarray, nudge: tuple[float, float, float, float]) -> None:
    best = similarity(source, TEMPLATE)
    a, b = best[0, 0] + nudge[0] * 1e-3, best[1, 0] + nudge[1] * 1e-3
    other = np.array([[a, -b, best[0, 2] + nudge[2]], [b, a, best[1, 2] + nudge[3]]])
    assert ((moved(source, best) - TEMPLATE) ** 2).sum() <= ((moved(source, other) - TEMPLATE) ** 2).sum() + 1e-6


@settings(deadline=None)
@given(source=landmarks)
def test_a_similarity_never_mirrors_and_agrees_with_scikit_image(source: np.ndarray) -> None:
    from skimage.transform import SimilarityTransform

    matrix = similarity(source, TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) >= 0
    wide = source.astype(np.float64)
    if np.ptp(wide, axis=0).max() < 1:
        return  # all points about the same: scikit-image gives up
    reference = SimilarityTransform()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer releases advise another call, which that for Python 3.10 has not
        reference.estimate(wide, TEMPLATE)
    np.testing.assert_allclose(moved(wide, matrix), moved(wide, reference.params[:2]), atol=1e-3)


def test_points_that_all_coincide_give_scale_zero() -> None:
    matrix = similarity(np.full((5, 2), 7.0), TEMPLATE)
    np.testing.assert_allclose(matrix, np.c_[np.zeros((2, 2)), TEMPLATE.mean(axis=0)])
    assert aligned_crop(np.full((20, 20, 3), 9, np.uint8), np.full((5, 2), 7.0, np.float32)).shape == (112, 112, 3)


def test_crops_are_those_of_insightface() -> None:
    picture = pixels(T1)
    _, found = reference_detections(picture)
    for points in found:
        difference = np.abs(aligned_crop(picture, points).astype(int) - reference_crop(picture, points).astype(int))
        assert difference.mean() < 0.1
        assert difference.max() <= 16, "float32 in the reference's fit may move a sample by 1/32 px, no more"


@settings(deadline=None)
@given(points=landmarks)
def test_only_the_part_of_the_picture_around_the_face_is_ever_needed(points: np.ndarray) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 130, 3)).astype(np.uint8)
    matrix = similarity(points, TEMPLATE)
    whole = cv2.warpAffine(picture, matrix, (CROP_SIZE, CROP_SIZE))
    difference = np.abs(aligned_crop(picture, points).astype(int) - whole.astype(int))
    # A shifted origin may round a coordinate to the next 1/32 px; noise differs by up to 255/32 per axis there.
    assert difference.max() <= 2 * 255 / 32 + 1


def test_a_face_outside_of_the_picture_is_black() -> None:
    assert not aligned_crop(np.full((50, 50, 3), 255, np.uint8), (TEMPLATE + 5000).astype(np.float32)).any()


@pytest.mark.parametrize("wide", [True, False])
def test_a_picture_longer_than_opencv_warps_is_cropped_all_the_same(wide: bool) -> None:
    face = np.random.default_rng(0).integers(0, 256, (112, 112, 3)).astype(np.uint8)
    x, y = (39_000, 4) if wide else (4, 39_000)
    strip = np.zeros((120, 40_000, 3) if wide else (40_000, 120, 3), np.uint8)
    strip[y : y + 112, x : x + 112] = face
    np.testing.assert_array_equal(aligned_crop(strip, TEMPLATE + np.array([x, y])), face)


def test_a_face_larger_than_opencv_warps_does_not_fail() -> None:
    strip = np.full((20, 70_000, 3), 255, np.uint8)
    assert aligned_crop(strip, TEMPLATE * 600).shape == (112, 112, 3)
