"""Agents, plans: walks of n steps from where the camera stands, made of the geometry's trajectories.

A plan takes the present `cam2world` `[4, 4]` and a number of steps, and gives `cam2world` `[T, 4, 4]` that
begins with it. Sizes are chosen for furnished rooms, and shrink where few steps are left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mirage_sim.arrays import own_array
from mirage_sim.errors import InputError
from mirage_sim.geometry import (
    a_b_c_a,
    compose,
    from_yaw_pitch,
    make_pose,
    orbit,
    out_and_back,
    waypoints,
    yaw_pitch,
    yaw_return,
)

STEP_METRES = 0.125
"""Longest step that the default sizes ask for; half of what one relative action can do."""
STEP_DEGREES = 7.5
"""Largest turn that the default sizes ask for in one step."""


def plan_orbit(start: Tensor, steps: int, radius: float = 0.6, degrees: float = 360.0) -> Tensor:
    """Circle around a point ahead.

    Args:
        start: Present camera `[4, 4]`.
        steps: Number of moves.
        radius: Metres to the point.
        degrees: Angle to travel, at most what the steps allow.

    Returns:
        `cam2world` `[T, 4, 4]`.
    """
    most = min(STEP_DEGREES, math.degrees(STEP_METRES / radius)) * steps
    return orbit(start, radius, math.copysign(min(abs(degrees), most), degrees), steps)


def plan_yaw_return(start: Tensor, steps: int, degrees: float = 90.0) -> Tensor:
    """Turn on the spot and back through the same poses; see `plan_orbit`."""
    each_way = max(1, steps // 2)
    return yaw_return(start, math.copysign(min(abs(degrees), STEP_DEGREES * each_way), degrees), each_way)


def plan_out_and_back(start: Tensor, steps: int, distance: float = 1.5) -> Tensor:
    """Walk ahead and back through the same poses; see `plan_orbit`."""
    each_way = max(1, steps // 2)
    return out_and_back(start, math.copysign(min(abs(distance), STEP_METRES * each_way), distance), each_way)


def plan_a_b_c_a(start: Tensor, steps: int, size: float = 1.0, degrees: float = 40.0) -> Tensor:
    """Visit two other places, one ahead to the left and one ahead to the right, and return.

    Args:
        start: Present camera `[4, 4]`, the place A.
        steps: Number of moves.
        size: Metres from A to B and to C.
        degrees: How far B lies and looks to the left, and C to the right.

    Returns:
        `cam2world` `[T, 4, 4]`.
    """
    leg = max(1, steps // 3)
    size = min(size, STEP_METRES * leg)
    angle = math.radians(min(degrees, STEP_DEGREES * leg / 2))
    yaw, pitch = yaw_pitch(start)
    stops = []
    for sign in (1.0, -1.0):
        side = sign * math.radians(degrees) / 2
        move = torch.stack(((yaw + side).cos(), (yaw + side).sin(), torch.zeros_like(yaw)))  # [3]
        stops.append(from_yaw_pitch(start[:3, 3] + size * move, yaw + sign * angle, pitch))
    return a_b_c_a(start, stops[0], stops[1], leg)


def plan_waypoints(
    start: Tensor,
    steps: int,
    points: Sequence[Sequence[float]] = ((0.8, 0.0), (0.8, 0.8), (0.0, 0.8), (0.0, 0.0)),
) -> Tensor:
    """Walk from corner to corner, level, facing the way ahead.

    Args:
        start: Present camera `[4, 4]`.
        steps: Ignored; the corners decide.
        points: Corners as (ahead, left) of the start, in metres.

    Returns:
        `cam2world` `[T, 4, 4]`.

    Raises:
        InputError: If a corner has not two coordinates.
    """
    corners = torch.from_numpy(own_array("points", points)).float()  # [N, 2]
    if corners.ndim != 2 or corners.shape[1] != 2:
        raise InputError(f"points must be [N, 2] metres (ahead, left), got {list(corners.shape)}")
    yaw, _ = yaw_pitch(start)
    level = from_yaw_pitch(start[:3, 3], yaw)  # camera axes: x right, z ahead
    local = torch.stack(
        (-corners[:, 1], torch.zeros(len(corners), dtype=torch.float32, device="cpu"), corners[:, 0]), dim=-1
    )  # [N, 3]
    moved = compose(
        level.expand(len(corners), 4, 4),
        make_pose(torch.eye(3, dtype=torch.float32, device="cpu").expand(len(corners), 3, 3), local),
    )
    path = torch.cat((start[None, :3, 3], moved[:, :3, 3]))  # [N + 1, 3]
    walk = waypoints(path, STEP_METRES, math.radians(STEP_DEGREES), float(yaw))
    return torch.cat((start[None], walk[1:]))
