"""Alignment of faces: cut out of their picture and turned upright, as ArcFace networks were trained."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
"""(h, w, 3) uint8, RGB."""

CROP_SIZE = 112
"""Pixels of both sides of an aligned face."""

TEMPLATE: NDArray[np.float64] = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""(5, 2): where left eye, right eye, nose and the two corners of the mouth lie in an aligned face (x, y in pixels).
The published constants of ArcFace (Deng et al., CVPR 2019); insightface/utils/face_align.py has the same."""

_LONGEST_SIDE = 2**15 - 2
# cv2.warpAffine keeps source coordinates in 16 bits and refuses longer sides.


def similarity(source: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the similarity (rotation, uniform scale, shift) that brings ``source`` closest to ``target``.

    Both are (n, 2) points. Returns the (2, 3) matrix M with ``target ~ M[:, :2] @ source + M[:, 2]`` and the least sum
    of squared distances. Umeyama (PAMI 1991) solves this with an SVD in any dimension; in the plane a similarity is
    ``w = a z + b`` over complex numbers, which makes it an ordinary linear regression. Where all source points
    coincide, the scale is 0.
    """
    z = np.asarray(source, np.float64) @ (1, 1j)
    w = np.asarray(target, np.float64) @ (1, 1j)
    centred = z - z.mean()
    spread = np.vdot(centred, centred).real
    a = np.vdot(centred, w - w.mean()) / spread if spread > 0 else 0j
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]], np.float64)


def aligned_crop(picture: Pixels, landmarks: NDArray[np.floating]) -> Pixels:
    """Cut out the face with the given (5, 2) landmarks, warped so that they lie on ``TEMPLATE``.

    Returns (112, 112, 3) uint8, RGB; black where the face reaches past the picture's edge. Sampling is bilinear, as in
    insightface's ``norm_crop``, whose crops these equal.
    """
    matrix = similarity(landmarks, TEMPLATE)
    left, top, right, bottom = _sampled_region(matrix, width=picture.shape[1], height=picture.shape[0])
    if left >= right or top >= bottom:
        return np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8)
    matrix[:, 2] += matrix[:, :2] @ (left, top)
    crop = cv2.warpAffine(picture[top:bottom, left:right], matrix, (CROP_SIZE, CROP_SIZE))
    return np.asarray(crop, np.uint8)


def _sampled_region(matrix: NDArray[np.float64], *, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the part of a picture that the warp by ``matrix`` reads.

    Its sides are short enough for OpenCV.
    """
    end = CROP_SIZE - 1
    corners = np.array([[0, end, 0, end], [0, 0, end, end], [1, 1, 1, 1]], np.float64)
    seen = cv2.invertAffineTransform(matrix) @ corners
    # Two pixels more on each side, so that bilinear sampling never meets an edge that is not the picture's own.
    left, top = np.floor(seen.min(axis=1)).clip(0, (width + 2, height + 2)).astype(int) - 2
    right, bottom = np.ceil(seen.max(axis=1)).clip(-3, (width, height)).astype(int) + 3
    left, top = max(0, int(left)), max(0, int(top))
    return left, top, min(width, int(right), left + _LONGEST_SIDE), min(height, int(bottom), top + _LONGEST_SIDE)
