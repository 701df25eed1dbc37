"""Scatter: the inner steps of the z-buffer, from entries to cells and from cells to the one entry each keeps.

Everything here is elementwise IEEE arithmetic, integer work and scatter-min, so the outcome is the same for
any batch, any number of threads and any order of execution.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mirage_sim.memory.tokens import cell_focal

SCALE_WEIGHT = 0.5
"""Score of one unit of |log scale|, in squared cells: a token twice as coarse is as bad as 0.6 cells off."""

NEAREST = 0.05
"""Depth in metres below which entries are not read: there a cell is smaller than anything that was stored."""

FINER = 0.95
"""Footprint at writing over the present one below which an entry is finer than the view asks for."""

_LITTLE = 0.5  # squared cells, the step in which scores are told apart where a choice is to last
_ALIKE = 0.25  # octaves by which scales that differ count as alike there
_UNTAKEN = torch.iinfo(torch.int64).max
_SCORE_STEPS = float(2**20)
_SCORE_LIMIT = float(2**30)
_INDEX_BITS = 32
_LN2 = 0.6931471805599453


class Hits(NamedTuple):
    """Entries that fall into a cell: one row each, or one row per entry and camera with misses set aside.

    Attributes:
        cell: int64 `[M]`, `camera * h * w + v * w + u`; one past the last cell for a miss.
        row: int64 `[M]`, `world * N + entry`.
        depth: Z-depth `[M]` in metres.
        u: Horizontal place `[M]` in cells.
        v: Vertical place `[M]` in cells.
    """

    cell: Tensor
    row: Tensor
    depth: Tensor
    u: Tensor
    v: Tensor


def camera_rows(
    cam2world: Tensor,  # [B, T, 4, 4]
    intrinsics: Tensor,  # [B, T, 3, 3]
) -> Tensor:
    """Fold rotation and focal lengths into the rows that give `u * depth`, `v * depth` and `depth`.

    Args:
        cam2world: Cameras `[B, T, 4, 4]`.
        intrinsics: Intrinsics `[B, T, 3, 3]` in cells.

    Returns:
        `[B, T, 3, 3, 1]`, to be multiplied with world positions relative to the camera.

    Source: ours.
    """
    right, down, forward = cam2world[..., :3, :3].unbind(-1)  # each [B, T, 3]
    fx, skew, fy = (intrinsics[..., i, j, None] for i, j in ((0, 0), (0, 1), (1, 1)))  # each [B, T, 1]
    return torch.stack((fx * right + skew * down, fy * down, forward), dim=-2)[..., None]


def to_cells(
    xyz: tuple[Tensor, Tensor, Tensor],  # each [B, T or 1, N]
    cam2world: Tensor,  # [B, T, 4, 4]
    rows: Tensor,  # [B, T, 3, 3, 1]
    intrinsics: Tensor,  # [B, T, 3, 3]
) -> tuple[Tensor, Tensor, Tensor]:
    """Project world points given as separate coordinates, which keeps every operation contiguous.

    Args:
        xyz: World coordinates, each `[B, T or 1, N]` in metres.
        cam2world: Cameras `[B, T, 4, 4]`.
        rows: What `camera_rows` gave for these cameras.
        intrinsics: Intrinsics `[B, T, 3, 3]` in cells.

    Returns:
        `(u, v, depth)`, each `[B, T, N]`; u and v in cells, meaningless where the depth is not positive.

    Source: ours.
    """
    centre = cam2world[..., :3, 3:].unbind(-2)  # 3 x [B, T, 1]
    x, y, z = (axis - start for axis, start in zip(xyz, centre, strict=True))  # each [B, T, N]
    u, v, depth = (
        (x * a).add_(y * b).add_(z * c)
        for a, b, c in (row.unbind(-2) for row in rows.unbind(-3))  # each [B, T, 1]
    )
    u.div_(depth).add_(intrinsics[..., 0, 2, None])
    v.div_(depth).add_(intrinsics[..., 1, 2, None])
    return u, v, depth


def find_hits(
    positions: Tensor,  # [B, N, 3]
    valid: Tensor,  # [B, N]
    cam2world: Tensor,  # [B, T, 4, 4]
    intrinsics: Tensor,  # [B, T, 3, 3]
    rows: Tensor,  # [B, T, 3, 3, 1]
    hw: tuple[int, int],
    compact: bool,
) -> Hits:
    """Project all entries and keep those inside the frusta.

    Args:
        positions: World positions `[B, N, 3]` in metres.
        valid: Boolean `[B, N]`.
        cam2world: Cameras `[B, T, 4, 4]`.
        intrinsics: Intrinsics `[B, T, 3, 3]` in cells.
        rows: What `camera_rows` gave for these cameras.
        hw: Height and width in cells.
        compact: Whether misses are removed, or set aside in a spare cell.

    Returns:
        The hits of all cameras.

    Source: ours.
    """
    height, width = hw
    worlds, count = valid.shape
    frames = cam2world.shape[1]
    x, y, z = positions[:, None].unbind(-1)  # each [B, 1, N]
    u, v, depth = to_cells((x, y, z), cam2world, rows, intrinsics)  # each [B, T, N]
    inside = (depth >= NEAREST) & (u >= 0) & (u < width) & (v >= 0) & (v < height) & valid[:, None]
    if compact:
        hit = inside.reshape(-1).nonzero().squeeze(1)  # [M]
        camera = hit // count if worlds * frames > 1 else torch.zeros_like(hit)
        u, v, depth = (part.reshape(-1).index_select(0, hit) for part in (u, v, depth))
        row = hit - (camera - camera // frames) * count
        return Hits(camera * (height * width) + _cell_in_frame(u, v, width), row, depth, u, v)
    camera = torch.arange(worlds * frames, device=valid.device, dtype=torch.int64).reshape(worlds, frames, 1)
    zero = torch.zeros((), dtype=u.dtype, device=u.device)
    u, v = (torch.where(inside, part, zero) for part in (u, v))
    cell = camera * (height * width) + _cell_in_frame(u, v, width)
    cell = torch.where(inside, cell, worlds * frames * height * width)
    row = (
        torch.arange(worlds * count, device=valid.device, dtype=torch.int64)
        .reshape(worlds, 1, count)
        .expand(cell.shape)
    )
    return Hits(cell.reshape(-1), row.reshape(-1), depth.reshape(-1), u.reshape(-1), v.reshape(-1))


def keep_hits(hits: Hits, keep: Tensor, cells: int, compact: bool) -> Hits:
    """Drop hits.

    Args:
        hits: M hits.
        keep: Boolean `[M]`.
        cells: Number of cells of all cameras.
        compact: Whether the others are removed, or set aside in a spare cell.

    Returns:
        The hits that stay.

    Source: ours.
    """
    if compact:
        stay = keep.nonzero().squeeze(1)
        return Hits(*(part.index_select(0, stay) for part in hits))
    return hits._replace(cell=torch.where(keep, hits.cell, cells))


def choose(
    hits: Hits,
    footprint: Tensor,  # [B, N]
    intrinsics: Tensor,  # [B, T, 3, 3]
    hw: tuple[int, int],
    scale_weight: float,
    lasting: bool = False,
) -> Tensor:
    """Give every cell the hit with the least score; equal scores go to the lowest index.

    Args:
        hits: Hits of one surface per cell.
        footprint: Metres covered by one cell at writing `[B, N]`.
        intrinsics: Intrinsics `[B, T, 3, 3]` in cells.
        hw: Height and width in cells.
        scale_weight: Score of one unit of |log scale| in squared cells.
        lasting: Whether what a cell showed is to last when more has been written since: of scores that differ
            by little the older entry's counts as the less, and of the best hit finer than the view asks for
            and the best of the others the older is taken.

    Returns:
        int64 `[B, T, h, w]`, index of the entry within its world, -1 for none.

    Source: ours.
    """
    height, width = hw
    worlds, frames = intrinsics.shape[:2]
    count = footprint.shape[1]
    cells = worlds * frames * height * width
    focal = cell_focal(intrinsics).reshape(-1)  # [B*T]
    if focal.shape[0] > 1:
        camera = (hits.cell // (height * width)).clamp(max=focal.shape[0] - 1)
        focal = focal.index_select(0, camera)  # [M]
    ratio = footprint.reshape(-1).index_select(0, hits.row) * focal / hits.depth  # [M]
    du, dv = (part - part.floor() - 0.5 for part in (hits.u, hits.v))
    octaves = _rough_log2(ratio).abs()
    if lasting:
        octaves = (octaves - _ALIKE).clamp(min=0.0)
    score = du * du + dv * dv + (_LN2 * scale_weight) * octaves
    if lasting:
        score = (score / _LITTLE).floor() * _LITTLE
    steps = (score * _SCORE_STEPS).clamp(max=_SCORE_LIMIT).nan_to_num(nan=_SCORE_LIMIT).long()
    entry = hits.row % count if worlds > 1 else hits.row
    key = (steps << _INDEX_BITS) | entry

    def best(cell: Tensor) -> Tensor:
        least = torch.full((cells + 1,), _UNTAKEN, dtype=torch.int64, device=cell.device)
        least.scatter_reduce_(0, cell, key, "amin")
        return torch.where(least == _UNTAKEN, _UNTAKEN, least & ((1 << _INDEX_BITS) - 1))[:-1]

    if lasting:
        finer = ratio < FINER
        classes = (hits.cell.masked_fill(finer, cells), hits.cell.masked_fill(~finer, cells))
        index = torch.minimum(*(best(cell) for cell in classes))
    else:
        index = best(hits.cell)
    return torch.where(index == _UNTAKEN, -1, index).reshape(worlds, frames, height, width)


def _cell_in_frame(u: Tensor, v: Tensor, width: int) -> Tensor:
    """Number the cell that holds (u, v)."""
    return (v.floor() * width + u.floor()).long()


def _rough_log2(ratio: Tensor) -> Tensor:
    """Approximate log2 within 0.09 from the bits of a positive float32: exact at powers of two, monotonic."""
    return ratio.contiguous().view(torch.int32).to(torch.float32) * 2.0**-23 - 127.0
