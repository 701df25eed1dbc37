"""Occlusion: the step that keeps far surfaces from shining through the gaps of a near one.

Stored tokens are points. Seen from nearer than they were written they no longer fill every cell, and a read
of nearest points would show, through a wall, the room behind it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

_COARSER = (0.02, 0.4, 0.8)
"""Least log scale at which an entry's surface can have gaps one, two and three cells away from it."""


def find_leaks(
    depth: Tensor,  # [..., h, w]
    mask: Tensor,  # [..., h, w]
    log_scale: Tensor,  # [..., h, w]
    margin: float = 0.25,
) -> Tensor:
    """Find cells that show something far between two cells of a nearer surface.

    Only a surface read from nearer than it was written can have gaps, wider ones the nearer it is, so its
    entries on both sides have to be coarser than the present view. A slit that was seen at the present scale
    stays open, and so does the background beside a silhouette, which has the near surface on one side only.

    Args:
        depth: Z-depth read `[..., h, w]` in metres.
        mask: Boolean `[..., h, w]`, which cells were read.
        log_scale: Log of stored over present footprint `[..., h, w]`, positive is coarser.
        margin: How far behind the farther of the two sides the cell has to lie, as a fraction of that depth
            for each cell of distance. A corner of a room is deeper than both its sides too, by less.

    Returns:
        Boolean `[..., h, w]`, cells that the near surface hides.

    Source: ours.
    """
    seen = torch.where(mask, depth, torch.inf)
    around = seen.new_full((), torch.inf)
    for n, coarser in enumerate(_COARSER, start=1):
        hidden_behind = torch.where(log_scale > coarser, seen * (1.0 + margin * n), torch.inf)
        padded = pad(hidden_behind, (n, n, n, n), value=torch.inf)
        windows = padded.unfold(-2, 2 * n + 1, 1).unfold(-2, 2 * n + 1, 1)  # [..., h, w, 2n + 1, 2n + 1]
        around = torch.minimum(around, windows[..., ::n, ::n])  # [..., h, w, 3, 3], the eight directions
    around = around.flatten(-2)  # [..., h, w, 9]
    limit = torch.maximum(around[..., :4], around[..., 5:].flip(-1)).amin(-1)  # a direction and its opposite
    return mask & (depth > limit)
