"""What a renderer of flats must do, and what a rendered view holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mirage_sim.scenes.mesh import Floats

RENDERER = "cpu-raster 1"
"""Name and version of the renderer that scenes use, as recordings store it.

The version counts up whenever a pixel of any flat may change.
"""
NEAR, FAR = 0.05, 40.0
"""Z-depth in metres between which surfaces are drawn."""
SKY_ID = -1
"""Segmentation id of pixels that show the sky; their depth is 0 (unknown)."""


@dataclass(frozen=True)
class View:
    """What a camera sees."""

    rgb: NDArray[np.uint8]
    """[H, W, 3]."""
    depth: NDArray[np.float32]
    """[H, W] z-depth in metres, 0 for the sky."""
    segmentation: NDArray[np.int32]
    """[H, W] id of the body seen, `SKY_ID` for the sky; `Scene.labels` names the ids."""


class Renderer(Protocol):
    """Holds the bodies of one scene and draws them for any number of cameras.

    Bodies are convex flat quads, seen from their front only (where their corners run counter-clockwise), and
    show the nearest texel of their texture; there is no other light. Of surfaces at the same depth the one
    that was added first is seen.
    """

    def add(self, vertices: Floats, uvs: Floats, image: NDArray[np.uint8]) -> int:
        """Add a body, standing at the origin.

        Args:
            vertices: Corners of its quads [4 * quads, 3], metres.
            uvs: Texture coordinates [4 * quads, 2] in [0, 1], v upwards.
            image: Its texture [rows, columns, 3]; bodies may share one.

        Returns:
            Its id: bodies count from 0.
        """
        ...

    def place(self, body: int, pose: Floats) -> None:
        """Move a body to `pose`, the world from the body's own axes [4, 4]."""
        ...

    def render(self, cam2world: Floats, intrinsics: Floats, hw: tuple[int, int]) -> list[View]:
        """Draw what cameras see.

        Args:
            cam2world: Poses [n, 4, 4].
            intrinsics: [3, 3] in pixels of the wanted images.
            hw: Height and width of the images, pixels.

        Returns:
            One view for each camera: colour without jagged edges, depth and ids of the pixels' centres.
        """
        ...

    def close(self) -> None:
        """Release what the renderer holds; may be called more than once."""
        ...


SkyLook = tuple[float, float]
"""Hue of the sky and phase of the skyline, both in turns."""
RendererFactory = Callable[[SkyLook], Renderer]
"""Makes an empty renderer with the sky of a scene."""
