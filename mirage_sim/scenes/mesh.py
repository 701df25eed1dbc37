"""Meshes with baked light: boxes, cylinders and ellipsoids painted from one small palette texture."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Colour = tuple[float, float, float]

SHADES = 16
ROWS = 256
_DARKEST, _BRIGHTEST = 0.58, 1.04

_BOX_FACES: tuple[tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]], ...] = (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    ((0, 0, 1), (1, 0, 0), (0, 1, 0)),
    ((0, 0, -1), (-1, 0, 0), (0, 1, 0)),
)


def shade(normals: Floats) -> Floats:
    """Brightness of a surface by the way it faces, the same in every flat.

    Every axis direction gets its own brightness, so the corners of a room show without a light source.

    Args:
        normals: Unit normals, [..., 3].

    Returns:
        Brightness factors, [...].

    Source: ours.
    """
    upright = normals[..., 2] ** 2
    side = 0.85 + 0.05 * normals[..., 0] + 0.11 * normals[..., 1]
    flat = np.where(normals[..., 2] > 0, 1.0, 0.62)
    result: Floats = side * (1 - upright) + flat * upright
    return result


class Palette:
    """Colours used by the meshes of one flat, as rows of a texture whose columns are shades."""

    def __init__(self) -> None:
        """Start without colours."""
        self._rows: dict[Colour, int] = {}

    def row(self, colour: Colour) -> int:
        """Row of `colour` (RGB in [0, 1]), taking the nearest one when the palette is full."""
        key = (round(colour[0], 2), round(colour[1], 2), round(colour[2], 2))
        if key not in self._rows:
            if len(self._rows) == ROWS:
                return min(self._rows.items(), key=lambda item: math.dist(item[0], key))[1]
            self._rows[key] = len(self._rows)
        return self._rows[key]

    def texture(self) -> NDArray[np.uint8]:
        """The palette as an image, [ROWS, SHADES, 3] uint8."""
        levels = np.linspace(_DARKEST, _BRIGHTEST, SHADES)
        image = np.zeros((ROWS, SHADES, 3))
        for colour, row in self._rows.items():
            image[row] = np.asarray(colour)[None] * levels[:, None]
        return np.clip(np.round(image * 255), 0, 255).astype(np.uint8)


@dataclass
class Mesh:
    """Quads gathered for one body: four vertices each, counter-clockwise seen from the front."""

    vertices: list[Floats] = field(default_factory=list)
    """Blocks of vertices, each [4 * quads, 3] in metres."""
    normals: list[Floats] = field(default_factory=list)
    """Blocks of unit normals, each [4 * quads, 3]."""
    colours: list[Colour] = field(default_factory=list)
    """One RGB colour per block, in [0, 1]."""

    def add(self, vertices: Floats, normals: Floats, colour: Colour) -> None:
        """Append a block of quads.

        Args:
            vertices: [quads, 4, 3] metres.
            normals: [quads, 4, 3] unit normals.
            colour: RGB in [0, 1].
        """
        self.vertices.append(vertices.reshape(-1, 3))
        self.normals.append(normals.reshape(-1, 3))
        self.colours.append(colour)

    def box(
        self, centre: tuple[float, float, float], size: tuple[float, float, float], colour: Colour
    ) -> None:
        """Append an axis-aligned box.

        Args:
            centre: Centre in metres.
            size: Edge lengths in metres.
            colour: RGB in [0, 1].
        """
        faces = np.asarray(_BOX_FACES, dtype=np.float64)  # [6, 3, 3]
        normal, right, up = faces[:, 0], faces[:, 1], faces[:, 2]
        corners = np.stack(
            [normal - right - up, normal + right - up, normal + right + up, normal - right + up], 1
        )
        vertices = np.asarray(centre) + corners * np.asarray(size) / 2
        self.add(vertices, np.repeat(normal[:, None], 4, axis=1), colour)

    def block(
        self, x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], colour: Colour
    ) -> None:
        """Append a box given by its extents along each axis, in metres."""
        low, high = np.array([x[0], y[0], z[0]]), np.array([x[1], y[1], z[1]])
        centre, size = (low + high) / 2, high - low
        self.box((centre[0], centre[1], centre[2]), (size[0], size[1], size[2]), colour)

    def lathe(
        self,
        centre: tuple[float, float],
        profile: list[tuple[float, float]],
        colour: Colour,
        sides: int = 10,
    ) -> None:
        """Append a solid of revolution about a vertical axis.

        Args:
            centre: Axis position (x, y) in metres.
            profile: (radius, height) pairs from the bottom up, in metres.
            colour: RGB in [0, 1].
            sides: Number of sides.
        """
        turn = np.linspace(0, 2 * math.pi, sides + 1)
        ring = np.stack([np.cos(turn), np.sin(turn)], 1)
        for (r0, z0), (r1, z1) in itertools.pairwise(profile):
            low = np.concatenate([ring * r0 + np.asarray(centre), np.full((sides + 1, 1), z0)], 1)
            high = np.concatenate([ring * r1 + np.asarray(centre), np.full((sides + 1, 1), z1)], 1)
            quads = np.stack([low[:-1], low[1:], high[1:], high[:-1]], 1)  # [sides, 4, 3]
            slope = math.hypot(z1 - z0, r1 - r0)
            outward = (ring[:-1] + ring[1:]) / 2 * (z1 - z0) / slope
            normal = np.concatenate([outward, np.full((sides, 1), (r0 - r1) / slope)], 1)
            normal /= np.linalg.norm(normal, axis=1, keepdims=True)
            self.add(quads, np.repeat(normal[:, None], 4, axis=1), colour)

    def cylinder(
        self,
        centre: tuple[float, float],
        radius: float,
        z: tuple[float, float],
        colour: Colour,
        sides: int = 10,
    ) -> None:
        """Append an upright closed cylinder; lengths in metres."""
        self.lathe(centre, [(0.0, z[0]), (radius, z[0]), (radius, z[1]), (0.0, z[1])], colour, sides)

    def ball(
        self, centre: tuple[float, float, float], radius: float, height: float, colour: Colour, sides: int = 8
    ) -> None:
        """Append an ellipsoid of the given horizontal radius and full height, in metres."""
        angles = np.linspace(-math.pi / 2, math.pi / 2, 6)
        profile = [
            (max(0.0, radius * math.cos(a)), centre[2] + height / 2 * math.sin(a)) for a in angles.tolist()
        ]
        self.lathe((centre[0], centre[1]), profile, colour, sides)

    def moved(self, yaw: float, position: tuple[float, float, float]) -> Mesh:
        """A copy turned by `yaw` radians about the vertical and then shifted by `position` metres."""
        c, s = math.cos(yaw), math.sin(yaw)
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        return Mesh(
            [block @ turn.T + np.asarray(position) for block in self.vertices],
            [block @ turn.T for block in self.normals],
            list(self.colours),
        )

    def merge(self, other: Mesh) -> None:
        """Append all quads of `other`."""
        self.vertices.extend(other.vertices)
        self.normals.extend(other.normals)
        self.colours.extend(other.colours)

    def palette_uvs(self, palette: Palette) -> Floats:
        """Texture coordinates that pick each quad's colour and shade, [vertices, 2]."""
        blocks = []
        for normals, colour in zip(self.normals, self.colours, strict=True):
            level = (shade(normals) - _DARKEST) / (_BRIGHTEST - _DARKEST)
            column = np.clip(np.floor(level * SHADES), 0, SHADES - 1)
            row = np.full(len(normals), palette.row(colour))
            blocks.append(np.stack([(column + 0.5) / SHADES, 1 - (row + 0.5) / ROWS], 1))
        result: Floats = np.concatenate(blocks)
        return result
