"""Z-buffer: the step that projects stored tokens onto a camera and keeps one per latent cell.

Scatter passes over the entries, O(N), whose result does not depend on the order of execution:

1. cells with entries that were seen from where the camera stands forget the others, which cannot hide them;
2. the nearest depth of every cell;
3. among those, or else among the entries close behind that nearest depth (the same surface), the one with
   the least score, packed with its index into one integer, so that equal scores go to the lowest index, that
   is to the oldest entry;
4. so that a place looks the same when more has been written in the meantime, scores that differ by little
   count as equal, and of the best entry finer than the present view asks for and the best of the others the
   older one shows.

The score is the squared distance from the cell's centre plus a penalty for another scale. Everything up to it
is elementwise IEEE arithmetic and integer work, no matrix product and no transcendental function, so the
choice is the same for any batch and any number of threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mirage_sim.errors import InputError, check_shape
from mirage_sim.memory.gaps import cover
from mirage_sim.memory.occlusion import find_leaks, seen_from_here
from mirage_sim.memory.scatter import (
    FINER,
    SCALE_WEIGHT,
    camera_rows,
    choose,
    find_hits,
    keep_hits,
    to_cells,
)
from mirage_sim.memory.surface import depth_slack
from mirage_sim.memory.tokens import cell_focal, exact_sqrt

_NEVER = 1 << 24  # an index beyond all, exact in float32
_MARGIN = 1  # cells around the view that are read, too, where gaps are closed


@dataclass(frozen=True)
class SplatResult:
    """Which entry each cell of the target cameras shows; unknown cells are zero in all but `index`.

    Attributes:
        index: int64 `[B, T, h, w]`, index of the entry among the N of its world, -1 where there is none.
        mask: Boolean `[B, T, h, w]`, true where an entry was found.
        depth: Z-depth of the entry `[B, T, h, w]` in metres.
        offset: Where the entry fell `[B, T, 2, h, w]`: (u, v) from the cell's centre, in [-0.5, 0.5], or up
            to 1.5 for one that covers the cell from a neighbouring one.
        log_scale: `[B, T, h, w]`, log of the footprint at writing over the footprint of a present cell at
            the entry. Positive: written from farther away or with a shorter focal length, hence *coarser*
            than the present view asks for. Negative: finer than needed.
        view_cos: `[B, T, h, w]`, cosine between the directions in which the entry was and is now seen.
    """

    index: Tensor
    mask: Tensor
    depth: Tensor
    offset: Tensor
    log_scale: Tensor
    view_cos: Tensor


@torch.no_grad()
def splat(
    positions: Tensor,  # [B, N, 3]
    valid: Tensor,  # [B, N]
    footprint: Tensor,  # [B, N]
    view_dir: Tensor,  # [B, N, 3]
    cam2world: Tensor,  # [B, T, 4, 4]
    intrinsics: Tensor,  # [B, T, 3, 3]
    hw: tuple[int, int],
    depth_tolerance: float = 0.05,
    *,
    scale_weight: float = SCALE_WEIGHT,
    close_gaps: bool = True,
    lasting: bool = True,
    compact: bool | None = None,
) -> SplatResult:
    """Find the entry that every cell of the target cameras shows.

    Args:
        positions: World positions `[B, N, 3]` in metres.
        valid: Boolean `[B, N]`; other entries are ignored, whatever they hold.
        footprint: Metres covered by one cell at writing `[B, N]`, depth over focal length.
        view_dir: Unit directions from the camera to the token at writing `[B, N, 3]`.
        cam2world: Target cameras `[B, T, 4, 4]`.
        intrinsics: Intrinsics `[B, T, 3, 3]` in cells of the latent frame read.
        hw: Height and width of the latent frame in cells.
        depth_tolerance: How far behind the nearest entry of a cell others still count as the same surface:
            this fraction of the depth, and at least this many metres, plus what the surface itself recedes
            within the cell.
        scale_weight: Score of one unit of |log scale| in squared cells.
        close_gaps: Whether cells that show something far through the gaps of a nearer, coarser surface are
            unknown (see `find_leaks`), unless it was seen from here, and whether unknown cells show the
            coarse token beside them whose footprint covers them (see `cover`).
        lasting: Whether what a cell showed lasts when more has been written since, by point 4 above.
        compact: Whether entries outside the view are removed before scattering, which waits for the device;
            `None` does so on the CPU only. The result is the same.

    Returns:
        The chosen entries and how they are seen now.

    Raises:
        InputError: If a shape or dtype is wrong or `hw` is not positive.

    Source: z-buffered nearest projection as in the paper; tie rule, score and extra channels, ours.
    """
    _check(positions, valid, footprint, view_dir, cam2world, intrinsics, hw)
    if positions.shape[1] == 0:
        return _empty(positions, cam2world, hw)
    compact = positions.device.type == "cpu" if compact is None else compact
    if close_gaps:  # tokens beside the view cover cells at its border
        hw = (hw[0] + 2 * _MARGIN, hw[1] + 2 * _MARGIN)
        intrinsics = intrinsics.clone()
        intrinsics[..., :2, 2] += _MARGIN
    rows = camera_rows(cam2world, intrinsics)
    hits = find_hits(positions, valid, cam2world, intrinsics, rows, hw, compact)
    cells = cam2world.shape[0] * cam2world.shape[1] * hw[0] * hw[1]
    direct = seen_from_here(hits, positions, footprint, view_dir, cam2world, intrinsics, hw)
    certain = torch.zeros(cells + 1, dtype=torch.uint8, device=positions.device)
    certain = certain.scatter_reduce_(0, hits.cell, direct.to(torch.uint8), "amax").bool()
    hits = keep_hits(hits, direct | ~certain.index_select(0, hits.cell), cells, compact)
    nearest = positions.new_full((cells + 1,), torch.inf)
    nearest.scatter_reduce_(0, hits.cell, hits.depth, "amin")
    grid = nearest[:-1].reshape(*cam2world.shape[:2], *hw)  # [B, T, h, w]
    limit = grid + depth_slack(grid, depth_tolerance, cells=1.0)
    limit = torch.cat((limit.reshape(-1), nearest[-1:]))  # [cells + 1]
    limit = limit.masked_fill(certain, torch.inf)
    hits = keep_hits(hits, hits.depth <= limit.index_select(0, hits.cell), cells, compact)
    index = choose(hits, footprint, intrinsics, hw, scale_weight, lasting=lasting)
    seen = _describe(index, positions, footprint, view_dir, cam2world, intrinsics, rows)
    if not close_gaps:
        return seen
    leaks = find_leaks(seen.depth, seen.mask, seen.log_scale)
    seen = _hide(seen, leaks & ~certain[:-1].reshape(leaks.shape))
    if not lasting:
        return _crop(_fill(seen, seen.index))
    fitting = _hide(seen, seen.log_scale < math.log(FINER))
    return _crop(_prefer(_fill(fitting, seen.index), seen))


@torch.inference_mode()
def match_surface(
    positions: Tensor,  # [B, N, 3]
    valid: Tensor,  # [B, N]
    footprint: Tensor,  # [B, N]
    view_dir: Tensor,  # [B, N, 3]
    cam2world: Tensor,  # [B, T, 4, 4]
    intrinsics: Tensor,  # [B, T, 3, 3]
    depth: Tensor,  # [B, T, h, w]
    tolerance: Tensor,  # [B, T, h, w]
    *,
    scale_weight: float = SCALE_WEIGHT,
    compact: bool | None = None,
) -> SplatResult:
    """Find in every cell the entry that best stands for a surface of given depth, hidden or not.

    Unlike `splat` this looks past nearer entries: it answers whether a surface is already stored.

    Args:
        positions: World positions `[B, N, 3]` in metres.
        valid: Boolean `[B, N]`; other entries are ignored.
        footprint: Metres covered by one cell at writing `[B, N]`.
        view_dir: Unit directions from the camera to the token at writing `[B, N, 3]`.
        cam2world: Cameras `[B, T, 4, 4]`.
        intrinsics: Intrinsics `[B, T, 3, 3]` in latent cells.
        depth: Z-depth of the surface `[B, T, h, w]` in metres; cells with 0 find nothing.
        tolerance: Largest difference in depth `[B, T, h, w]` in metres.
        scale_weight: Score of one unit of |log scale| in squared cells.
        compact: As for `splat`.

    Returns:
        The best entry of that surface in every cell, described as by `splat`.

    Raises:
        InputError: If a shape is wrong.

    Source: ours.
    """
    hw = (depth.shape[-2], depth.shape[-1])
    _check(positions, valid, footprint, view_dir, cam2world, intrinsics, hw)
    check_shape("depth", depth, [*cam2world.shape[:2], *hw])
    check_shape("tolerance", tolerance, list(depth.shape))
    if positions.shape[1] == 0:
        return _empty(positions, cam2world, hw)
    compact = positions.device.type == "cpu" if compact is None else compact
    rows = camera_rows(cam2world, intrinsics)
    hits = find_hits(positions, valid, cam2world, intrinsics, rows, hw, compact)
    cells = depth.numel()
    spare = depth.new_zeros(1)
    surface = torch.cat((depth.reshape(-1), spare)).index_select(0, hits.cell)  # [M]
    allowed = torch.cat((tolerance.reshape(-1), spare)).index_select(0, hits.cell)
    near_enough = ((hits.depth - surface).abs() <= allowed) & (surface > 0)
    hits = keep_hits(hits, near_enough, cells, compact)
    index = choose(hits, footprint, intrinsics, hw, scale_weight)
    return _describe(index, positions, footprint, view_dir, cam2world, intrinsics, rows)


def gather_tokens(
    features: Tensor,  # [B, N, C]
    index: Tensor,  # [B, T, h, w]
) -> Tensor:
    """Take the chosen entries' tokens; zeros where there is none.

    Args:
        features: Tokens `[B, N, C]`.
        index: Chosen entries `[B, T, h, w]`, -1 for none.

    Returns:
        Latent frames `[B, T, C, h, w]`, float32 whatever the features are kept in.

    Raises:
        InputError: If a shape is wrong.

    Source: ours.
    """
    check_shape("features", features, ["B", "N", "C"])
    worlds, count, channels = features.shape
    check_shape("index", index, [worlds, "T", "h", "w"])
    frames, height, width = index.shape[1:]
    if count == 0:
        return torch.zeros(
            worlds, frames, channels, height, width, device=features.device, dtype=torch.float32
        )
    first = torch.arange(worlds, device=index.device, dtype=torch.int64)[:, None, None, None] * count
    rows = (index.clamp(min=0) + first).reshape(-1)  # [B*T*h*w]
    tokens = features.reshape(-1, channels).index_select(0, rows).float()  # [B*T*h*w, C]
    tokens = tokens.masked_fill_((index < 0).reshape(-1, 1), 0)
    return tokens.reshape(worlds, frames, height, width, channels).permute(0, 1, 4, 2, 3).contiguous()


def _describe(
    index: Tensor,  # [B, T, h, w]
    positions: Tensor,  # [B, N, 3]
    footprint: Tensor,  # [B, N]
    view_dir: Tensor,  # [B, N, 3]
    cam2world: Tensor,  # [B, T, 4, 4]
    intrinsics: Tensor,  # [B, T, 3, 3]
    rows: Tensor,  # [B, T, 3, 3, 1]
) -> SplatResult:
    """Say how the chosen entries are seen by the target cameras."""
    worlds, frames, height, width = index.shape
    mask = index >= 0
    flat = index.clamp(min=0).reshape(worlds, -1)  # [B, T*h*w]
    grid = (worlds, frames, height * width)
    places, then = (
        part.transpose(1, 2).gather(2, flat[:, None].expand(-1, 3, -1)).reshape(worlds, 3, *grid[1:])
        for part in (positions, view_dir)
    )  # each [B, 3, T, h*w]
    x, y, z = places.unbind(1)  # each [B, T, h*w]
    u, v, depth = to_cells((x, y, z), cam2world, rows, intrinsics)
    offset = torch.stack((u - u.floor() - 0.5, v - v.floor() - 0.5), dim=2)  # [B, T, 2, h*w]
    stored = footprint.gather(1, flat).reshape(grid)
    # in float64, so that the rounded result does not depend on how a vector unit splits the batch
    ratio = stored.double() * cell_focal(intrinsics)[..., None].double() / depth.double()
    log_scale = ratio.log().to(depth.dtype)
    now = places - cam2world[..., :3, 3].transpose(1, 2)[..., None]  # [B, 3, T, h*w]
    squares, products = now * now, then * now
    length = exact_sqrt(squares[:, 0] + squares[:, 1] + squares[:, 2])  # [B, T, h*w]
    view_cos = (products[:, 0] + products[:, 1] + products[:, 2]) / length
    shape = (worlds, frames, height, width)
    zero = torch.zeros((), dtype=depth.dtype, device=depth.device)
    return SplatResult(
        index=index,
        mask=mask,
        depth=torch.where(mask, depth.reshape(shape), zero),
        offset=torch.where(mask[:, :, None], offset.reshape(worlds, frames, 2, height, width), zero),
        log_scale=torch.where(mask, log_scale.reshape(shape), zero),
        view_cos=torch.where(mask, view_cos.reshape(shape), zero),
    )


def _prefer(first: SplatResult, second: SplatResult) -> SplatResult:
    """Show the first in cells where it shows anything, and the second elsewhere."""
    taken = first.mask
    parts = (
        torch.where(taken[:, :, None] if mine.ndim == 5 else taken, mine, other)
        for mine, other in zip(vars(first).values(), vars(second).values(), strict=True)
    )
    return SplatResult(*parts)


def _hide(seen: SplatResult, hidden: Tensor) -> SplatResult:
    """Make cells `[B, T, h, w]` unknown."""
    zero = torch.zeros((), dtype=seen.depth.dtype, device=hidden.device)
    return SplatResult(
        index=torch.where(hidden, -1, seen.index),
        mask=seen.mask & ~hidden,
        depth=torch.where(hidden, zero, seen.depth),
        offset=torch.where(hidden[:, :, None], zero, seen.offset),
        log_scale=torch.where(hidden, zero, seen.log_scale),
        view_cos=torch.where(hidden, zero, seen.view_cos),
    )


def _crop(seen: SplatResult) -> SplatResult:
    """Take the margin away."""
    inner = slice(_MARGIN, -_MARGIN)
    return SplatResult(*(part[..., inner, inner].contiguous() for part in vars(seen).values()))


def _fill(seen: SplatResult, fell: Tensor) -> SplatResult:
    """Let unknown cells show the token beside them that covers them."""
    before = torch.where(fell >= 0, fell, _NEVER)
    source, offset = cover(seen.mask, seen.offset, seen.log_scale, seen.depth, seen.index, before)
    place = source.flatten(-2)
    index, mask, depth, log_scale, view_cos = (
        part.flatten(-2).gather(-1, place).reshape(part.shape)
        for part in (seen.index, seen.mask, seen.depth, seen.log_scale, seen.view_cos)
    )
    return SplatResult(index, mask, depth, offset, log_scale, view_cos)


def _empty(positions: Tensor, cam2world: Tensor, hw: tuple[int, int]) -> SplatResult:
    """Give the result of reading nothing."""
    shape = (*cam2world.shape[:2], *hw)
    zeros = positions.new_zeros(shape)
    index = torch.full(shape, -1, dtype=torch.int64, device=positions.device)
    offset = positions.new_zeros((*shape[:2], 2, *hw))
    return SplatResult(index, index >= 0, zeros, offset, zeros.clone(), zeros.clone())


def _check(
    positions: Tensor,
    valid: Tensor,
    footprint: Tensor,
    view_dir: Tensor,
    cam2world: Tensor,
    intrinsics: Tensor,
    hw: tuple[int, int],
) -> None:
    """Raise unless the shapes agree."""
    check_shape("positions", positions, ["B", "N", 3])
    worlds, count = positions.shape[:2]
    check_shape("valid", valid, [worlds, count])
    check_shape("footprint", footprint, [worlds, count])
    check_shape("view_dir", view_dir, [worlds, count, 3])
    check_shape("cam2world", cam2world, [worlds, "T", 4, 4])
    check_shape("intrinsics", intrinsics, [worlds, cam2world.shape[1], 3, 3])
    for name, value in (("positions", positions), ("footprint", footprint), ("cam2world", cam2world)):
        if value.dtype != torch.float32:
            raise InputError(f"{name} must be float32, got {value.dtype}")
    if valid.dtype != torch.bool:
        raise InputError(f"valid must be bool, got {valid.dtype}")
    if hw[0] < 1 or hw[1] < 1:
        raise InputError(f"hw must be positive, got {hw}")
