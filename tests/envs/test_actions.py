import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mirage_sim.envs.actions import ActionConfig, make_actions, move_camera
from mirage_sim.errors import InputError, InputTypeError
from mirage_sim.geometry import check_pose, from_yaw_pitch, matrix_to_quat_wxyz, yaw_pitch

UNIT = st.floats(-1.0, 1.0, width=32)
START = from_yaw_pitch((1.0, 2.0, 1.4), 0.3, -0.1)[None]


def act(mode: str, action: Any, start: torch.Tensor = START) -> torch.Tensor:
    actions = make_actions(mode)
    return actions.targets(start, actions.parse("action", action, ()))[0]


@given(st.lists(UNIT, min_size=5, max_size=5))
def test_relative_motion_is_level_and_as_long_as_stated(values: list[float]) -> None:
    pose = act("relative", np.array(values, np.float32))
    check_pose("pose", pose)
    moved = (pose[:3, 3] - START[0, :3, 3]).norm()
    assert float(moved) == pytest.approx(0.25 * math.hypot(*values[:3]), abs=1e-5)
    assert abs(float(pose[2, 0])) < 1e-6, "the camera rolls"
    yaw, pitch = yaw_pitch(pose)
    assert float(yaw) == pytest.approx(0.3 + math.radians(15) * values[3], abs=1e-5)
    assert float(pitch) == pytest.approx(-0.1 + math.radians(15) * values[4], abs=1e-5)


def test_relative_axes() -> None:
    ahead = torch.tensor([math.cos(0.3), math.sin(0.3), 0.0])
    aside = torch.tensor([-math.sin(0.3), math.cos(0.3), 0.0])
    for axis, direction in enumerate((ahead, aside, torch.tensor([0.0, 0.0, 1.0]))):
        action = np.zeros(5, np.float32)
        action[axis] = 1.0
        torch.testing.assert_close(act("relative", action)[:3, 3] - START[0, :3, 3], 0.25 * direction)


@given(st.lists(st.sampled_from([3, 4]), min_size=1, max_size=12))
def test_pitch_stays_within_its_limit(actions: list[int]) -> None:
    pose = START
    for action in actions:
        pose = act("discrete", action, pose)[None]
    limit = ActionConfig().max_pitch
    assert abs(float(yaw_pitch(pose)[1])) <= limit + 1e-6


def test_discrete_turns_undo_each_other() -> None:
    pose = START
    for action in (0, 1, 3, 3, 4, 4, 2, 1, 2):
        pose = act("discrete", action, pose)[None]
    torch.testing.assert_close(pose[0, :3, :3], START[0, :3, :3], atol=1e-5, rtol=0.0)
    assert float((pose[0, :3, 3] - START[0, :3, 3]).norm()) == pytest.approx(0.25, abs=1e-5)


def test_only_stop_stops() -> None:
    actions = make_actions("discrete")
    assert actions.stops(np.arange(6)).tolist() == [False] * 5 + [True]
    assert not make_actions("relative").stops(np.zeros((2, 5))).any()
    torch.testing.assert_close(act("discrete", 5), START[0], atol=1e-6, rtol=0.0)


@given(st.floats(-3.0, 3.0), st.floats(-1.0, 1.0), st.floats(0.1, 1.0))
def test_a_pose_goes_where_it_says(yaw: float, pitch: float, length: float) -> None:
    wanted = from_yaw_pitch((3.0, -2.0, 1.0), yaw, pitch)
    quat_wxyz = length * matrix_to_quat_wxyz(wanted[:3, :3])
    action = torch.cat([wanted[:3, 3], quat_wxyz]).numpy().astype(np.float32)
    torch.testing.assert_close(act("pose", action), wanted, atol=1e-5, rtol=0.0)


def test_roll_is_lost() -> None:
    rolled = START.clone()
    turn = torch.tensor([[math.cos(0.4), -math.sin(0.4), 0], [math.sin(0.4), math.cos(0.4), 0], [0, 0, 1.0]])
    rolled[0, :3, :3] = rolled[0, :3, :3] @ turn
    torch.testing.assert_close(move_camera(rolled, torch.zeros(1, 5), 1.0), START, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("mode", ["relative", "pose"])
@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda a: a[:-1], InputError, "action must be"),
        (lambda a: a[None], InputError, "action must be"),
        (lambda a: a * np.nan, InputError, "finite"),
        (lambda a: a + 1000.0, InputError, "got 1000"),
        (lambda a: a.astype(bool), InputTypeError, "dtype bool"),
        (lambda a: ["left"] * len(a), InputTypeError, "numbers"),
        (lambda a: [[1.0], [1.0, 2.0]], InputTypeError, "array of numbers"),
        (lambda a: None, InputTypeError, "dtype object"),
    ],
)
def test_bad_box_actions(mode: str, change: Any, kind: type[Exception], said: str) -> None:
    actions = make_actions(mode)
    with pytest.raises(kind, match=said):
        actions.parse("action", change(np.zeros(actions.space.shape, np.float32)), ())


def test_a_pose_without_a_rotation() -> None:
    with pytest.raises(InputError, match="quat_wxyz"):
        make_actions("pose").parse("action", np.zeros(7, np.float32), ())


@pytest.mark.parametrize(
    ("action", "kind", "said"),
    [(6, InputError, "0..5, got 6"), (-1, InputError, "got -1"), (0.0, InputTypeError, "float64"),
     (True, InputTypeError, "bool"), ([1], InputError, r"got \[1\]")],
)  # fmt: skip
def test_bad_discrete_actions(action: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        make_actions("discrete").parse("action", action, ())


def test_a_batch_has_one_action_for_each_world() -> None:
    with pytest.raises(InputError, match=r"actions must be \[3, 5\], got \[2, 5\]"):
        make_actions("relative").parse("actions", np.zeros((2, 5), np.float32), (3,))
