"""Quads in the form that renderers need: corners, normals and the texture as a linear function of place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mirage_sim.errors import InputError
from mirage_sim.scenes.mesh import Floats

Indices = NDArray[np.int64]

_SMALLEST_AREA = 1e-9
"""Quads of less than half as many square metres are left out: collapsed faces of solids of revolution."""
_SAME_CORNER = 1e-9
"""Corners of a quad nearer than this, in metres, are one corner: an edge between them has no direction."""
_FLATNESS = 1e-5
"""How far corners may lie from a flat quad (metres) and from a linear texture (shares of the texture)."""


@dataclass(frozen=True)
class Faces:
    """Q flat quads, counter-clockwise seen from the front."""

    vertices: Floats
    """Corners [Q, 4, 3], metres."""
    normals: Floats
    """Unit normals [Q, 3], towards the front."""
    uv_slopes: Floats
    """Change of the texture coordinates along the axes [Q, 2, 3], 1/m."""
    uv_offsets: Floats
    """Texture coordinates [Q, 2] that the slopes give to the origin."""
    bodies: Indices
    """Id of the body that each quad belongs to [Q]."""
    textures: Indices
    """Index of the texture that each quad shows [Q]."""

    def take(self, index: Indices) -> Faces:
        """Give the quads of an index [q]."""
        return Faces(*(getattr(self, field.name)[index] for field in fields(Faces)))

    def moved(self, pose: Floats) -> Faces:
        """Give the quads of a body that stood at the origin after it moved to `pose` [4, 4]."""
        rotation, position = pose[:3, :3], pose[:3, 3]
        slopes = transform(self.uv_slopes, rotation.T)
        return Faces(
            transform(self.vertices, rotation.T) + position,
            transform(self.normals, rotation.T),
            slopes,
            self.uv_offsets - (slopes * position).sum(axis=-1),
            self.bodies,
            self.textures,
        )


def make_faces(vertices: Floats, uvs: Floats, body: int, texture: int) -> Faces:
    """Prepare the quads of a body.

    Args:
        vertices: Corners [4 * quads, 3], metres.
        uvs: Texture coordinates [4 * quads, 2].
        body: Id of the body.
        texture: Index of its texture.

    Returns:
        Its quads without those that have no area.

    Raises:
        InputError: If a quad is not flat or its texture is bent.
    """
    corners = _merged(np.asarray(vertices, dtype=np.float64).reshape(-1, 4, 3))
    coordinates = np.asarray(uvs, dtype=np.float64).reshape(-1, 4, 2)
    normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])  # [Q, 3]
    area = np.linalg.norm(normals, axis=1)
    kept = area > _SMALLEST_AREA
    corners, coordinates = corners[kept], coordinates[kept]
    normals = normals[kept] / area[kept, None]
    slopes = _uv_slopes(corners, coordinates)
    offsets = coordinates.mean(axis=1) - (slopes * corners.mean(axis=1)[:, None]).sum(axis=-1)  # [Q, 2]
    _check_flat(corners, normals, coordinates, corners @ slopes.transpose(0, 2, 1) + offsets[:, None])
    count = len(corners)
    return Faces(corners, normals, slopes, offsets, np.full(count, body), np.full(count, texture))


def join_faces(parts: Sequence[Faces]) -> Faces:
    """Put the quads of several bodies in one list, in their order."""
    return Faces(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Faces)))


def transform(vectors: Floats, matrix: Floats) -> Floats:
    """Multiply row vectors [..., 3] by a matrix [3, 3].

    The sums are written out rather than left to a matrix product: equal vectors then give equal results and
    opposite ones opposite results, wherever in the array they stand.
    """
    x, y, z = vectors[..., 0, None], vectors[..., 1, None], vectors[..., 2, None]
    product: Floats = x * matrix[0] + y * matrix[1] + z * matrix[2]
    return product


def _merged(corners: Floats) -> Floats:
    """Make corners [Q, 4, 3] that lie in one place exactly equal."""
    merged = corners.copy()
    for corner, before in ((1, 0), (2, 1), (3, 2), (3, 0)):
        near = (np.abs(merged[:, corner] - merged[:, before]) < _SAME_CORNER).all(axis=-1)
        merged[near, corner] = merged[near, before]
    return merged


def _uv_slopes(corners: Floats, coordinates: Floats) -> Floats:
    """Slopes [Q, 2, 3] in the plane of each quad, from the change along both of its diagonals."""
    a, b = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]  # [Q, 3]
    along_a, along_b = coordinates[:, 2] - coordinates[:, 0], coordinates[:, 3] - coordinates[:, 1]  # [Q, 2]
    aa, ab, bb = ((left * right).sum(-1)[:, None] for left, right in ((a, a), (a, b), (b, b)))
    square = aa * bb - ab * ab  # of the area, [Q, 1]
    dual_a, dual_b = (bb * a - ab * b) / square, (aa * b - ab * a) / square
    slopes: Floats = along_a[:, :, None] * dual_a[:, None] + along_b[:, :, None] * dual_b[:, None]
    return slopes


def _check_flat(corners: Floats, normals: Floats, coordinates: Floats, linear: Floats) -> None:
    """Raise unless corners lie in a plane and texture coordinates follow their linear form."""
    height = np.abs(((corners - corners[:, :1]) * normals[:, None]).sum(axis=-1)).max(initial=0.0)
    bend = np.abs(coordinates - linear).max(initial=0.0)
    if height > _FLATNESS or bend > _FLATNESS:
        raise InputError(
            f"vertices must form flat quads with a linear texture, got {height:.2g} m and {bend:.2g} off"
        )
