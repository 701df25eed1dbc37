"""Walks: they begin where they should, return bit for bit, and keep their limits."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mirage_sim.errors import InputError, InputTypeError
from mirage_sim.geometry import (
    a_b_c_a,
    check_pose,
    from_yaw_pitch,
    make_intrinsics,
    orbit,
    out_and_back,
    project,
    waypoints,
    yaw_pitch,
    yaw_return,
    yaw_sweep,
)
from tests.conftest import Closeness
from tests.geometry.strategies import poses, upright

step_counts = st.integers(1, 12)
angles = st.floats(-400, 400)


def _turned(before: Tensor, after: Tensor) -> Tensor:
    """Give the angle between two headings, wrapped to [-pi, pi]."""
    return torch.remainder(yaw_pitch(after)[0] - yaw_pitch(before)[0] + math.pi, math.tau) - math.pi


@given(upright(), angles, step_counts)
def test_sweep_turns_on_the_spot(assert_close: Closeness, start: Tensor, degrees: float, steps: int) -> None:
    path = yaw_sweep(start, degrees, steps)
    assert path.shape == (steps + 1, 4, 4)
    assert torch.equal(path[0], start)
    check_pose("path", path)
    assert_close(path[:, :3, 3], start[:3, 3].expand(steps + 1, 3), scale=20)
    assert_close(path[:, 2], start[2].expand(steps + 1, 4), scale=20)  # tilt and roll stay
    wanted = math.remainder(math.radians(degrees), math.tau)
    error = math.remainder(float(_turned(start, path[-1])) - wanted, math.tau)
    assert abs(error) < 1e-3


def test_positive_sweep_turns_left(assert_close: Closeness) -> None:
    start = from_yaw_pitch([1.0, 2.0, 1.5], 0.2, -0.1)
    assert_close(yaw_sweep(start, 90, 4)[2], from_yaw_pitch([1.0, 2.0, 1.5], 0.2 + math.pi / 4, -0.1))


@given(upright(), st.floats(0.2, 5), angles, step_counts)
def test_orbit_keeps_its_centre_in_the_image(
    assert_close: Closeness, start: Tensor, radius: float, degrees: float, steps: int
) -> None:
    path = orbit(start, radius, degrees, steps)
    check_pose("path", path)
    assert torch.equal(path[0], start)
    yaw, _ = yaw_pitch(start)
    centre = start[:3, 3] + radius * torch.stack((yaw.cos(), yaw.sin(), torch.zeros(())))
    away = torch.linalg.vector_norm(path[:, :3, 3] - centre, dim=-1)
    assert_close(away, torch.full((steps + 1,), radius), scale=40)
    uv, _ = project(centre.expand(steps + 1, 1, 3), path, make_intrinsics(64, 64, 75))
    spread = float((uv - uv[:1]).abs().max())
    assert spread < 0.05 * max(1.0, float(uv[0].abs().max()) / 64)


@given(upright(), st.sampled_from((360.0, -360.0, 720.0)), step_counts)
def test_full_circles_end_on_the_start(start: Tensor, degrees: float, steps: int) -> None:
    assert torch.equal(orbit(start, 1.5, degrees, steps)[-1], start)
    assert torch.equal(yaw_sweep(start, degrees, steps)[-1], start)


@given(upright(), angles, st.floats(-3, 3), step_counts)
def test_return_retraces_its_way(start: Tensor, degrees: float, distance: float, steps: int) -> None:
    for path in (yaw_return(start, degrees, steps), out_and_back(start, distance, steps)):
        assert path.shape == (2 * steps + 1, 4, 4)
        assert torch.equal(path, path.flip(0))
        assert torch.equal(path[0], start)
        check_pose("path", path)


@given(upright(), st.floats(-3, 3), step_counts)
def test_out_and_back_walks_level_along_the_view(
    assert_close: Closeness, start: Tensor, distance: float, steps: int
) -> None:
    path = out_and_back(start, distance, steps)
    yaw, _ = yaw_pitch(start)
    far = start[:3, 3] + distance * torch.stack((yaw.cos(), yaw.sin(), torch.zeros(())))
    assert_close(path[steps, :3, 3], far, scale=20)
    assert torch.equal(path[:, :3, :3], start[:3, :3].expand(2 * steps + 1, 3, 3))
    gaps = torch.linalg.vector_norm(path[1:, :3, 3] - path[:-1, :3, 3], dim=-1)
    assert_close(gaps, torch.full_like(gaps, abs(distance) / steps), scale=20)


@given(st.data(), step_counts)
def test_a_b_c_a_meets_its_stops(data: st.DataObject, steps: int) -> None:
    a, b, c = (data.draw(poses()) for _ in range(3))
    path = a_b_c_a(a, b, c, steps)
    assert path.shape == (3 * steps + 1, 4, 4)
    for index, stop in enumerate((a, b, c, a)):
        assert torch.equal(path[index * steps], stop)
    check_pose("path", path)


corner_lists = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=6).filter(
    lambda corners: len(set(corners)) > 1
)


@given(corner_lists, st.floats(0.1, 2), st.floats(0.05, 3))
def test_waypoints_keep_to_the_line_and_the_limits(
    assert_close: Closeness, corners: list[tuple[int, int]], step_length: float, max_turn: float
) -> None:
    points = torch.tensor([(x, y, 1.5) for x, y in corners], dtype=torch.float32)
    path = waypoints(points, step_length, max_turn)
    check_pose("path", path)
    assert_close(path[0, :3, 3], points[0], scale=5)
    assert_close(path[-1, :3, 3], points[-1], scale=5)
    moves = path[1:, :3, 3] - path[:-1, :3, 3]
    lengths = torch.linalg.vector_norm(moves, dim=-1)
    turns = _turned(path[:-1], path[1:]).abs()
    assert float(lengths.max()) <= step_length + 1e-4
    assert float(turns.max()) <= max_turn + 1e-4
    moving = lengths > 1e-5
    assert bool((moving ^ (turns > 1e-5)).all())  # each step moves or turns
    ahead = (moves / lengths[:, None])[moving]
    assert_close(path[1:, :3, 2][moving], ahead, scale=100)  # and moves where it looks
    total = sum(math.dist(a, b) for a, b in pairwise(corners))
    assert float(lengths.sum()) == pytest.approx(total, abs=1e-3)


def test_waypoints_turn_the_short_way_from_a_given_heading(assert_close: Closeness) -> None:
    path = waypoints(torch.tensor([[0.0, 0, 1], [-1, 0, 1]]), 0.5, math.pi / 4, start_yaw=-0.75 * math.pi)
    wanted = torch.tensor([-0.75 * math.pi, -math.pi, -math.pi, -math.pi])
    assert_close(
        path, from_yaw_pitch(torch.tensor([[0.0, 0, 1], [0, 0, 1], [-0.5, 0, 1], [-1, 0, 1]]), wanted)
    )


def test_waypoints_keep_the_heading_on_a_vertical_leg() -> None:
    path = waypoints(torch.tensor([[0.0, 0, 0], [0, 2, 0], [0, 2, 1]]), 0.5, 0.3)
    assert path.shape == (7, 4, 4)
    assert float(yaw_pitch(path)[0].std()) < 1e-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: yaw_sweep(torch.eye(4).repeat(2, 1, 1), 90, 4), r"start must be \[4, 4\], got \[2, 4, 4\]"),
        (lambda: yaw_return(torch.eye(4), 90, 0), "steps must be at least 1, got 0"),
        (lambda: out_and_back(2 * torch.eye(4), 1, 4), "start must have the bottom row"),
        (lambda: orbit(torch.eye(4), 0, 90, 4), "radius must be positive metres, got 0"),
        (lambda: yaw_sweep(torch.eye(4), float("nan"), 4), "degrees must be finite, got nan"),
        (lambda: out_and_back(torch.eye(4), float("inf"), 4), "distance must be finite, got inf"),
        (lambda: a_b_c_a(torch.eye(4), torch.eye(4), torch.eye(3), 4), r"c must be \[4, 4\]"),
        (lambda: a_b_c_a(torch.eye(4), torch.eye(4), torch.eye(4), 0), "steps_per_leg must be at least 1"),
        (lambda: waypoints(torch.zeros(3, 2)), r"points must be \[N, 3\]"),
        (lambda: waypoints(torch.zeros(3, 3)), "at least two corners that differ"),
        (lambda: waypoints(torch.eye(3) * float("nan")), "points must be finite"),
        (lambda: waypoints(torch.eye(3), step_length=0), "step_length and max_turn must be positive"),
        (lambda: waypoints(torch.eye(3).long()), "points must have a floating dtype"),
        (lambda: waypoints(torch.eye(3), start_yaw=float("nan")), "start_yaw must be finite, got nan"),
    ],
)
def test_refuses_bad_arguments(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]


def test_refuses_other_types() -> None:
    with pytest.raises(InputTypeError, match="start must be a tensor or an array, got list"):
        yaw_sweep([[1.0]], 90, 4)  # type: ignore[arg-type]
