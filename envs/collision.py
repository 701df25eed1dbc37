"""Collision: how far a camera may go before it meets a surface that the memory holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mirage_sim.geometry import look_at, make_intrinsics
from mirage_sim.world import World


@dataclass(frozen=True)
class CollisionConfig:
    """The body that is pushed along the motion.

    Attributes:
        radius: Metres around the line of motion that must be free.
        widest_half: Half the footprint of an entry is added to the radius, so that nobody slips between
            coarse entries, but no more than this many metres.
        margin: Metres before a surface at which the camera stops; more than the radius, so that a camera that
            has stopped at a wall can walk along it, unless the wall was only seen from afar.
        cells: Rows and columns of the probe.
        fov_deg: Field of view of the probe, degrees.
    """

    radius: float = 0.1
    widest_half: float = 0.25
    margin: float = 0.3
    cells: int = 16
    fov_deg: float = 100.0


def free_share(
    world: World,
    start: Tensor,  # [B, 4, 4]
    end: Tensor,  # [B, 4, 4]
    worlds: Tensor,  # [B]
    config: CollisionConfig,
) -> Tensor:
    """Tell which share of a straight motion is free of remembered surfaces.

    A probe camera looks along the motion and reads the memory's depth; entries inside the tube of the body
    stop it. What was never seen stops nobody.

    Args:
        world: The worlds.
        start: Present cameras, [B, 4, 4].
        end: Cameras asked for, [B, 4, 4].
        worlds: bool [B], which worlds move.
        config: The body.

    Returns:
        float64 [B] in [0, 1]; 1 for worlds that do not move.

    Source: ours.
    """
    free = torch.ones(len(start), dtype=torch.float64, device="cpu")
    motion = (end[:, :3, 3] - start[:, :3, 3]).double()  # [B, 3]
    length = torch.linalg.vector_norm(motion, dim=-1)  # [B]
    moving = worlds.cpu() & (length > 1e-6)
    if not bool(moving.any()):
        return free
    ahead = torch.where(
        moving[:, None], motion / length.clamp(min=1e-6)[:, None], motion.new_tensor([1.0, 0, 0])
    )
    eye = start[:, :3, 3].double()
    probe = look_at(eye, eye + ahead).float()  # [B, 4, 4]
    lens = make_intrinsics(config.cells, config.cells, config.fov_deg)  # [3, 3]
    read = world.memory.read(
        probe[:, None].to(world.device),
        lens.expand(len(start), 1, 3, 3).to(world.device),
        (config.cells, config.cells),
        moving.to(world.device),
        touch=False,
    )
    depth, offset = read.depth[:, 0].cpu(), read.offset[:, 0].cpu()  # [B, n, n], [B, 2, n, n]
    centre = torch.arange(config.cells, dtype=torch.float32, device="cpu") + 0.5 - lens[0, 2]  # [n]
    across = (centre + offset[:, 0]) / lens[0, 0] * depth  # [B, n, n]
    down = (centre[:, None] + offset[:, 1]) / lens[1, 1] * depth
    footprint = read.log_scale[:, 0].cpu().exp() * depth / lens[0, 0]  # [B, n, n], metres
    radius = config.radius + (0.5 * footprint).clamp(max=config.widest_half)
    inside = read.mask[:, 0].cpu() & (torch.hypot(across, down) < radius)
    nearest = torch.where(inside, depth, torch.inf).flatten(1).amin(dim=1).double()  # [B]
    allowed = torch.minimum((nearest - config.margin).clamp(min=0.0), length)
    return torch.where(moving, allowed / length.clamp(min=1e-6), free)
