"""Camera walks: the step that turns "go there and come back" into the poses a world is asked to show.

Every walk is `cam2world` `[T, 4, 4]` and begins with the start pose itself, so a walk of n steps has n + 1
poses: the first is for `reset`, the others are for `step`. A walk that returns ends bit for bit on its start
pose, and one that retraces its way meets bit for bit the poses of the way out.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from mirage_sim.arrays import own_floats
from mirage_sim.errors import InputError, check_finite, check_shape
from mirage_sim.geometry.poses import (
    check_pose,
    compose,
    from_yaw_pitch,
    interpolate_poses,
    make_pose,
    yaw_pitch,
)


def orbit(
    start: Tensor,  # [4, 4]
    radius: float,
    degrees: float,
    steps: int,
) -> Tensor:
    """Circle around the point straight ahead, keeping it at the same place in the image.

    Args:
        start: First `cam2world` `[4, 4]`.
        radius: Horizontal distance in metres from the camera to the point circled.
        degrees: Angle to travel, positive counter-clockwise seen from above; 360 returns to the start.
        steps: Number of moves.

    Returns:
        `cam2world` `[steps + 1, 4, 4]`.

    Raises:
        InputError: If the pose is wrong, the radius is not positive or there is no step.

    Source: ours.
    """
    start = _checked_start(start, steps)
    _check_number("degrees", degrees)
    if not 0 < radius < math.inf:
        raise InputError(f"radius must be positive metres, got {radius}")
    return _turn(start, start[:3, 3].double() + radius * _heading(start), degrees, steps)


def yaw_sweep(
    start: Tensor,  # [4, 4]
    degrees: float,
    steps: int,
) -> Tensor:
    """Turn on the spot about the vertical axis.

    Args:
        start: First `cam2world` `[4, 4]`.
        degrees: Angle to turn, positive to the left; 360 returns to the start.
        steps: Number of moves.

    Returns:
        `cam2world` `[steps + 1, 4, 4]`.

    Raises:
        InputError: If the pose is wrong or there is no step.

    Source: ours.
    """
    start = _checked_start(start, steps)
    _check_number("degrees", degrees)
    return _turn(start, start[:3, 3].double(), degrees, steps)


def yaw_return(
    start: Tensor,  # [4, 4]
    degrees: float,
    steps: int,
) -> Tensor:
    """Turn on the spot and back through the same poses.

    Args:
        start: First and last `cam2world` `[4, 4]`.
        degrees: Angle to turn before turning back, positive to the left.
        steps: Number of moves each way.

    Returns:
        `cam2world` `[2 * steps + 1, 4, 4]`; pose `steps + i` equals pose `steps - i`.

    Raises:
        InputError: If the pose is wrong or there is no step.

    Source: ours.
    """
    return _and_back(yaw_sweep(start, degrees, steps))


def out_and_back(
    start: Tensor,  # [4, 4]
    distance: float,
    steps: int,
) -> Tensor:
    """Walk level in the direction of view and backwards through the same poses.

    Args:
        start: First and last `cam2world` `[4, 4]`.
        distance: Metres to walk before coming back; negative walks backwards first.
        steps: Number of moves each way.

    Returns:
        `cam2world` `[2 * steps + 1, 4, 4]`; pose `steps + i` equals pose `steps - i`.

    Raises:
        InputError: If the pose is wrong or there is no step.

    Source: ours.
    """
    start = _checked_start(start, steps)
    _check_number("distance", distance)
    along = torch.linspace(0, distance, steps + 1, dtype=torch.float64, device=start.device)  # [T]
    positions = start[:3, 3].double() + along[:, None] * _heading(start)  # [T, 3]
    return _and_back(make_pose(start[:3, :3], positions.to(start)))


def a_b_c_a(
    a: Tensor,  # [4, 4]
    b: Tensor,  # [4, 4]
    c: Tensor,  # [4, 4]
    steps_per_leg: int,
) -> Tensor:
    """Visit three poses and return to the first, in straight legs with evenly turning views.

    Args:
        a: First and last `cam2world` `[4, 4]`.
        b: Second `cam2world` `[4, 4]`.
        c: Third `cam2world` `[4, 4]`.
        steps_per_leg: Number of moves of each of the three legs.

    Returns:
        `cam2world` `[3 * steps_per_leg + 1, 4, 4]` that meets a, b, c and a bit for bit.

    Raises:
        InputError: If a pose is wrong or there is no step.

    Source: ours.
    """
    first, second, third = (_single_pose(name, place) for name, place in (("a", a), ("b", b), ("c", c)))
    _check_steps("steps_per_leg", steps_per_leg)
    stops = torch.stack((first, second, third, first))  # [4, 4, 4]
    times = torch.arange(4, dtype=torch.int64, device="cpu") * steps_per_leg
    path = interpolate_poses(
        stops, times, torch.arange(3 * steps_per_leg + 1, dtype=torch.int64, device="cpu")
    )  # [T, 4, 4]
    path[times.to(path.device)] = stops
    return path


def waypoints(
    points: Tensor,  # [N, 3]
    step_length: float = 0.25,
    max_turn: float = math.radians(15),
    start_yaw: float | None = None,
) -> Tensor:
    """Walk along a polyline, level and always facing the way ahead.

    The camera stays on the polyline, so a collision-free polyline is a collision-free walk: at a corner it
    turns on the spot, in equal turns, until it faces the next leg. Legs are walked in equal steps.

    Args:
        points: Corners `[N, 3]` in metres at camera height, at least two that differ; repeats count once.
        step_length: Longest step in metres.
        max_turn: Largest turn of one step in radians.
        start_yaw: Heading in radians before the first step; the first leg's if left out.

    Returns:
        `cam2world` `[T, 4, 4]` from the first corner to the last; each step either moves or turns. Legs that
        go straight up or down keep the heading.

    Raises:
        InputTypeError: If the points are no tensor or array.
        InputError: If the shape or dtype is wrong, a value is not finite, fewer than two corners differ or a
            limit is not positive.

    Source: ours.
    """
    points = own_floats("points", points)
    check_shape("points", points, ["N", 3])
    check_finite("points", points.float())
    if not (step_length > 0 and max_turn > 0):
        raise InputError(f"step_length and max_turn must be positive, got {step_length} and {max_turn}")
    if start_yaw is not None:
        _check_number("start_yaw", start_yaw)
    corners: list[list[float]] = points.detach().cpu().double().tolist()
    legs = [(a, b) for a, b in pairwise(corners) if math.dist(a, b) > 1e-6]
    if not legs:
        raise InputError(f"points must hold at least two corners that differ, got {corners}")
    headings = [math.atan2(b[1] - a[1], b[0] - a[0]) for a, b in legs if math.dist(a[:2], b[:2]) > 1e-6]
    yaw = start_yaw if start_yaw is not None else (headings or [0.0])[0]
    path = [(*legs[0][0], yaw)]
    for a, b in legs:
        if math.dist(a[:2], b[:2]) > 1e-6:
            turn = math.remainder(math.atan2(b[1] - a[1], b[0] - a[0]) - yaw, math.tau)
            turns = math.ceil(abs(turn) / max_turn - 1e-6)
            path += [(*a, yaw + turn * i / turns) for i in range(1, turns + 1)]
            yaw += turn
        moves = math.ceil(math.dist(a, b) / step_length - 1e-6)
        fractions = [i / moves for i in range(1, moves + 1)]
        path += [(*(p + (q - p) * f for p, q in zip(a, b, strict=True)), yaw) for f in fractions]
    walked = torch.tensor(path, dtype=torch.float64, device="cpu")  # [T, 4]: x, y, z, yaw
    return from_yaw_pitch(walked[:, :3], walked[:, 3]).to(points)


def _turn(
    start: Tensor,  # [4, 4]
    centre: Tensor,  # [3]
    degrees: float,
    steps: int,
) -> Tensor:
    """Carry a pose around the vertical axis through `centre`; `[steps + 1, 4, 4]`."""
    angles = torch.linspace(0, math.radians(degrees), steps + 1, dtype=torch.float64, device=start.device)
    sin, cos, zero = angles.sin(), angles.cos(), torch.zeros_like(angles)
    rows = ((cos, -sin, zero), (sin, cos, zero), (zero, zero, torch.ones_like(angles)))
    spin = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)  # [T, 3, 3]
    around = make_pose(spin, centre - (spin @ centre))  # [T, 4, 4]
    path = compose(around, start.double()).to(start)
    path[0] = start
    if math.remainder(degrees, 360) == 0:
        path[-1] = start
    return path


def _heading(start: Tensor) -> Tensor:
    """Give the level unit direction of view `[3]` of a pose `[4, 4]`, in float64."""
    yaw, _ = yaw_pitch(start.double())
    return torch.stack((yaw.cos(), yaw.sin(), torch.zeros_like(yaw)))


def _and_back(path: Tensor) -> Tensor:
    """Append the way back to a way out `[T, 4, 4]`; `[2 T - 1, 4, 4]`."""
    return torch.cat((path, path[:-1].flip(0)))


def _checked_start(start: Tensor, steps: int) -> Tensor:
    """Give the pose if a walk can begin there with this many steps."""
    pose = _single_pose("start", start)
    _check_steps("steps", steps)
    return pose


def _single_pose(name: str, cam2world: Tensor) -> Tensor:
    pose = own_floats(name, cam2world)
    check_shape(name, pose, [4, 4])
    return check_pose(name, pose)


def _check_steps(name: str, steps: int) -> None:
    """Raise unless there is at least one step."""
    if steps < 1:
        raise InputError(f"{name} must be at least 1, got {steps}")


def _check_number(name: str, value: float) -> None:
    """Raise unless a length or an angle is finite."""
    if not math.isfinite(value):
        raise InputError(f"{name} must be finite, got {value}")
