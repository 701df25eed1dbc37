"""Body of the agent in Explore-v1: a vertical cylinder that stands on the floor, and what stops it.

The floor is the plane at height 0 of the world, as the depth network takes it to be, too. What stands lower
than the body's foot, as the floor itself does, or higher than its head stops nobody. A surface between them
stops the body wherever it is: a window lets the view pass, the wall below its sill stops.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mirage_sim.memory import SurfacePatches
from mirage_sim.world import World


@dataclass(frozen=True)
class BodyConfig:
    """The body that is pushed along the motion.

    Attributes:
        radius: Metres of free space around its axis.
        foot: Height in metres above the floor where it begins.
        head: Height where it ends; it reaches `above` the camera where that is higher.
        above: Metres above the camera that belong to the body.
        lowest: Least height of the camera.
        thickness: Surfaces are as thick as their patch is wide, but no more than this many metres to each
            side, so that nobody slips between coarse patches of a wall seen at an angle.
        gap: Metres that are left to what stopped it.
    """

    radius: float = 0.15
    foot: float = 0.1
    head: float = 1.6
    above: float = 0.1
    lowest: float = 0.2
    thickness: float = 0.1
    gap: float = 1e-3


def swept_share(
    world: World,
    start: Tensor,  # [B, 4, 4]
    end: Tensor,  # [B, 4, 4]
    worlds: Tensor,  # [B]
    config: BodyConfig,
) -> Tensor:
    """Find which share of a straight motion the body can go.

    What was never seen stops nobody. What the body touches already does not hold it: it may leave or move
    along, but come no nearer.

    Args:
        world: The worlds.
        start: Present cameras, [B, 4, 4].
        end: Cameras asked for, [B, 4, 4].
        worlds: bool [B], which worlds move.
        config: The body.

    Returns:
        float64 [B] in [0, 1]; 1 for worlds that do not move.
    """
    free = torch.ones(len(start), dtype=torch.float64, device="cpu")
    motion = (end[:, :3, 3] - start[:, :3, 3]).double()  # [B, 3]
    for row in worlds.cpu().nonzero().flatten().tolist():
        if float(motion[row].norm()) > 1e-6:
            patches = world.memory.patches(row)
            free[row] = free_of_patches(patches, start[row, :3, 3].double(), motion[row], config)
    return free


@torch.no_grad()
def free_of_patches(
    patches: SurfacePatches,
    eye: Tensor,  # [3]
    motion: Tensor,  # [3]
    config: BodyConfig,
) -> float:
    """Find which share of a straight motion one world's surface leaves free.

    Args:
        patches: What the world's memory holds.
        eye: Present position of the camera, float64 in metres.
        motion: Where it is to go from there, float64 in metres, not 0.
        config: The body.

    Returns:
        Share in [0, 1].
    """
    places, half = patches.positions.double(), 0.5 * patches.footprint.double()  # [N, 3], [N]
    eye, motion = eye.to(places.device), motion.to(places.device)
    length, rise, height = float(motion.norm()), float(motion[2]), float(eye[2])
    tallest = max(config.head, height + max(rise, 0.0) + config.above)
    offset = places[:, :2] - eye[:2]  # [N, 2]
    near = offset.norm(dim=1) < length + config.radius + config.thickness + 2.0 * half
    near &= (places[:, 2] > config.foot) & (places[:, 2] < tallest)
    place, move, size = _seen_from_patches(
        offset[near], motion[:2], half[near], patches.view_dir[near].double()
    )
    margin = torch.stack((half[near].clamp(max=config.thickness), torch.zeros_like(half[near])), -1)
    margin = margin + config.radius  # [M, 2]
    # Patches beside the body stop it at once, patches overhead only if it rises to them.
    above = places[near, 2] - height  # [M]
    beside = places[near, 2] <= max(config.head, height)
    # What the body touches already is left as much room as it has now, before the patch or else beside it.
    ahead, aside = ((place.abs() - size) / margin).unbind(1)  # [M], shares of the margin
    room = torch.where(ahead > 0, ahead, aside) - config.gap
    room = torch.where(beside, room.clamp(max=1.0), 1.0)
    enter, leave = _contact(place, move, size + room[:, None] * margin)
    if rise > 0:
        lifted = ((above - config.above) / rise).clamp(min=0.0)
        enter = torch.where(beside, enter, torch.maximum(enter, lifted))
    met = (enter < leave) & (leave > 0) & (enter < 1) & (room > 0)
    share = 1.0
    if bool(met.any()):
        share = max(float(enter[met].amin()) - config.gap / length, 0.0)
    if rise < 0:
        share = min(share, max(height - config.lowest, 0.0) / -rise)
    return share


def _contact(
    place: Tensor,  # [M, 2]
    move: Tensor,  # [M, 2]
    half: Tensor,  # [M, 2]
) -> tuple[Tensor, Tensor]:
    """Shares [M] of a motion at which a point enters and leaves rectangles around the origin.

    Where it never is inside, it enters after it has left.
    """
    still = move.abs() < 1e-9
    speed = torch.where(still, 1.0, move)
    first, second = (-half - place) / speed, (half - place) / speed
    outside = place.abs() >= half
    never, always = torch.where(outside, torch.inf, -torch.inf), torch.where(outside, -torch.inf, torch.inf)
    enter = torch.where(still, never, torch.minimum(first, second)).amax(dim=1)
    leave = torch.where(still, always, torch.maximum(first, second)).amin(dim=1)
    return enter, leave


def _seen_from_patches(
    offset: Tensor,  # [M, 2]
    motion: Tensor,  # [2]
    half: Tensor,  # [M]
    view: Tensor,  # [M, 3]
) -> tuple[Tensor, Tensor, Tensor]:
    """The body's place and motion [M, 2] in the axes of every patch, and half the patch's size [M, 2] there.

    The axes lie in the floor plan, along the view in which the patch was written and across it. A patch faces
    its view: it is as wide as its footprint, and as deep as the view looked down or up.
    """
    flat = view[:, :2].norm(dim=1, keepdim=True)  # [M, 1]
    along = torch.where(flat > 1e-3, view[:, :2] / flat.clamp(min=1e-3), view.new_tensor([1.0, 0.0]))
    across = torch.stack((-along[:, 1], along[:, 0]), dim=-1)
    axes = torch.stack((along, across), dim=1)  # [M, 2, 2]
    size = torch.stack((half * view[:, 2].abs(), half), dim=-1)
    return -(axes * offset[:, None]).sum(-1), (axes * motion).sum(-1), size
