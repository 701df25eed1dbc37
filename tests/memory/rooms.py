"""Rooms whose depth is known in closed form, seen at latent resolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mirage_sim.geometry.cameras import make_intrinsics, ray_directions, rescale_intrinsics
from mirage_sim.geometry.poses import from_yaw_pitch
from mirage_sim.memory import MemoryConfig, SpatialMemory

HW = (16, 16)
CHANNELS = 4
INTRINSICS = rescale_intrinsics(make_intrinsics(128, 128, 75.0), 1 / 8)


def camera(x: float = 0.0, y: float = 0.0, yaw: float = 0.0, pitch: float = 0.0) -> Tensor:
    """Camera at eye height; `[4, 4]`."""
    return from_yaw_pitch(torch.tensor([x, y, 1.5]), yaw, pitch)


def intrinsics(*lead: int) -> Tensor:
    return INTRINSICS.expand(*lead, 3, 3)


def box_depth(
    cam2world: Tensor,  # [..., 4, 4]
    low: tuple[float, float, float] = (-4.0, -4.0, 0.0),
    high: tuple[float, float, float] = (4.0, 4.0, 3.0),
    hw: tuple[int, int] = HW,
    matrix: Tensor = INTRINSICS,
) -> Tensor:
    """Depth of a closed box seen from inside; `[..., h, w]`."""
    rays = ray_directions(cam2world, matrix.expand(*cam2world.shape[:-2], 3, 3), hw)
    start = cam2world[..., None, None, :3, 3]
    beyond = torch.where(rays > 0, torch.tensor(high), torch.tensor(low))
    steps = torch.where(rays == 0, torch.inf, (beyond - start) / rays)
    return steps.amin(-1)


def two_rooms_depth(cam2world: Tensor) -> Tensor:
    """Depth of a box with a wall at x = 0 that has a doorway in its middle; `[..., h, w]`."""
    outer = box_depth(cam2world, (-4.0, -2.0, 0.0), (6.0, 2.0, 3.0))
    rays = ray_directions(cam2world, INTRINSICS.expand(*cam2world.shape[:-2], 3, 3), HW)
    start = cam2world[..., None, None, :3, 3]
    wall = -start[..., 0] / rays[..., 0]
    y, z = (start[..., i] + wall * rays[..., i] for i in (1, 2))
    solid = (wall > 0) & ~((y.abs() < 0.5) & (z < 2.1))
    return torch.where(solid, torch.minimum(outer, wall), outer)


def latents(seed: int, *lead: int) -> Tensor:
    """Random latent frames that 16 bits hold exactly; `[*lead, C, h, w]`."""
    drawn = torch.randn(*lead, CHANNELS, *HW, generator=torch.Generator().manual_seed(seed))
    return drawn.half().float()


def memory(worlds: int = 1, **options: object) -> SpatialMemory:
    return SpatialMemory(MemoryConfig(channels=CHANNELS, **options), worlds)  # type: ignore[arg-type]


def circle(steps: int, radius: float = 1.5, turns: int = 3) -> Tensor:
    """Walk around a circle while turning; `[steps, 4, 4]`."""
    angles = [math.tau * step / steps for step in range(steps)]
    return torch.stack(
        [camera(radius * math.cos(angle), radius * math.sin(angle), turns * angle) for angle in angles]
    )
