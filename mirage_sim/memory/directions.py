"""Directions: unit vectors in four bytes, for the many that a memory holds.

A direction is the point where it leaves an octahedron whose lower half is folded out into the plane.

Source: octahedral maps, as in Cigolle et al. 2014, "A survey of efficient representations for independent
unit vectors".
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_LARGEST = 32767.0


def pack_directions(directions: Tensor) -> Tensor:
    """Pack unit vectors.

    Args:
        directions: `[..., 3]`; zeros are packed as the z axis.

    Returns:
        int16 `[..., 2]`.
    """
    flat = directions / directions.abs().sum(dim=-1, keepdim=True).clamp(min=1e-9)  # [..., 3]
    plane, below = flat[..., :2], flat[..., 2:] < 0
    folded = (1.0 - plane.flip(-1).abs()) * _sign(plane)
    return (_LARGEST * torch.where(below, folded, plane)).round().to(torch.int16)


def unpack_directions(packed: Tensor) -> Tensor:
    """Unpack what `pack_directions` packed.

    Args:
        packed: int16 `[..., 2]`.

    Returns:
        Unit vectors `[..., 3]`, float32, within 0.01 degrees.
    """
    plane = packed.float() / _LARGEST  # [..., 2]
    height = 1.0 - plane.abs().sum(dim=-1, keepdim=True)  # [..., 1]
    plane = plane - _sign(plane) * (-height).clamp(min=0.0)
    return normalize(torch.cat([plane, height], dim=-1), dim=-1)


def _sign(values: Tensor) -> Tensor:
    return torch.where(values < 0, -1.0, 1.0)
