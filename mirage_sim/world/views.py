"""Views: the cameras of a segment, and what the networks are told of them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from mirage_sim.geometry import ray_directions
from mirage_sim.memory import MemoryConfig, MemoryRead
from mirage_sim.model.depth_head import depth_geometry


class Views(NamedTuple):
    """Cameras of all worlds; those of worlds that do not go on do not count.

    Attributes:
        cam2world: [B, T, 4, 4].
        intrinsics: In cells, [B, T, 3, 3].
    """

    cam2world: Tensor
    intrinsics: Tensor

    def of(self, index: Tensor) -> Views:
        """Give the views of the worlds [b] that go on."""
        return Views(self.cam2world[index], self.intrinsics[index])


def view_geometry(
    config: MemoryConfig,
    read: MemoryRead,
    cam2world: Tensor,  # [B, T, 4, 4]
    intrinsics: Tensor,  # [B, T, 3, 3]
) -> Tensor:
    """Lay out rays, camera heights and remembered depths of a segment.

    Args:
        config: Tells the sky.
        read: What the memory holds for these cameras.
        cam2world: The cameras.
        intrinsics: In cells.

    Returns:
        float32 [B * T, 6, h, w], see `depth_geometry`.
    """
    surface = read.mask & ~config.is_sky(read.depth)
    rays = ray_directions(cam2world, intrinsics, (read.depth.shape[-2], read.depth.shape[-1]))
    return depth_geometry(
        read.depth.flatten(0, 1), surface.flatten(0, 1), rays.flatten(0, 1), cam2world[..., 2, 3].flatten()
    )
