"""Surface: which depths in a cell belong to one surface, the question behind both reading and writing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from mirage_sim.geometry.cameras import known_depth


def depth_slack(
    depth: Tensor,  # [..., h, w]
    tolerance: float,
    cells: float = 0.5,
    steepest: float = 6.0,
) -> Tensor:
    """Give the difference in depth within which an entry in a cell belongs to the surface seen there.

    To the tolerance it adds how much the surface itself recedes within the cell, so that floors seen at a
    grazing angle are recognised. The slope is the smaller of the two one-sided ones, which is the surface's
    own at an edge, and is bounded where the cell stands alone.

    Args:
        depth: Z-depth `[..., h, w]` in metres; 0 or non-finite is unknown.
        tolerance: Fraction of the depth, and at least this many metres.
        cells: Over how much of a cell the surface may recede: half of one from its centre, one from its edge.
        steepest: Largest contribution of the slope, in tolerances.

    Returns:
        `[..., h, w]` in metres; 0 where the depth is unknown.

    Source: ours.
    """
    known = known_depth(depth)
    metres = torch.where(known, depth, torch.nan)
    slope = _own_slope(metres) + _own_slope(metres.transpose(-1, -2)).transpose(-1, -2)
    slack = tolerance * metres.clamp(min=1.0) + torch.minimum(cells * slope, steepest * tolerance * metres)
    return torch.where(known, slack, 0.0)


def inside_surface(
    held: Tensor,  # [B, h, w]
    depth: Tensor,  # [B, h, w]
    slack: Tensor,  # [B, h, w]
) -> Tensor:
    """Find cells inside a held surface: it is held on two opposite sides, so that a cell between is no news.

    Args:
        held: Boolean `[B, h, w]`, cells whose surface the memory holds.
        depth: Z-depth seen now `[B, h, w]` in metres.
        slack: Difference in depth `[B, h, w]` in metres within one cell of the surface.

    Returns:
        Boolean `[B, h, w]`.

    Source: ours.
    """
    out = torch.zeros_like(held)
    for axis in (1, 2):
        count = held.shape[axis]
        if count < 3:
            continue
        centre, before, after = (
            [part.narrow(axis, start, count - 2) for part in (held, depth)] for start in (1, 0, 2)
        )
        reach = 2 * slack.narrow(axis, 1, count - 2)
        same = [side[0] & ((side[1] - centre[1]).abs() <= reach) for side in (before, after)]
        out.narrow(axis, 1, count - 2).logical_or_(same[0] & same[1])
    return out


def _own_slope(metres: Tensor) -> Tensor:
    """Give the smaller one-sided |difference| along the last axis, 0 where neither neighbour is known."""
    padded = pad(metres, (1, 1), value=torch.inf)  # [..., n + 2]
    step = (padded[..., 1:] - padded[..., :-1]).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    return torch.minimum(step[..., 1:], step[..., :-1]).nan_to_num(posinf=0.0)
