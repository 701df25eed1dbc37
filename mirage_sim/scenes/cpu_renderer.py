"""The renderer of the flats: a z-buffer in NumPy, exact to the texel, one thread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mirage_sim.errors import InputError, StateError
from mirage_sim.scenes.faces import Faces, join_faces, make_faces, transform
from mirage_sim.scenes.mesh import Floats
from mirage_sim.scenes.projection import faces_in_sight, project_faces, ray_matrix
from mirage_sim.scenes.raster import NO_FACE, nearest_faces
from mirage_sim.scenes.renderer import SKY_ID, SkyLook, View
from mirage_sim.scenes.shading import (
    Textures,
    average_samples,
    colour_of,
    depth_of,
    pack_textures,
    texture_planes,
)
from mirage_sim.scenes.sky import paint_sky

SAMPLES = 2
"""Colour samples per pixel and axis; depth and ids are those of the pixel's centre."""


class CpuRenderer:
    """Draws flats on the processor; see `mirage_sim.scenes.renderer.Renderer`."""

    def __init__(self, sky: SkyLook) -> None:
        """Start without bodies.

        Args:
            sky: How the sky looks.
        """
        self._sky = sky
        self._resting: list[Faces] = []
        self._placed: list[Faces] = []
        self._images: list[NDArray[np.uint8]] = []
        self._prepared: tuple[Faces, Textures] | None = None

    def add(self, vertices: Floats, uvs: Floats, image: NDArray[np.uint8]) -> int:
        """Add a body; see `Renderer.add`.

        Raises:
            InputError: If a quad is not flat or its texture is not linear.
        """
        known = [index for index, other in enumerate(self._images) if other is image]
        texture = known[0] if known else len(self._images)
        faces = make_faces(vertices, uvs, len(self._resting), texture)
        if not known:
            self._images.append(image)
        self._resting.append(faces)
        self._placed.append(faces)
        self._prepared = None
        return len(self._resting) - 1

    def place(self, body: int, pose: Floats) -> None:
        """Move a body; see `Renderer.place`."""
        self._placed[body] = self._resting[body].moved(pose)
        if self._prepared is not None:
            self._prepared = (join_faces(self._placed), self._prepared[1])

    def render(self, cam2world: Floats, intrinsics: Floats, hw: tuple[int, int]) -> list[View]:
        """Draw what cameras see; see `Renderer.render`.

        Raises:
            InputError: If there are too many quads.
            StateError: If there is nothing to draw.
        """
        faces, textures = self._prepare()
        return [self._view(faces, textures, camera, intrinsics, hw) for camera in cam2world]

    def close(self) -> None:
        """Forget all bodies."""
        self._resting, self._placed, self._images, self._prepared = [], [], [], None

    def _prepare(self) -> tuple[Faces, Textures]:
        if not self._placed:
            raise StateError("a renderer without bodies cannot draw")
        if self._prepared is None:
            self._prepared = (join_faces(self._placed), pack_textures(self._images))
        if len(self._prepared[0].bodies) >= NO_FACE:
            raise InputError(
                f"bodies must have fewer than {NO_FACE} quads, got {len(self._prepared[0].bodies)}"
            )
        return self._prepared

    def _view(
        self, faces: Faces, textures: Textures, cam2world: Floats, intrinsics: Floats, hw: tuple[int, int]
    ) -> View:
        index, corners = faces_in_sight(faces, cam2world, intrinsics, hw)
        seen = faces.take(index)
        projected = project_faces(corners, intrinsics)
        owner = nearest_faces(projected, hw)
        bodies = np.append(seen.bodies, SKY_ID)
        depth = np.where(owner < len(index), depth_of(projected.inverse_depth, owner), 0.0)
        return View(
            self._colours(seen, textures, corners, cam2world, intrinsics, hw),
            depth.astype(np.float32),
            bodies[owner].astype(np.int32),
        )

    def _colours(
        self,
        seen: Faces,
        textures: Textures,
        corners: Floats,
        cam2world: Floats,
        intrinsics: Floats,
        hw: tuple[int, int],
    ) -> NDArray[np.uint8]:
        """Colour [H, W, 3] without jagged edges: the mean of the samples of every pixel."""
        fine = intrinsics * np.array([[SAMPLES], [SAMPLES], [1.0]])
        projected = project_faces(corners, fine)
        owner = nearest_faces(projected, (SAMPLES * hw[0], SAMPLES * hw[1]))
        depth = depth_of(projected.inverse_depth, owner)
        planes = texture_planes(seen, textures, cam2world, fine, projected.inverse_depth)
        colours = colour_of(planes, depth, owner, seen.textures, textures)
        row, column = np.nonzero(owner == len(seen.bodies))
        if len(row):
            pixels = np.stack([column + 0.5, row + 0.5, np.ones(len(row))], axis=-1)
            rays = transform(pixels, (cam2world[:3, :3] @ ray_matrix(fine)).T)
            colours[row, column] = paint_sky(rays, self._sky)
        return average_samples(colours, SAMPLES)
