"""A slow renderer of flats: every ray against every triangle (Möller and Trumbore, 1997)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mirage_sim.scenes.renderer import FAR, NEAR, SKY_ID, SkyLook, View
from mirage_sim.scenes.sky import paint_sky

SAMPLES = 2
SAME_DEPTH = 1e-9
"""Share of the depth within which two hits count as one place; the first triangle is seen there."""


@dataclass
class Hits:
    """What N rays meet first."""

    depth: np.ndarray  # [N] metres along the camera's axis, 0 for the sky
    colour: np.ndarray  # uint8 [N, 3]
    body: np.ndarray  # [N]
    rival: np.ndarray  # bool [N], whether another colour lies within `tie` behind


class RayCaster:
    """Holds triangles and shoots rays at them."""

    def __init__(self, sky: SkyLook) -> None:
        self._sky = sky
        self._bodies: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._poses: list[np.ndarray] = []

    def add(self, vertices: np.ndarray, uvs: np.ndarray, image: np.ndarray) -> int:
        quads, coordinates = vertices.reshape(-1, 4, 3), uvs.reshape(-1, 4, 2)
        halves = [[0, 1, 2], [0, 2, 3]]
        self._bodies.append(
            (quads[:, halves].reshape(-1, 3, 3), coordinates[:, halves].reshape(-1, 3, 2), image)
        )
        self._poses.append(np.eye(4))
        return len(self._bodies) - 1

    def place(self, body: int, pose: np.ndarray) -> None:
        self._poses[body] = pose

    def close(self) -> None:
        self._bodies, self._poses = [], []

    def render(self, cam2world: np.ndarray, intrinsics: np.ndarray, hw: tuple[int, int]) -> list[View]:
        return [self._view(camera, intrinsics, hw) for camera in cam2world]

    def _view(self, cam2world: np.ndarray, intrinsics: np.ndarray, hw: tuple[int, int]) -> View:
        height, width = hw
        column, row = (part.reshape(-1) for part in np.meshgrid(np.arange(width), np.arange(height)))
        centre = self.cast(cam2world, intrinsics, column + 0.5, row + 0.5)
        total = np.zeros((height * width, 3))
        for down in range(SAMPLES):
            for across in range(SAMPLES):
                x, y = column + (across + 0.5) / SAMPLES, row + (down + 0.5) / SAMPLES
                total += self.cast(cam2world, intrinsics, x, y).colour
        rgb = np.round(total / SAMPLES**2).astype(np.uint8).reshape(height, width, 3)
        depth = centre.depth.astype(np.float32).reshape(hw)
        return View(rgb, depth, centre.body.astype(np.int32).reshape(hw))

    def cast(
        self, cam2world: np.ndarray, intrinsics: np.ndarray, x: np.ndarray, y: np.ndarray, tie: float = 0.0
    ) -> Hits:
        """Shoot rays through the pixel positions (x, y), each [N]."""
        rays = np.stack([x, y, np.ones(len(x))], -1) @ np.linalg.inv(intrinsics).T @ cam2world[:3, :3].T
        hits = Hits(
            np.zeros(len(x)), paint_sky(rays, self._sky), np.full(len(x), SKY_ID), np.zeros(len(x), bool)
        )
        triangles = np.concatenate(
            [
                body @ pose[:3, :3].T + pose[:3, 3]
                for (body, _, _), pose in zip(self._bodies, self._poses, strict=True)
            ]
        )
        bodies = np.repeat(np.arange(len(self._bodies)), [len(body) for body, _, _ in self._bodies])
        uvs = np.concatenate([uv for _, uv, _ in self._bodies])
        for ray, direction in enumerate(rays):
            depth, second, third = _meet(cam2world[:3, 3], direction, triangles)
            if not np.isfinite(depth).any():
                continue
            limit = depth.min() * (1 + SAME_DEPTH)
            seen = int(np.flatnonzero(depth <= limit)[0])
            colours = {
                int(hit): _texel(
                    (1 - second[hit] - third[hit]) * uvs[hit, 0]
                    + second[hit] * uvs[hit, 1]
                    + third[hit] * uvs[hit, 2],
                    self._bodies[bodies[hit]][2],
                )
                for hit in np.flatnonzero(depth <= limit + tie)
            }
            hits.depth[ray], hits.colour[ray], hits.body[ray] = depth[seen], colours[seen], bodies[seen]
            hits.rival[ray] = any((colour != colours[seen]).any() for colour in colours.values())
        return hits


def _meet(
    eye: np.ndarray, ray: np.ndarray, triangles: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth at which a ray meets each triangle's front (infinite: nowhere), and two corners' weights."""
    origin, first, second = (
        triangles[:, 0],
        triangles[:, 1] - triangles[:, 0],
        triangles[:, 2] - triangles[:, 0],
    )
    across = np.cross(ray, second)
    area = (first * across).sum(-1)  # positive where the front is seen
    with np.errstate(divide="ignore", invalid="ignore"):
        u = ((eye - origin) * across).sum(-1) / area
        beside = np.cross(eye - origin, first)
        v = (ray * beside).sum(-1) / area
        depth = (second * beside).sum(-1) / area
        hit = (area > 1e-15) & (u >= 0) & (v >= 0) & (u + v <= 1) & (depth >= NEAR) & (depth <= FAR)
    return np.where(hit, depth, np.inf), u, v


def _texel(uv: np.ndarray, image: np.ndarray) -> np.ndarray:
    rows, columns = image.shape[:2]
    row, column = int((1 - uv[1]) * rows), int(uv[0] * columns)
    return image[min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)]
