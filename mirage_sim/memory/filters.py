"""Filters: the step before writing that tells which tokens of a new frame deserve to be remembered.

Each filter is a pure function that returns a mask of tokens to keep (or, for `free_space`, of tokens to
drop), and each can be switched off in the memory's configuration.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from mirage_sim.errors import check_shape
from mirage_sim.geometry.cameras import known_depth, project
from mirage_sim.memory.config import MemoryConfig
from mirage_sim.memory.keyframes import KeyframeViews
from mirage_sim.memory.tokens import TokenGeometry, cell_focal


@torch.inference_mode()
def fit_to_keep(
    config: MemoryConfig,
    depth: Tensor,  # [B, T, h, w]
    geometry: TokenGeometry,
    allowed: Tensor,  # [B, T, h, w]
    seen: KeyframeViews,
    edges: bool,
) -> tuple[Tensor, Tensor]:
    """Apply the filters that the configuration names.

    Args:
        config: Which filters, and their thresholds.
        depth: Z-depth `[B, T, h, w]` in metres.
        geometry: Where the tokens lie.
        allowed: Boolean `[B, T, h, w]`, tokens that the caller lets through.
        seen: Views from before.
        edges: Whether depths are a network's, which may lie between two surfaces.

    Returns:
        Two booleans `[B, T, h, w]`: tokens that may be written, and those whose depth a keyframe may trust.

    Source: the paper masks the sky and what moves; ours in form.
    """
    keep = allowed & torch.isfinite(depth)
    if config.filter_range:
        keep = keep & in_range(depth, config.min_depth, config.max_depth)
    if config.filter_free_space:
        contradicts = free_space(
            geometry.positions.flatten(1, 3),
            geometry.footprint.flatten(1),
            seen.depth,
            seen.cam2world,
            seen.intrinsics,
            seen.valid,
            relative_margin=config.free_space_margin,
        )
        keep = keep & ~contradicts.reshape(depth.shape)
    trusted = keep
    if config.filter_edges and edges:
        keep = keep & on_surface(depth, config.edge_threshold)
    return keep, trusted


def in_range(
    depth: Tensor,  # [..., h, w]
    min_depth: float,
    max_depth: float,
) -> Tensor:
    """Keep tokens on a surface: known depth, neither at the lens nor in the sky.

    Args:
        depth: Z-depth `[..., h, w]` in metres; 0 or non-finite is unknown.
        min_depth: Least depth in metres.
        max_depth: Largest depth in metres; what lies beyond is sky.

    Returns:
        Boolean `[..., h, w]`, true where the token may be written.

    Source: the paper masks sky; ours in form.
    """
    return known_depth(depth) & (depth >= min_depth) & (depth <= max_depth)


def on_surface(
    depth: Tensor,  # [..., h, w]
    threshold: float = 0.15,
) -> Tensor:
    """Keep tokens that a neighbouring surface supports, and drop those that fly between two surfaces.

    The inverse depth of a plane is affine across the image, so its second difference is zero, however grazing
    the view. A token flies, along rows or along columns, if its inverse depth lies clearly between those of
    its two neighbours while neither side's pair of neighbours continues to it; without both pairs there is no
    verdict. The last cell of a near surface and the first of a far one each continue their own side and are
    kept, and so is a thin object in front of both.

    Args:
        depth: Z-depth `[..., h, w]` in metres; unknown cells support nothing.
        threshold: Largest second difference, and least step to a neighbour, as a fraction of the token's
            inverse depth.

    Returns:
        Boolean `[..., h, w]`, false where a token flies; true where the depth is unknown.

    Raises:
        InputError: If the shape is wrong.

    Source: ours.
    """
    check_shape("depth", depth, ["...", "h", "w"])
    known = known_depth(depth)
    inverse = torch.where(known, 1.0 / torch.where(known, depth, torch.ones_like(depth)), torch.nan)
    rows = _flies_along_last(inverse, threshold)
    columns = _flies_along_last(inverse.transpose(-1, -2), threshold).transpose(-1, -2)
    return ~(rows | columns)


def free_space(
    positions: Tensor,  # [B, M, 3]
    footprint: Tensor,  # [B, M]
    key_depth: Tensor,  # [B, K, h, w]
    key_cam2world: Tensor,  # [B, K, 4, 4]
    key_intrinsics: Tensor,  # [B, K, 3, 3]
    key_valid: Tensor,  # [B, K]
    relative_margin: float = 0.1,
    margin: float = 0.05,
    coarsest: float = 1.7,
) -> Tensor:
    """Find tokens in space that an earlier view looked through, so that something moved or a depth is wrong.

    A token is in free space if some earlier view saw a surface clearly behind it. Views are latent frames, so
    the nearest surface of the cell and of its eight neighbours counts, and a view that was much coarser at
    that place than the token has no say: it may have missed something thin.

    Args:
        positions: World positions of the tokens `[B, M, 3]` in metres.
        footprint: Metres covered by one cell of the new view at the token `[B, M]`.
        key_depth: Z-depth of earlier views `[B, K, h, w]` in metres, 0 where unknown.
        key_cam2world: Their cameras `[B, K, 4, 4]`.
        key_intrinsics: Their intrinsics `[B, K, 3, 3]` in cells.
        key_valid: Boolean `[B, K]`, which of them exist.
        relative_margin: How far in front of the surface seen a token has to be, as a fraction of its depth
            ...
        margin: ... plus this many metres.
        coarsest: How many times coarser than the token an earlier view may be at most.

    Returns:
        Boolean `[B, M]`, true where the token contradicts what was seen.

    Raises:
        InputError: If a shape is wrong.

    Source: ours.
    """
    check_shape("positions", positions, ["B", "M", 3])
    worlds, count = positions.shape[:2]
    check_shape("footprint", footprint, [worlds, count])
    check_shape("key_depth", key_depth, [worlds, "K", "h", "w"])
    views, height, width = key_depth.shape[1:]
    check_shape("key_cam2world", key_cam2world, [worlds, views, 4, 4])
    check_shape("key_intrinsics", key_intrinsics, [worlds, views, 3, 3])
    check_shape("key_valid", key_valid, [worlds, views])
    if key_depth.numel() == 0:
        return torch.zeros((worlds, count), dtype=torch.bool, device=positions.device)
    uv, depth = project(positions[:, None], key_cam2world, key_intrinsics)  # [B, K, M, 2], [B, K, M]
    u, v = uv.unbind(-1)
    inside = (depth > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)  # [B, K, M]
    column = torch.where(inside, u, torch.zeros_like(u)).long()
    row = torch.where(inside, v, torch.zeros_like(v)).long()
    surface = nearest_around(key_depth).flatten(-2).gather(-1, row * width + column)  # [B, K, M]
    coarseness = depth / cell_focal(key_intrinsics)[..., None]  # metres covered by one earlier cell
    trusted = inside & (surface > 0) & key_valid[..., None] & (coarseness <= coarsest * footprint[:, None])
    return (trusted & (depth < surface * (1.0 - relative_margin) - margin)).any(dim=1)


def nearest_around(
    depth: Tensor,  # [..., h, w]
) -> Tensor:
    """Give the nearest known depth of each cell and its eight neighbours, 0 where the cell itself is unknown.

    Args:
        depth: Z-depth `[..., h, w]` in metres; 0 or non-finite is unknown.

    Returns:
        Z-depth `[..., h, w]` in metres.

    Source: ours.
    """
    known = known_depth(depth)
    height, width = depth.shape[-2:]
    padded = pad(torch.where(known, depth, torch.inf), (1, 1, 1, 1), value=torch.inf)
    across = torch.minimum(torch.minimum(padded[..., :-2], padded[..., 1:-1]), padded[..., 2:])
    nearest = torch.minimum(
        torch.minimum(across[..., :height, :], across[..., 1 : height + 1, :]), across[..., 2:, :]
    )
    return torch.where(known, nearest, torch.zeros_like(depth)).reshape(*depth.shape[:-2], height, width)


def _flies_along_last(inverse: Tensor, threshold: float) -> Tensor:
    """Find flying tokens along the last axis of inverse depths `[..., n]`, NaN where unknown."""
    padded = pad(inverse, (2, 2), value=torch.nan)  # [..., n + 4]
    before2, before, after, after2 = (
        padded[..., start : start + inverse.shape[-1]] for start in (0, 1, 3, 4)
    )  # each [..., n]
    slack = threshold * inverse
    rises, falls = inverse - before, after - inverse
    between = (rises * falls > 0) & (rises.abs() > slack) & (falls.abs() > slack)
    leaves_before = (inverse - 2 * before + before2).abs() > slack  # false where a neighbour is unknown
    leaves_after = (inverse - 2 * after + after2).abs() > slack
    return between & leaves_before & leaves_after
