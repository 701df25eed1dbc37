"""Faces as a camera sees them: which may be in sight, and their edges and depth as planes over the pixels.

A plane over the pixels is three numbers (a, b, c) that stand for `a x + b y + c` at the pixel position
(x, y). The test of an edge and 1/depth have this form for every face, also for one that reaches behind the
camera, so that nothing has to be clipped.

Faces that share an edge get exactly opposite numbers for it, so no pixel between them is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mirage_sim.scenes.faces import Faces, Indices, transform
from mirage_sim.scenes.mesh import Floats
from mirage_sim.scenes.renderer import NEAR


@dataclass(frozen=True)
class Projected:
    """Q faces over the pixels of an image."""

    edges: Floats
    """Planes [Q, 4, 3] that are at least 0 on the inner side of each edge."""
    inverse_depth: Floats
    """Planes [Q, 3] of 1/z, in 1/m."""
    rows: Floats
    """Lowest and highest y [Q, 2] of the corners, pixels; infinite if one is behind the near plane."""


def faces_in_sight(
    faces: Faces, cam2world: Floats, intrinsics: Floats, hw: tuple[int, int]
) -> tuple[Indices, Floats]:
    """Find the faces whose front may be in the image.

    Args:
        faces: Q faces in the world.
        cam2world: [4, 4] camera pose.
        intrinsics: [3, 3] in pixels.
        hw: Height and width of the image, pixels.

    Returns:
        Indices [q] of the faces, and their corners in camera axes [q, 4, 3], metres.
    """
    eye = cam2world[:3, 3]
    front = ((eye - faces.vertices[:, 0]) * faces.normals).sum(axis=-1) > 0
    index = np.flatnonzero(front)
    corners = transform(faces.vertices[index] - eye, cam2world[:3, :3])  # [q, 4, 3]
    low, high = _ray_range(intrinsics, hw)
    x, y, z = corners[..., 0], corners[..., 1], corners[..., 2]
    outside = (z < NEAR).all(axis=1)
    for side, bottom, top in ((x, low[0], high[0]), (y, low[1], high[1])):
        outside |= (side < bottom * z).all(axis=1) | (side > top * z).all(axis=1)
    return index[~outside], corners[~outside]


def project_faces(corners: Floats, intrinsics: Floats) -> Projected:
    """Turn faces into planes over the pixels.

    Args:
        corners: Corners in camera axes [Q, 4, 3], metres; the front faces the camera.
        intrinsics: [3, 3] in pixels.
    """
    ray = ray_matrix(intrinsics)
    following = corners[:, [1, 2, 3, 0]]
    edges = transform(_cross(following, corners), ray)
    normals = _cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])  # [Q, 3]
    distance = (normals * corners[:, 0]).sum(axis=-1, keepdims=True)  # [Q, 1]
    inverse_depth = transform(normals / distance, ray)
    z = corners[..., 2]
    whole = np.min(z, axis=1) >= NEAR
    y = intrinsics[1, 1] * corners[..., 1] / np.where(whole[:, None], z, 1.0) + intrinsics[1, 2]  # [Q, 4]
    rows = np.stack([np.where(whole, y.min(axis=1), -np.inf), np.where(whole, y.max(axis=1), np.inf)], axis=1)
    return Projected(edges, inverse_depth, rows)


def ray_matrix(intrinsics: Floats) -> Floats:
    """Give the matrix [3, 3] that turns pixel positions (x, y, 1) into camera rays of z = 1."""
    inverse: Floats = np.linalg.inv(intrinsics).astype(np.float64)
    return inverse


def _cross(a: Floats, b: Floats) -> Floats:
    """Cross product [..., 3] that changes its sign exactly when `a` and `b` are exchanged."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def _ray_range(intrinsics: Floats, hw: tuple[int, int]) -> tuple[Floats, Floats]:
    """Lowest and highest x/z and y/z [2] of the rays through an image."""
    height, width = hw
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], dtype=np.float64)
    rays = corners @ ray_matrix(intrinsics).T
    return rays[:, :2].min(axis=0), rays[:, :2].max(axis=0)
