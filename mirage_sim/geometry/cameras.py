"""Pinhole cameras: the step between an image with depth and points in the world, in both directions.

Camera axes are OpenCV's (x right, y down, z forward), pixel centres lie at +0.5 and depth is z-depth in
metres, where 0 or a non-finite value means unknown. Everything here is elementwise arithmetic rather than a
matrix product, so that a point's result depends neither on its batch-mates nor on autocast or TF32 settings.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_sim.arrays import check_tensor, own_floats
from mirage_sim.errors import InputError, check_finite, check_shape
from mirage_sim.geometry.poses import rotate

_NEAREST = 1e-6
"""Depth in metres below which a projection divides by this instead, so that pixels stay finite."""


def check_intrinsics(name: str, intrinsics: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """Raise unless `intrinsics` holds usable pinhole matrices, and give a copy of them.

    Args:
        name: Argument name for the message.
        intrinsics: Intrinsics `[..., 3, 3]` in pixels.

    Returns:
        A tensor of their dtype that shares no memory with them (see `own_floats`).

    Raises:
        InputTypeError: If it is no tensor or array.
        InputError: If the shape or dtype is wrong, a value is not finite, a focal length is not positive or
            the matrix is not upper triangular with a 1 in the last place.

    Source: ours.
    """
    matrix = own_floats(name, intrinsics)
    check_shape(name, matrix, ["...", 3, 3])
    check_finite(name, matrix)
    focal = torch.stack((matrix[..., 0, 0], matrix[..., 1, 1]), dim=-1)  # [..., 2]
    if not bool((focal > 0).all()):
        raise InputError(f"{name} must have positive focal lengths, got {float(focal.min()):g}")
    fixed = torch.stack(
        (matrix[..., 1, 0], matrix[..., 2, 0], matrix[..., 2, 1], matrix[..., 2, 2] - 1), dim=-1
    )  # [..., 4]
    if bool((fixed.abs() > 1e-6).any()):
        raise InputError(
            f"{name} must be upper triangular with the last row (0, 0, 1), got {_first_bad(matrix)}"
        )
    return matrix


def check_depth(name: str, depth: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """Raise unless `depth` is a z-depth map with something in it, and give a copy of it.

    Args:
        name: Argument name for the message.
        depth: Z-depth `[..., H, W]` in metres; 0 or non-finite is unknown.

    Returns:
        A tensor of its dtype that shares no memory with it (see `own_floats`).

    Raises:
        InputTypeError: If it is no tensor or array.
        InputError: If the shape or dtype is wrong, a depth is negative or no pixel of a map is known.

    Source: ours.
    """
    maps = own_floats(name, depth)
    check_shape(name, maps, ["...", "H", "W"])
    negative = int((maps < 0).sum())
    if negative:
        raise InputError(f"{name} must be 0 (unknown) or positive metres, got {negative} negative values")
    empty = int((~known_depth(maps).flatten(-2).any(dim=-1)).sum())
    if empty:
        raise InputError(
            f"{name} must know at least one pixel of every map, got {empty} maps of only 0 or non-finite"
        )
    return maps


def known_depth(depth: Tensor) -> Tensor:
    """Tell where a depth is known.

    Args:
        depth: Z-depth `[...]` in metres.

    Returns:
        Boolean `[...]`, true where the depth is finite and positive.

    Source: ours.
    """
    return (depth > 0) & (depth < torch.inf)


def make_intrinsics(height: int, width: int, fov_x_deg: float) -> Tensor:
    """Build the intrinsics of a camera with square pixels and a centred principal point.

    Args:
        height: Image height in pixels.
        width: Image width in pixels.
        fov_x_deg: Horizontal field of view in degrees, between 0 and 180.

    Returns:
        Intrinsics `[3, 3]`, float32, in pixels.

    Raises:
        InputError: If a size is not positive or the field of view is out of range.

    Source: ours.
    """
    if height < 1 or width < 1:
        raise InputError(f"height and width must be positive, got {height} and {width}")
    if not 0 < fov_x_deg < 180:
        raise InputError(f"fov_x_deg must lie between 0 and 180, got {fov_x_deg}")
    focal = 0.5 * width / math.tan(math.radians(fov_x_deg) / 2)
    return torch.tensor(
        [[focal, 0.0, 0.5 * width], [0.0, focal, 0.5 * height], [0.0, 0.0, 1.0]],
        dtype=torch.float32,
        device="cpu",
    )


def rescale_intrinsics(
    intrinsics: Tensor,  # [..., 3, 3]
    scale_x: float,
    scale_y: float | None = None,
) -> Tensor:
    """Give the intrinsics of the same camera after its image was resized.

    With pixel centres at +0.5 the principal point scales like the focal length, with no half-pixel term.

    Args:
        intrinsics: Intrinsics `[..., 3, 3]` in pixels of the image before.
        scale_x: New width over old width.
        scale_y: New height over old height; `scale_x` if left out.

    Returns:
        Intrinsics `[..., 3, 3]` in pixels of the resized image.

    Raises:
        InputError: If the shape is wrong or a scale is not positive.

    Source: ours.
    """
    check_tensor("intrinsics", intrinsics, ["...", 3, 3])
    scale_y = scale_x if scale_y is None else scale_y
    if not (scale_x > 0 and scale_y > 0):
        raise InputError(f"scale_x and scale_y must be positive, got {scale_x} and {scale_y}")
    return intrinsics * intrinsics.new_tensor([[scale_x], [scale_y], [1.0]])  # rows u, v, 1


def pixel_centres(
    height: int,
    width: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """List the pixel coordinates of every pixel's centre.

    Args:
        height: Image height in pixels.
        width: Image width in pixels.
        device: Where to put the result.
        dtype: Floating dtype of the result.

    Returns:
        `[H, W, 2]` with `(u, v)`; the first pixel is `(0.5, 0.5)`.

    Source: ours.
    """
    u = torch.arange(width, device=device, dtype=dtype) + 0.5  # [W]
    v = torch.arange(height, device=device, dtype=dtype) + 0.5  # [H]
    return torch.stack((u.expand(height, width), v[:, None].expand(height, width)), dim=-1)  # [H, W, 2]


def ray_directions(
    cam2world: Tensor,  # [..., 4, 4]
    intrinsics: Tensor,  # [..., 3, 3]
    hw: tuple[int, int],
) -> Tensor:
    """Give the world direction of every pixel's ray, long enough to gain one metre of z-depth.

    Args:
        cam2world: Camera poses `[..., 4, 4]`.
        intrinsics: Intrinsics `[..., 3, 3]` in pixels of an image of size `hw`.
        hw: Height and width in pixels.

    Returns:
        `[..., H, W, 3]` in world axes. The camera's z component is 1, so the point seen at a depth is
        `position + depth * ray`.

    Raises:
        InputError: If a shape is wrong.

    Source: ours.
    """
    check_tensor("cam2world", cam2world, ["...", 4, 4])
    check_tensor("intrinsics", intrinsics, ["...", 3, 3])
    centres = pixel_centres(hw[0], hw[1], intrinsics.device, intrinsics.dtype)  # [H, W, 2]
    fx, skew, cx, fy, cy = (entry[..., None, None] for entry in _entries(intrinsics))  # [..., 1, 1]
    y = (centres[..., 1] - cy) / fy  # [..., H, W]
    x = (centres[..., 0] - cx - skew * y) / fx  # [..., H, W]
    rays = torch.stack((x, y, torch.ones_like(x)), dim=-1)  # [..., H, W, 3]
    return rotate(cam2world[..., None, None, :3, :3], rays)


def unproject(
    depth: Tensor,  # [..., H, W]
    cam2world: Tensor,  # [..., 4, 4]
    intrinsics: Tensor,  # [..., 3, 3]
) -> Tensor:
    """Lift a depth map to points in the world.

    Args:
        depth: Z-depth `[..., H, W]` in metres.
        cam2world: Camera poses `[..., 4, 4]`.
        intrinsics: Intrinsics `[..., 3, 3]` in pixels of the depth map.

    Returns:
        World points `[..., H, W, 3]` in metres. A depth of 0 gives the camera's position and a non-finite
        one a non-finite point: mask with `known_depth`.

    Raises:
        InputError: If a shape is wrong.

    Source: ours.
    """
    check_tensor("depth", depth, ["...", "H", "W"])
    rays = ray_directions(cam2world, intrinsics, (depth.shape[-2], depth.shape[-1]))  # [..., H, W, 3]
    return rays * depth[..., None] + cam2world[..., None, None, :3, 3]


def project(
    points_world: Tensor,  # [..., N, 3]
    cam2world: Tensor,  # [..., 4, 4]
    intrinsics: Tensor,  # [..., 3, 3]
) -> tuple[Tensor, Tensor]:
    """Project world points into an image.

    Args:
        points_world: World points `[..., N, 3]` in metres.
        cam2world: Camera poses `[..., 4, 4]`.
        intrinsics: Intrinsics `[..., 3, 3]` in pixels.

    Returns:
        `(uv, depth)`: pixels `[..., N, 2]` and z-depth `[..., N]` in metres. Where the depth is not positive
        the point lies behind the camera and its pixel, though finite, means nothing.

    Raises:
        InputError: If a shape is wrong.

    Source: ours.
    """
    check_tensor("points_world", points_world, ["...", "N", 3])
    check_tensor("cam2world", cam2world, ["...", 4, 4])
    check_tensor("intrinsics", intrinsics, ["...", 3, 3])
    world2cam = cam2world[..., None, :3, :3].transpose(-1, -2)  # [..., 1, 3, 3]
    x, y, depth = rotate(world2cam, points_world - cam2world[..., None, :3, 3]).unbind(-1)  # each [..., N]
    divisor = depth.clamp(min=_NEAREST)
    fx, skew, cx, fy, cy = (entry[..., None] for entry in _entries(intrinsics))  # [..., 1]
    u = (fx * x + skew * y) / divisor + cx
    v = fy * y / divisor + cy
    return torch.stack((u, v), dim=-1), depth


def downsample_depth(
    depth: Tensor,  # [..., H, W]
    stride: int,
) -> Tensor:
    """Reduce a depth map to one depth per block, without inventing surfaces between near and far.

    Each block takes the lower median of its known pixels, a depth that was really there; a mean would hang a
    point in the air at every edge.

    Args:
        depth: Z-depth `[..., H, W]` in metres.
        stride: Block size in pixels; divides height and width.

    Returns:
        Z-depth `[..., H / stride, W / stride]` in metres, 0 where fewer than half of the pixels are known.

    Raises:
        InputError: If the shape is wrong or the stride does not divide it.

    Source: ours.
    """
    check_tensor("depth", depth, ["...", "H", "W"])
    height, width = depth.shape[-2:]
    if stride < 1 or height % stride or width % stride:
        raise InputError(f"stride must divide the depth's size, got stride {stride} for {height} x {width}")
    grid = (*depth.shape[:-2], height // stride, stride, width // stride, stride)
    blocks = depth.reshape(grid)  # [..., h, s, w, s]
    blocks = blocks.transpose(-3, -2).flatten(-2)  # [..., h, w, s*s]
    known = known_depth(blocks)
    count = known.sum(dim=-1, keepdim=True)  # [..., h, w, 1]
    ordered = torch.where(known, blocks, torch.inf).sort(dim=-1).values  # unknown pixels last
    median = ordered.gather(-1, (count - 1).clamp(min=0) // 2)  # [..., h, w, 1]
    return torch.where(2 * count >= stride * stride, median, torch.zeros_like(median)).squeeze(-1)


def _entries(intrinsics: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Take `fx, skew, cx, fy, cy`, each `[...]`, from intrinsics `[..., 3, 3]`."""
    return (
        intrinsics[..., 0, 0],
        intrinsics[..., 0, 1],
        intrinsics[..., 0, 2],
        intrinsics[..., 1, 1],
        intrinsics[..., 1, 2],
    )


def _first_bad(matrix: Tensor) -> list[list[float]]:
    """Give the first matrix of `[..., 3, 3]` whose fixed entries are off, for a message."""
    flat = matrix.reshape(-1, 3, 3)
    wanted = flat.new_tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    off = ((flat - torch.eye(3, dtype=flat.dtype, device=flat.device)) * wanted).abs().amax(
        dim=(-1, -2)
    ) > 1e-6
    rows: list[list[float]] = flat[int(off.nonzero()[0])].tolist()
    return rows
