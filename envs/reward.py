"""Reward of Explore-v1: surface that comes nearer than it was ever seen, accounted by place.

The account of a world holds voxels and how near each was seen, so nothing is paid for twice, however often it
is seen, forgotten and generated again. Between neighbouring cells of a depth map that lie on one surface, the
surface is taken to be flat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mirage_sim.errors import InputError
from mirage_sim.geometry import known_depth, unproject
from mirage_sim.memory.overlap import voxel_numbers

LEVEL_BITS = 3
LEVELS = 1 << LEVEL_BITS
"""Number of levels of nearness."""


@dataclass(frozen=True)
class RewardConfig:
    """What is paid.

    Attributes:
        reach: Metres from the camera within which surface counts.
        voxel: Edge of a voxel in metres; each voxel pays one of its faces at most.
        step_cost: Square metres that a step costs.
        steepest: Neighbouring cells lie on one surface if the larger depth is at most this much of the other.
        finest: Samples along a side of the patch between four cells, at most.
    """

    reach: float = 3.2
    voxel: float = 0.1
    step_cost: float = 0.1
    steepest: float = 1.4
    finest: int = 8


def nothing_paid(device: torch.device) -> Tensor:
    """The account of a world in which nothing was paid for yet, int64 [0]."""
    return torch.zeros(0, dtype=torch.int64, device=device)


def check_account(account: Any) -> Tensor:
    """Check the account of a saved world; raise `InputError` unless it is int64 [M], each voxel once."""
    if not isinstance(account, Tensor) or account.dtype != torch.int64 or account.dim() != 1:
        raise InputError(f"paid must be an int64 tensor [M], got {account!r}")
    voxels = account >> LEVEL_BITS
    if not bool((voxels[1:] > voxels[:-1]).all()):
        raise InputError("paid must be sorted, each voxel once")
    return account


@torch.no_grad()
def pay(
    account: Tensor,  # [M]
    depth: Tensor,  # [T, h, w]
    offset: Tensor,  # [T, 2, h, w]
    cam2world: Tensor,  # [T, 4, 4]
    intrinsics: Tensor,  # [3, 3]
    config: RewardConfig,
) -> tuple[float, Tensor]:
    """Pay for the surface that views of one world bring nearer than it ever was.

    A voxel is worth one of its faces, times how near it was seen: nothing at the end of the reach, all of it
    at the camera, in `LEVELS` steps. Who comes nearer is paid the difference. Depths of one surface scatter,
    so what was paid for the voxels before and behind counts, too.

    Args:
        account: Voxels seen in reach before, sorted, each with the nearest level in its last bits.
        depth: Z-depth in metres, 0 where there is no surface.
        offset: Where in its cell the surface of that depth lies, (u, v) from the cell's centre.
        cam2world: Cameras.
        intrinsics: In cells.
        config: What is paid.

    Returns:
        Square metres, and the account after it.
    """
    shares = (torch.arange(LEVELS + 1, device=account.device, dtype=torch.float32) - 0.5).clamp(
        min=0.0
    ) / LEVELS  # by level + 1
    worth = 0.0
    for t in range(len(depth)):
        points, normals = surface_samples(depth[t], offset[t], cam2world[t], intrinsics, config)
        distance = torch.linalg.vector_norm(points - cam2world[t, :3, 3], dim=-1)  # [P]
        level = ((1.0 - distance / config.reach) * LEVELS).floor().clamp(0, LEVELS - 1).long()
        aside = config.voxel * normals
        before = torch.stack(
            [_level(account, _voxels(near, config)) for near in (points, points + aside, points - aside)]
        ).amax(dim=0)
        entries = (_voxels(points, config) << LEVEL_BITS) | level
        _, nearest = _nearest(entries)
        gain = (shares[level + 1] - shares[before + 1]).clamp(min=0.0)[nearest]
        worth += config.voxel**2 * float(gain.double().sum())
        account, _ = _nearest(torch.cat([account, entries]))
    return worth, account


def _level(account: Tensor, voxels: Tensor) -> Tensor:
    """Nearest level of voxels [P] in an account, -1 for those that are not in it."""
    if not len(account):
        return torch.full_like(voxels, -1)
    last = (voxels << LEVEL_BITS) | (LEVELS - 1)
    found = account[(torch.searchsorted(account, last, right=True) - 1).clamp(min=0)]
    return torch.where(found >> LEVEL_BITS == voxels, found & (LEVELS - 1), -1)


def _nearest(entries: Tensor) -> tuple[Tensor, Tensor]:
    """The entry of every voxel with the nearest level, sorted, and which of the entries [M] these are."""
    ordered, place = entries.sort(stable=True)
    last = torch.ones_like(ordered, dtype=torch.bool)
    voxels = ordered >> LEVEL_BITS
    last[:-1] = voxels[1:] != voxels[:-1]
    return ordered[last], place[last]


def surface_samples(
    depth: Tensor,  # [h, w]
    offset: Tensor,  # [2, h, w]
    cam2world: Tensor,  # [4, 4]
    intrinsics: Tensor,  # [3, 3]
    config: RewardConfig,
) -> tuple[Tensor, Tensor]:
    """Sample the surface in reach, about as densely as voxels lie.

    Args:
        depth: Z-depth in metres, 0 where there is no surface.
        offset: Where in its cell the surface of that depth lies, (u, v) from the cell's centre.
        cam2world: Camera.
        intrinsics: In cells.
        config: Reach and voxels.

    Returns:
        Points [P, 3] in metres and unit normals [P, 3] of the surface there.
    """
    focal = (intrinsics[0, 0] * intrinsics[1, 1]).sqrt()
    split = math.ceil(2.0 * config.reach / (float(focal) * config.voxel))  # the floor is seen at an angle
    split = min(max(split, 1), config.finest)
    shift = offset * depth / torch.stack((intrinsics[0, 0], intrinsics[1, 1]))[:, None, None]  # [2, h, w]
    aside = shift[0, ..., None] * cam2world[:3, 0] + shift[1, ..., None] * cam2world[:3, 1]  # [h, w, 3]
    places = unproject(depth, cam2world, intrinsics) + aside
    a, b, c, d = _corners(places)  # each [h - 1, w - 1, 3]
    depths = torch.stack(_corners(torch.where(known_depth(depth), depth, torch.nan)))  # [4, h - 1, w - 1]
    flat = depths.amax(dim=0) <= config.steepest * depths.amin(dim=0)  # false where one is unknown
    normals = torch.nn.functional.normalize(torch.linalg.cross(d - a, c - b, dim=-1), dim=-1)
    share = (torch.arange(split, device=depth.device, dtype=torch.float32) + 0.5) / split  # [s]
    down, along = share[:, None, None, None, None], share[None, :, None, None, None]
    top, bottom = a + along * (b - a), c + along * (d - c)  # [1, s, h - 1, w - 1, 3]
    points = top + down * (bottom - top)  # [s, s, h - 1, w - 1, 3]
    near = torch.linalg.vector_norm(points - cam2world[:3, 3], dim=-1) <= config.reach
    chosen = near & flat
    return points[chosen], normals.expand(points.shape)[chosen]


def _corners(cells: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four cells around each patch: upper left and right, lower left and right."""
    return cells[:-1, :-1], cells[:-1, 1:], cells[1:, :-1], cells[1:, 1:]


def _voxels(points: Tensor, config: RewardConfig) -> Tensor:
    """Voxels of points; the floor, at height 0, lies in the middle of a layer."""
    return voxel_numbers(points + 0.5 * config.voxel, config.voxel)
