"""Raster: coloured points to pictures and pictures to coloured points; pure functions.

Source: the common ground of Spatia, Voyager, WonderWorld, GEN3C and VMem; written from their descriptions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mirage_sim.geometry import project
from mirage_sim.geometry.cameras import known_depth

NEAREST = 0.02  # metres
_BEHIND = 0.1  # how far behind its neighbours a pixel may lie, as a share of its depth, before it shows a gap
_ROUND = 8  # pixels around a pixel


def nearest_points(
    positions: Tensor,  # [N, 3]
    cam2world: Tensor,  # [4, 4]
    intrinsics: Tensor,  # [3, 3]
    hw: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Find the nearest point of every pixel, or of every cell; of equals the oldest.

    Args:
        positions: World points in metres.
        cam2world: Target camera.
        intrinsics: In the unit of `hw`.
        hw: Rows and columns.

    Returns:
        Index int64 [H, W], -1 for none, and z-depth [H, W] in metres, 0 for none.
    """
    height, width = hw
    places, depth = project(positions, cam2world, intrinsics)  # [N, 2], [N]
    column, row = places.floor().long().unbind(-1)
    inside = (depth > NEAREST) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    hit = inside.nonzero().squeeze(1)  # [M]
    # bits of a positive float order as the float does; the low half holds the point's number
    key = (depth[hit].view(torch.int32).long() << 32) | hit
    none = torch.iinfo(torch.int64).max
    best = torch.full((height * width,), none, device=positions.device, dtype=torch.int64)
    best.scatter_reduce_(0, row[hit] * width + column[hit], key, "amin")
    index = torch.where(best == none, -1, best & 0xFFFFFFFF)
    metres = (best >> 32).to(torch.int32).view(torch.float32)
    return index.view(hw), torch.where(best == none, 0.0, metres).view(hw)


def rasterise(
    positions: Tensor,  # [N, 3]
    colours: Tensor,  # [N, 3]
    cam2world: Tensor,  # [4, 4]
    intrinsics: Tensor,  # [3, 3]
    hw: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Draw every point into one pixel; the nearest shows.

    Args:
        positions: World points in metres.
        colours: uint8, their colours.
        cam2world: Target camera.
        intrinsics: In pixels.
        hw: Rows and columns of the picture.

    Returns:
        Picture in [-1, 1] [3, H, W], 0 in holes, and z-depth [H, W] in metres, 0 in holes.
    """
    index, depth = nearest_points(positions, cam2world, intrinsics, hw)
    shades = torch.cat([colours.float() / 127.5 - 1.0, positions.new_zeros(1, 3)])  # the last one for holes
    return shades[index].movedim(-1, 0), depth


def close_gaps(
    picture: Tensor,  # [..., 3, H, W]
    depth: Tensor,  # [..., H, W]
) -> tuple[Tensor, Tensor]:
    """Mend what a cloud of points looks like from near: holes between points, and what shows through them.

    Args:
        picture: 0 in holes.
        depth: 0 in holes, metres.

    Returns:
        The same; pixels behind most of those around, and holes beside at least two pixels, as between points
        seen from half as far, are taken from the nearest pixel around.
    """
    shape = depth.shape
    depth, picture = depth.reshape(-1, *shape[-2:]), picture.reshape(-1, 3, *shape[-2:])
    depths = _around(depth[:, None]).squeeze(1)  # [N, 8, H, W]
    there = depths > 0
    in_front = there & (depths < (1.0 - _BEHIND) * depth[:, None])
    through = in_front.sum(dim=1) >= _ROUND // 2 + 1
    gap = through | ((depth == 0) & (there.sum(dim=1) >= 2))
    nearest, place = torch.where(there, depths, torch.inf).min(dim=1)  # [N, H, W]
    colours = _around(picture)  # [N, 3, 8, H, W]
    taken = colours.gather(2, place[:, None, None].expand(-1, 3, 1, -1, -1)).squeeze(2)
    picture = torch.where(gap[:, None], taken, picture)
    depth = torch.where(gap, nearest, depth)
    return picture.reshape(*shape[:-2], 3, *shape[-2:]), depth.reshape(shape)


def fill_holes(
    picture: Tensor,  # [N, 3, H, W]
    known: Tensor,  # [N, H, W]
) -> Tensor:
    """Fill what is unknown smoothly from what is known around it, so that an encoder meets no false edges.

    Args:
        picture: What was drawn.
        known: bool, pixels that were.

    Returns:
        [N, 3, H, W], unchanged where known.
    """
    levels = [(picture * known[:, None], known[:, None].float())]
    while min(levels[-1][0].shape[-2:]) > 1:
        levels.append(tuple(F.avg_pool2d(part, 2, ceil_mode=True) for part in levels[-1]))  # type: ignore[arg-type]
    filled = levels[-1][0] / levels[-1][1].clamp(min=1e-6)
    for total, weight in reversed(levels[:-1]):
        coarse = F.interpolate(filled, size=total.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.where(weight > 0, total / weight.clamp(min=1e-6), coarse)
    return filled


def grow_depth(
    depth: Tensor,  # [..., h, w]
    stride: int,
) -> Tensor:
    """Bring depths of cells to pixels, smoothly along surfaces: linear in inverse depth.

    Args:
        depth: z-depth of cells in metres, 0 unknown.
        stride: Pixels per cell.

    Returns:
        [..., H, W]; 0 where the cell is unknown. Unknown neighbours do not count.
    """
    known = known_depth(depth)
    inverse = torch.where(known, 1.0 / depth.clamp(min=1e-3), 0.0)
    parts = torch.stack([inverse, known.float()], dim=-3)  # [..., 2, h, w]
    fine = F.interpolate(
        parts.reshape(-1, 2, *depth.shape[-2:]), scale_factor=stride, mode="bilinear", align_corners=False
    ).reshape(*parts.shape[:-2], *(stride * size for size in depth.shape[-2:]))
    blocks = known.repeat_interleave(stride, -2).repeat_interleave(stride, -1)
    metres = fine[..., 1, :, :] / fine[..., 0, :, :].clamp(min=1e-6)
    return torch.where(blocks, metres, 0.0)


def _around(image: Tensor) -> Tensor:
    """The eight neighbours of every pixel, 0 outside: [N, C, H, W] -> [N, C, 8, H, W]."""
    height, width = image.shape[-2:]
    wide = F.pad(image, (1, 1, 1, 1))
    shifts = [(row, column) for row in range(3) for column in range(3) if (row, column) != (1, 1)]
    return torch.stack([wide[..., r : r + height, c : c + width] for r, c in shifts], dim=2)
