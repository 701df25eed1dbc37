"""Overlap: the step that chooses references, earlier views that saw the same place as the target will."""

from __future__ import annotations

import torch
from torch import Tensor

from mirage_sim.errors import InputError, check_shape
from mirage_sim.geometry.cameras import known_depth, unproject
from mirage_sim.memory.keyframes import KeyframeViews
from mirage_sim.memory.results import MemoryRead, References

_NONE = torch.iinfo(torch.int64).max
_AXIS_BITS = 20


def voxel_iou(
    points: Tensor,  # [B, P, 3]
    mask: Tensor,  # [B, P]
    candidates: Tensor,  # [B, K, Q, 3]
    candidates_mask: Tensor,  # [B, K, Q]
    voxel: float = 0.1,
) -> Tensor:
    """Compare the voxels that sets of points occupy: size of the intersection over size of the union.

    Args:
        points: World points `[B, P, 3]` in metres.
        mask: Boolean `[B, P]`, which of them count.
        candidates: World points `[B, K, Q, 3]` in metres, K sets to compare with.
        candidates_mask: Boolean `[B, K, Q]`, which of them count.
        voxel: Edge of a voxel in metres. About the spacing of the points or more; much finer voxels never
            meet.

    Returns:
        `[B, K]` in [0, 1]; 0 where both are empty.

    Raises:
        InputError: If a shape is wrong or the voxel is not positive.

    Source: paper, retrieval of references.
    """
    check_shape("points", points, ["B", "P", 3])
    worlds, count = points.shape[:2]
    check_shape("mask", mask, [worlds, count])
    check_shape("candidates", candidates, [worlds, "K", "Q", 3])
    check_shape("candidates_mask", candidates_mask, list(candidates.shape[:3]))
    if not voxel > 0:
        raise InputError(f"voxel must be positive metres, got {voxel}")
    ours, ours_first = _occupied(points, mask, voxel)  # [B, P]
    theirs, theirs_first = _occupied(candidates, candidates_mask, voxel)  # [B, K, Q]
    flat = theirs.flatten(1)  # [B, K*Q]
    place = torch.searchsorted(ours, flat).clamp(max=max(count - 1, 0))
    shared = (ours.gather(1, place) == flat) if count else torch.zeros_like(flat, dtype=torch.bool)
    both = (shared.reshape(theirs.shape) & theirs_first).sum(-1)  # [B, K]
    either = ours_first.sum(-1, keepdim=True) + theirs_first.sum(-1) - both
    return both / either.clamp(min=1)


@torch.no_grad()
def select_references(
    target: MemoryRead,
    views: KeyframeViews,
    cam2world: Tensor,  # [B, 4, 4]
    intrinsics: Tensor,  # [B, 3, 3]
    count: int,
    voxel: float = 0.1,
    threshold: float = 0.04,
) -> References:
    """Choose the keyframes whose surfaces overlap most with what the memory shows to the target.

    Args:
        target: What the memory shows to the target cameras, T = 1.
        views: Keyframes.
        cam2world: Target cameras `[B, 4, 4]`.
        intrinsics: Intrinsics `[B, 3, 3]` in latent cells.
        count: Number of references wanted.
        voxel: Edge of a voxel in metres, see `voxel_iou`.
        threshold: Least overlap of a reference.

    Returns:
        The references, the later view first among equals.

    Raises:
        InputError: If a shape is wrong or the count is negative.

    Source: paper, retrieval of references.
    """
    worlds = len(target.depth)
    check_shape("cam2world", cam2world, [worlds, 4, 4])
    check_shape("intrinsics", intrinsics, [worlds, 3, 3])
    points = unproject(target.depth[:, 0], cam2world, intrinsics).flatten(1, 2)  # [B, h*w, 3]
    known = known_depth(views.depth) & views.valid[..., None, None]
    seen = unproject(views.depth, views.cam2world, views.intrinsics).flatten(2, 3)  # [B, K, h*w, 3]
    overlap = voxel_iou(points, target.mask.flatten(1), seen, known.flatten(2), voxel)  # [B, K]
    return best_views(views, overlap, count, threshold)


def best_views(
    views: KeyframeViews,
    overlap: Tensor,  # [B, K]
    count: int,
    threshold: float,
) -> References:
    """Take the views that overlap most, the later one first among equals.

    Args:
        views: Kept views.
        overlap: Of each with the target.
        count: Number of references wanted.
        threshold: Least overlap of a reference.

    Returns:
        The references.

    Raises:
        InputError: If the count is negative.
    """
    if count < 0:
        raise InputError(f"count must be 0 or more, got {count}")
    overlap = torch.where(views.valid, overlap, -1.0)
    by_age = torch.argsort(views.order, dim=1, descending=True, stable=True)
    ranked = torch.argsort(overlap.gather(1, by_age), dim=1, descending=True, stable=True)[:, :count]
    index = by_age.gather(1, ranked)
    valid = overlap.gather(1, index) >= threshold
    missing = (0, count - index.shape[1])
    return References(
        views.latents, torch.nn.functional.pad(index, missing), torch.nn.functional.pad(valid, missing)
    )


def voxel_numbers(
    points: Tensor,  # [..., 3]
    voxel: float,
) -> Tensor:
    """Number the voxel that every point lies in.

    Args:
        points: World points in metres.
        voxel: Edge of a voxel in metres; points beyond half a million voxels from the origin share the last.

    Returns:
        int64 `[...]`.

    Source: ours.
    """
    half = 1 << (_AXIS_BITS - 1)
    x, y, z = ((points / voxel).floor().clamp(-half, half - 1).long() + half).unbind(-1)
    return (x << 2 * _AXIS_BITS) | (y << _AXIS_BITS) | z


def _occupied(points: Tensor, mask: Tensor, voxel: float) -> tuple[Tensor, Tensor]:
    """Number the voxels of points `[..., P, 3]`: sorted `[..., P]`, and which of them is a voxel's first."""
    number = voxel_numbers(torch.where(mask[..., None], points, 0.0), voxel)
    number = torch.where(mask, number, _NONE).sort(dim=-1).values
    first = torch.ones_like(mask)
    first[..., 1:] = number[..., 1:] != number[..., :-1]
    return number, first & (number != _NONE)
