"""Gaps: the step that lets a coarse token cover the cells of its footprint.

Tokens are written one per cell. Seen from nearer they lie more than a cell apart, and cells between them
would read as unknown although their surface is held.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

SLACK = 0.05
"""Cells by which a footprint may fall short of a cell's centre."""
_STEPS = (-1, 0, 1)


def cover(
    mask: Tensor,  # [..., h, w]
    offset: Tensor,  # [..., 2, h, w]
    log_scale: Tensor,  # [..., h, w]
) -> tuple[Tensor, Tensor]:
    """Find, for cells that read nothing, the nearest token of a neighbouring cell that covers them.

    Args:
        mask: Boolean `[..., h, w]`, which cells read a token.
        offset: Where in its cell the token fell `[..., 2, h, w]`: (u, v) from the centre.
        log_scale: Log of stored over present footprint `[..., h, w]`, positive is coarser.

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
    places = torch.arange(height * width, device=mask.device).reshape(height, width)
    best = torch.where(mask, -1.0, torch.inf)
    source, chosen = places.expand(mask.shape), offset
    for down in _STEPS:
        for right in _STEPS:
            if down == right == 0:
                continue
            reached = _neighbour(reach, down, right, -1.0)
            moved = _neighbour(offset, down, right, 0.0) + _direction(offset, right, down)
            u, v = moved.unbind(-3)
            distance = u * u + v * v
            better = (u.abs() <= reached) & (v.abs() <= reached) & (distance < best)
            best = torch.where(better, distance, best)
            source = torch.where(better, places + (down * width + right), source)
            chosen = torch.where(better[..., None, :, :], moved, chosen)
    return source, chosen


def _neighbour(grid: Tensor, down: int, right: int, outside: float) -> Tensor:
    """The value `down` rows and `right` columns further, `outside` beyond the border."""
    height, width = grid.shape[-2:]
    padded = pad(grid, (1, 1, 1, 1), value=outside)
    return padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def _direction(like: Tensor, right: int, down: int) -> Tensor:
    """(right, down) as `[2, 1, 1]`."""
    return torch.tensor([right, down], dtype=like.dtype, device=like.device)[:, None, None]
