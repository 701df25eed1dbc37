"""Gaps: the step that lets a token show in cells of its surface that no token fell into.

Tokens are written one per cell. Seen from nearer they lie more than a cell apart, on a floor farther along
the view than across it, and cells between them would read as unknown although their surface is held.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

SLACK = 0.05
"""Cells by which a footprint may fall short of a cell's centre."""
_STEPS = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right)
_INFINITE = 0x7F800000  # the bits of float32 infinity
_STEEPEST = 0.2
"""Largest relative difference of depth, for each cell of distance, between two cells of one surface."""
_WIDEST = 2
"""Cells by which the far side of a gap may lie away; the near side is beside the cell."""


def cover(
    mask: Tensor,  # [..., h, w]
    offset: Tensor,  # [..., 2, h, w]
    log_scale: Tensor,  # [..., h, w]
    depth: Tensor,  # [..., h, w]
    index: Tensor,  # [..., h, w]
    before: Tensor,  # [..., h, w]
) -> tuple[Tensor, Tensor]:
    """Find, for cells that read nothing, the nearest token of a neighbouring cell that covers them.

    It does if its footprint reaches the cell, or if the cell lies between it and another one of its surface.

    Args:
        mask: Boolean `[..., h, w]`, which cells read a token.
        offset: Where in its cell the token fell `[..., 2, h, w]`: (u, v) from the centre.
        log_scale: Log of stored over present footprint `[..., h, w]`, positive is coarser.
        depth: Z-depth read `[..., h, w]` in metres.
        index: int64 `[..., h, w]`, the tokens read; a lower one is older.
        before: int64 `[..., h, w]`, only tokens older than this one have a cell between them: what fell into
            the cell meanwhile is not to change how it looks.

    Returns:
        `(source, offset)`: int64 `[..., h, w]`, the cell in row-major order whose token each cell shows
        (itself where it has its own or nothing covers it); and where that token fell `[..., 2, h, w]`, from
        the centre of the cell that shows it.

    Source: ours.
    """
    height, width = mask.shape[-2:]
    grown = log_scale.clamp(-1.0, 1.0)
    # half the footprint in cells; a polynomial for exp, so that the choice is the same for any batch
    reach = 0.5 * (1.0 + grown + 0.5 * grown * grown) + SLACK
    reach = torch.where(mask, reach, torch.full_like(reach, -1.0))
    steps = torch.tensor(_STEPS, device=mask.device, dtype=torch.int64)  # [8, 2]
    seen = torch.cat((reach[..., None, :, :], offset), dim=-3)  # [..., 3, h, w]
    reached, u, v = _around(seen, 1).unbind(-4)  # each [..., 8, h, w]
    right, down = (steps[:, axis, None, None].to(offset.dtype) for axis in (1, 0))  # each [8, 1, 1]
    u, v = u + right, v + down
    covers = ((u.abs() <= reached) & (v.abs() <= reached)) | _between(mask, depth, index, before)
    distance = torch.where(covers, u * u + v * v, torch.inf)
    # the first of the nearest, whatever the device's order: the bits of a positive float are in its order
    order = torch.arange(len(_STEPS), device=mask.device, dtype=torch.int64)[:, None, None]
    best = (distance.view(torch.int32).long() * len(_STEPS) + order).amin(dim=-3)  # [..., h, w]
    covered = ~mask & (best < _INFINITE * len(_STEPS))
    number = best % len(_STEPS)
    places = torch.arange(height * width, device=mask.device, dtype=torch.int64).reshape(height, width)
    moved = (steps[:, 0] * width + steps[:, 1])[number]
    source = torch.where(covered, places + moved, places)
    picked = number[..., None, None, :, :].expand_as(offset[..., None, :, :])  # [..., 2, 1, h, w]
    taken = torch.stack((u, v), dim=-4).gather(-3, picked)
    return source, torch.where(covered[..., None, :, :], taken.squeeze(-3), offset)


def _between(mask: Tensor, depth: Tensor, index: Tensor, before: Tensor) -> Tensor:
    """Whether a cell lies between each of its eight neighbours and a cell of the same surface behind it.

    Args:
        mask: Boolean `[..., h, w]`, which cells read a token.
        depth: Their z-depth `[..., h, w]` in metres.
        index: Their tokens, int64 `[..., h, w]`.
        before: Tokens that both have to be older than, int64 `[..., h, w]`.

    Returns:
        Boolean `[..., 8, h, w]`.
    """
    held = torch.stack((torch.where(mask, depth, -1.0), index.to(depth.dtype)), dim=-3)  # [..., 2, h, w]
    limit = before.to(depth.dtype)[..., None, :, :]
    around = [_around(held, steps) for steps in range(1, _WIDEST + 1)]
    near, age = around[0].unbind(-4)  # [..., 8, h, w] each
    there = (near > 0) & (age < limit)
    found = torch.zeros_like(there)
    for steps, beyond in enumerate(around, start=1):
        far, far_age = beyond.flip(-3).unbind(-4)  # the other side
        alike = (near - far).abs() <= _STEEPEST * (1 + steps) * torch.minimum(near, far)
        found |= there & (far > 0) & (far_age < limit) & alike
    return found


def _around(grid: Tensor, steps: int) -> Tensor:
    """The values so many cells away in the eight directions, `[..., h, w]` as `[..., 8, h, w]`, -1 beyond."""
    height, width = grid.shape[-2:]
    padded = pad(grid, (steps,) * 4, value=-1.0)
    views = (
        padded[..., steps * (1 + y) : steps * (1 + y) + height, steps * (1 + x) : steps * (1 + x) + width]
        for y, x in _STEPS
    )
    return torch.stack(tuple(views), dim=-3)
