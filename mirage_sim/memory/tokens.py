"""Tokens: the step that gives every cell of a latent frame its place in the world, before it is stored.

A token is one cell of a latent frame together with where its centre lies, how much of the surface the cell
covered, and from which side it was seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mirage_sim.errors import check_shape
from mirage_sim.geometry.cameras import known_depth, ray_directions


@dataclass(frozen=True)
class TokenGeometry:
    """Where the tokens of latent frames lie.

    Attributes:
        positions: World position of every cell's centre `[..., h, w, 3]` in metres.
        known: Boolean `[..., h, w]`, true where the depth was known; elsewhere the rest is zero.
        footprint: Metres of surface that one cell covers `[..., h, w]`: depth over focal length in cells.
        view_dir: Unit direction from the camera to the token `[..., h, w, 3]` in world axes.
    """

    positions: Tensor
    known: Tensor
    footprint: Tensor
    view_dir: Tensor


def exact_sqrt(
    value: Tensor,  # [...]
) -> Tensor:
    """Take the correctly rounded root, which vector libraries do not promise for float32.

    Args:
        value: Non-negative float32 `[...]`.

    Returns:
        The root `[...]`, the same bits on every device.

    Source: ours.
    """
    return value.double().sqrt().to(value.dtype)


def cell_focal(
    intrinsics: Tensor,  # [..., 3, 3]
) -> Tensor:
    """Give one focal length per camera: the geometric mean of the horizontal and the vertical one.

    Args:
        intrinsics: Intrinsics `[..., 3, 3]` in latent cells.

    Returns:
        Focal length `[...]` in cells.

    Source: ours.
    """
    return exact_sqrt(intrinsics[..., 0, 0] * intrinsics[..., 1, 1])


def lift_tokens(
    depth: Tensor,  # [..., h, w]
    cam2world: Tensor,  # [..., 4, 4]
    intrinsics: Tensor,  # [..., 3, 3]
) -> TokenGeometry:
    """Place every cell of latent frames in the world.

    Args:
        depth: Z-depth `[..., h, w]` in metres at latent resolution; 0 or non-finite is unknown.
        cam2world: Camera poses `[..., 4, 4]`.
        intrinsics: Intrinsics `[..., 3, 3]` in latent cells.

    Returns:
        Positions, footprints and view directions; zero where the depth is unknown.

    Raises:
        InputError: If a shape is wrong.

    Source: back-projection of token centres as in the paper's initialisation; footprint and view, ours.
    """
    check_shape("depth", depth, ["...", "h", "w"])
    known = known_depth(depth)
    metres = torch.where(known, depth, torch.zeros_like(depth))
    rays = ray_directions(cam2world, intrinsics, (depth.shape[-2], depth.shape[-1]))  # [..., h, w, 3]
    x, y, z = rays.unbind(-1)  # each [..., h, w]
    length = exact_sqrt(x * x + y * y + z * z)
    present = known[..., None]
    positions = rays * metres[..., None] + cam2world[..., None, None, :3, 3]
    return TokenGeometry(
        positions=torch.where(present, positions, torch.zeros_like(positions)),
        known=known,
        footprint=metres / cell_focal(intrinsics)[..., None, None],
        view_dir=torch.where(present, rays / length[..., None], torch.zeros_like(rays)),
    )
