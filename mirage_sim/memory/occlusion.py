"""Occlusion: the step that says what may hide what, beyond the nearest depth.

Stored tokens are points. Seen from nearer than they were written they no longer fill every cell, and a read
of nearest points would show, through a wall, the room behind it (`find_leaks`). And their depths err: what
was seen from the very place where the camera stands cannot be hidden from it (`seen_from_here`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from mirage_sim.memory.scatter import Hits
from mirage_sim.memory.tokens import cell_focal

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


SAME_RAY, BESIDE = 0.006, 0.02
"""Radians between rays, and metres from the ray on which an entry was written, at most, to be on it."""
FARTHER = 1.5
"""How many times as deep as to the camera that wrote an entry it may be to another one on its ray."""


def seen_from_here(
    hits: Hits,
    positions: Tensor,  # [B, N, 3]
    footprint: Tensor,  # [B, N]
    view_dir: Tensor,  # [B, N, 3]
    cam2world: Tensor,  # [B, T, 4, 4]
    intrinsics: Tensor,  # [B, T, 3, 3]
    hw: tuple[int, int],
) -> Tensor:
    """Find entries that were written along the ray on which the camera sees them now, from hardly nearer.

    In a static world nothing stands between such an entry and the camera, whatever the depths say: the camera
    has not moved but turned, has come nearer along the ray, or is back where it was.

    Args:
        hits: M hits of the cameras.
        positions: World positions of the entries `[B, N, 3]` in metres.
        footprint: Metres covered by one cell at writing `[B, N]`.
        view_dir: Unit directions from the camera to the token at writing `[B, N, 3]`.
        cam2world: Cameras `[B, T, 4, 4]`.
        intrinsics: Intrinsics `[B, T, 3, 3]` in cells.
        hw: Height and width in cells.

    Returns:
        Boolean `[M]`.

    Source: ours.
    """
    cameras = cam2world.shape[0] * cam2world.shape[1]
    camera = (hits.cell // (hw[0] * hw[1])).clamp(max=cameras - 1)  # a miss counts for the last one
    centre = cam2world[..., :3, 3].reshape(-1, 3).index_select(0, camera)  # [M, 3]
    now = positions.reshape(-1, 3).index_select(0, hits.row) - centre
    then = view_dir.reshape(-1, 3).index_select(0, hits.row)
    x, y, z = now.unbind(-1)
    a, b, c = then.unbind(-1)
    square = x * x + y * y + z * z
    along = x * a + y * b + z * c
    across = (y * c - z * b, z * a - x * c, x * b - y * a)
    aside = across[0] * across[0] + across[1] * across[1] + across[2] * across[2]  # squared, from the ray
    focal = cell_focal(intrinsics).reshape(-1).index_select(0, camera)
    written_at = footprint.reshape(-1).index_select(0, hits.row) * focal
    same = (along > 0) & (aside <= (SAME_RAY * SAME_RAY * square).clamp(max=BESIDE * BESIDE))
    return same & (hits.depth <= FARTHER * written_at)
