"""Steering: the environment's own actions take the camera where the steering says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_sim.agents.fitting import steering_for
from mirage_sim.envs.actions import ActionConfig, make_actions
from mirage_sim.geometry import from_yaw_pitch
from tests.agents.kinematics import CameraEnv

COORDINATE = st.floats(-3, 3)
LIMITS = ActionConfig()


def arrive(mode: str, present: torch.Tensor, target: torch.Tensor, view: bool, most: int) -> torch.Tensor:
    """Steer until the target is reached; the camera then."""
    steering, actions = steering_for(CameraEnv(mode)), make_actions(mode)
    for _ in range(most):
        move = steering.toward(present, target, view)
        if move.action is not None:
            assert actions.space.contains(move.action)
            present = actions.targets(present[None], actions.parse("action", move.action, ()))[0]
        if move.arrives:
            return present
    raise AssertionError(f"not there after {most} actions")


@settings(max_examples=30)
@given(
    x=COORDINATE, y=COORDINATE, yaw=st.floats(-3, 3), goal_yaw=st.floats(-3, 3), pitch=st.floats(-1.0, 1.0)
)
@pytest.mark.parametrize("mode", ["relative", "pose"])
def test_any_upright_pose_is_met_exactly(
    mode: str, x: float, y: float, yaw: float, goal_yaw: float, pitch: float
) -> None:
    start, target = from_yaw_pitch((0.0, 0.0, 1.5), yaw, 0.3), from_yaw_pitch((x, y, 1.2), goal_yaw, pitch)
    reached = arrive(mode, start, target, True, 60)
    torch.testing.assert_close(reached, target, rtol=0, atol=1e-5)


@settings(max_examples=25)
@given(x=COORDINATE, y=COORDINATE, yaw=st.floats(-3, 3), goal_yaw=st.floats(-3, 3))
def test_discrete_actions_come_within_a_step_and_a_turn(
    x: float, y: float, yaw: float, goal_yaw: float
) -> None:
    start, target = from_yaw_pitch((0.0, 0.0, 1.5), yaw, 0.3), from_yaw_pitch((x, y, 1.5), goal_yaw, -0.3)
    reached = arrive("discrete", start, target, True, 80)
    assert float(torch.dist(reached[:2, 3], target[:2, 3])) <= LIMITS.move
    forward = float(reached[:3, 2] @ target[:3, 2])
    assert forward >= math.cos(LIMITS.turn * 0.75)


def test_relative_motion_keeps_its_direction_when_it_is_cut() -> None:
    steering = steering_for(CameraEnv("relative"))
    move = steering.toward(from_yaw_pitch((0.0, 0.0, 0.0), 0.0), from_yaw_pitch((4.0, 2.0, 0.0), 0.0), True)
    np.testing.assert_allclose(move.action, [1.0, 0.5, 0.0, 0.0, 0.0], atol=1e-6)
    assert not move.arrives


def test_a_look_beyond_the_limit_is_met_as_far_as_it_goes() -> None:
    start, target = from_yaw_pitch((0.0, 0.0, 0.0), 0.0), from_yaw_pitch((0.0, 0.0, 0.0), 0.0, 1.5)
    reached = arrive("relative", start, target, True, 10)
    expected = from_yaw_pitch((0.0, 0.0, 0.0), 0.0, LIMITS.max_pitch)
    torch.testing.assert_close(reached, expected, rtol=0, atol=1e-5)
