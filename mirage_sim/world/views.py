"""Views: the cameras of a segment, and what the networks are told of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mirage_sim.geometry import ray_directions, rescale_intrinsics
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

    def frames(self, chosen: slice) -> Views:
        """Give the views of some of the T frames."""
        return Views(self.cam2world[:, chosen], self.intrinsics[:, chosen])


def among_all(rows: Tensor, index: Tensor, worlds: int) -> Tensor:
    """Put rows [b, ...] of the worlds `index` [b] at their place among all, zeros elsewhere."""
    everyone = torch.zeros(worlds, *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    everyone[index] = rows
    return everyone


def spread_views(poses: Tensor, lens: Tensor, index: Tensor, stride: int) -> Views:
    """Lay the cameras of some worlds out among those of all.

    Args:
        poses: Cameras of the worlds that go on, [b, T, 4, 4].
        lens: Intrinsics of all worlds in pixels, [B, 3, 3].
        index: Which worlds go on, [b].
        stride: Pixels per cell.

    Returns:
        Views of all worlds; the others' cameras stand at the origin.
    """
    frames = poses.shape[1]
    cameras = torch.eye(4, device=poses.device, dtype=torch.float32).repeat(len(lens), frames, 1, 1)
    cameras[index] = poses
    cells = rescale_intrinsics(lens, 1.0 / stride)
    return Views(cameras, cells[:, None].expand(-1, frames, -1, -1))


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
