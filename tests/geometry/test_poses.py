"""Pose algebra, headings, interpolation and the check of poses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from mirage_sim.errors import InputError, InputTypeError, MirageError
from mirage_sim.geometry import (
    check_pose,
    compose,
    from_yaw_pitch,
    interpolate_poses,
    invert,
    look_at,
    make_pose,
    project,
    relative,
    rotate,
    yaw_pitch,
)
from tests.conftest import Closeness
from tests.geometry.strategies import batches, coordinates, dtypes, pitches, poses, upright, yaws

NAN = float("nan")


@given(st.data(), batches, dtypes)
def test_algebra_matches_matrices(
    assert_close: Closeness, data: st.DataObject, batch: tuple[int, ...], dtype: torch.dtype
) -> None:
    a, b = data.draw(poses(batch, dtype)), data.draw(poses(batch, dtype))
    assert_close(compose(a, b), a @ b, scale=40)
    assert_close(invert(a), torch.linalg.inv(a.double()).to(dtype), scale=40)
    assert_close(rotate(a[..., :3, :3], b[..., :3, 3]), (a[..., :3, :3] @ b[..., :3, 3:])[..., 0], scale=40)


@given(st.data(), batches, dtypes)
def test_poses_form_a_group(
    assert_close: Closeness, data: st.DataObject, batch: tuple[int, ...], dtype: torch.dtype
) -> None:
    a, b, c = (data.draw(poses(batch, dtype)) for _ in range(3))
    assert_close(compose(a, invert(a)), torch.eye(4, dtype=dtype).expand_as(a), scale=40)
    assert_close(invert(invert(a)), a, scale=40)
    assert_close(compose(compose(a, b), c), compose(a, compose(b, c)), scale=100)
    assert_close(compose(a, relative(a, b)), b, scale=100)
    check_pose("composed", compose(compose(a, b), invert(c)))


def test_leading_dimensions_broadcast() -> None:
    rotation, position = torch.eye(3), torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    many = make_pose(rotation, position)
    assert many.shape == (2, 5, 4, 4)
    assert compose(many, many[0, 0]).shape == (2, 5, 4, 4)
    assert compose(many[:, :1], many).shape == (2, 5, 4, 4)
    assert from_yaw_pitch(position, torch.zeros(5), torch.zeros(2, 1)).shape == (2, 5, 4, 4)


def test_heading_axes(assert_close: Closeness) -> None:
    level = from_yaw_pitch([1.0, 2.0, 3.0], 0.0)
    assert level.dtype == torch.float32
    expected = torch.tensor([[0.0, 0, 1, 1], [-1, 0, 0, 2], [0, -1, 0, 3], [0, 0, 0, 1]])
    assert_close(level, expected)
    left = from_yaw_pitch([0.0, 0.0, 0.0], math.pi / 2)
    assert_close(left[:3, 2], torch.tensor([0.0, 1.0, 0.0]))
    raised = from_yaw_pitch([0.0, 0.0, 0.0], 0.0, 0.3)
    assert float(raised[2, 2]) == pytest.approx(math.sin(0.3))


@given(yaws, pitches, st.tuples(coordinates, coordinates, coordinates))
def test_heading_round_trip(
    assert_close: Closeness, yaw: float, pitch: float, position: tuple[float, float, float]
) -> None:
    cam2world = from_yaw_pitch(position, yaw, pitch)
    check_pose("cam2world", cam2world)
    found_yaw, found_pitch = yaw_pitch(cam2world)
    assert_close(found_yaw, torch.tensor(yaw), scale=10)
    assert_close(found_pitch, torch.tensor(pitch), scale=10)
    assert_close(from_yaw_pitch(cam2world[:3, 3], found_yaw, found_pitch), cam2world, scale=10)


@given(upright())
def test_heading_matches_euler_angles(assert_close: Closeness, cam2world: Tensor) -> None:
    yaw, pitch = yaw_pitch(cam2world)
    assert_close(from_yaw_pitch(cam2world[:3, 3], yaw, pitch), cam2world, scale=20)


@pytest.mark.parametrize("pitch", [math.pi / 2, -math.pi / 2])
def test_heading_survives_a_vertical_view(pitch: float) -> None:
    yaw, found = yaw_pitch(from_yaw_pitch([0.0, 0.0, 0.0], 1.2, pitch))
    assert float(yaw) == pytest.approx(1.2, abs=1e-3)
    assert float(found) == pytest.approx(pitch, abs=1e-3)


@given(st.data(), dtypes)
def test_look_at_centres_the_target(assert_close: Closeness, data: st.DataObject, dtype: torch.dtype) -> None:
    points = [[data.draw(coordinates) for _ in range(3)] for _ in range(2)]
    eye, target = (torch.tensor(point, dtype=dtype) for point in points)
    distance = torch.linalg.vector_norm(target - eye)
    if float(distance) < 0.5:
        target = eye + torch.tensor([1.0, 0.0, 0.0], dtype=dtype)
        distance = torch.ones((), dtype=dtype)
    cam2world = look_at(eye, target)
    check_pose("cam2world", cam2world)
    intrinsics = torch.tensor([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]], dtype=dtype)
    uv, depth = project(target[None], cam2world, intrinsics)
    assert_close(uv[0], torch.tensor([50.0, 40.0], dtype=dtype), scale=20 * 100 / 0.5)
    assert_close(depth[0], distance, scale=40)
    assert abs(float(cam2world[2, 0])) < 1e-3  # no roll
    assert float(cam2world[2, 1]) < 1e-3  # the image's top is up


@pytest.mark.parametrize("pitch", [math.pi / 2, -math.pi / 2])
def test_look_at_along_up_is_heading_zero(assert_close: Closeness, pitch: float) -> None:
    target = [0.0, 0.0, math.copysign(1.0, pitch)]
    assert_close(look_at([0.0, 0.0, 0.0], target), from_yaw_pitch([0.0, 0.0, 0.0], 0.0, pitch))


def test_look_at_takes_another_up() -> None:
    check_pose("along", look_at([0.0, 0.0, 0.0], [0.0, 1.0, 0.0], up=[0.0, 1.0, 0.0]))
    batch = look_at(torch.zeros(3), torch.eye(3), up=torch.eye(3).roll(1, dims=0))
    assert batch.shape == (3, 4, 4)
    check_pose("batch", batch)


@given(st.data(), st.integers(2, 4))
def test_interpolation_meets_its_keys(assert_close: Closeness, data: st.DataObject, count: int) -> None:
    keys = data.draw(poses((count,)))
    times = torch.arange(count) * 0.7
    assert_close(interpolate_poses(keys, times, times), keys, scale=20)
    between = interpolate_poses(keys, times, torch.linspace(0, float(times[-1]), 9))
    check_pose("between", between)
    assert between.dtype == torch.float32


@given(yaws, st.floats(-3, 3), st.floats(0, 1))
def test_interpolation_turns_at_constant_speed(
    assert_close: Closeness, yaw: float, turn: float, fraction: float
) -> None:
    ends = from_yaw_pitch(torch.tensor([[0.0, 0, 1], [2, 4, 1]]), torch.tensor([yaw, yaw + turn]))
    middle = interpolate_poses(ends, [0.0, 2.0], [2 * fraction])[0]
    wanted = from_yaw_pitch([2 * fraction, 4 * fraction, 1.0], yaw + fraction * turn)
    assert_close(middle, wanted, scale=10)


@pytest.mark.parametrize(
    ("times", "query"),
    [([0.0, 0.0], [0.0]), ([1.0, 0.0], [0.5]), ([0.0, 1.0], [1.1]), ([0.0, 1.0], [NAN]), ([0.0], [0.0])],
)
def test_interpolation_refuses_bad_times(times: list[float], query: list[float]) -> None:
    with pytest.raises(InputError):
        interpolate_poses(torch.eye(4).repeat(2, 1, 1), times, query)


@given(st.data(), batches, dtypes)
def test_accepts_poses(data: st.DataObject, batch: tuple[int, ...], dtype: torch.dtype) -> None:
    cam2world = data.draw(poses(batch, dtype))
    check_pose("cam2world", cam2world)
    check_pose("cam2world", cam2world.numpy())
    check_pose("cam2world", cam2world[..., None, :, :][..., :0, :, :])


def _set(row: int, column: int, value: float) -> Tensor:
    cam2world = torch.eye(4).repeat(3, 1, 1)
    cam2world[1, row, column] = value
    return cam2world


@pytest.mark.parametrize(
    ("cam2world", "message"),
    [
        (torch.eye(3), r"cam2world must be \[..., 4, 4\], got \[3, 3\]"),
        (torch.eye(4).repeat(2, 1, 1)[:, :3], r"got \[2, 3, 4\]"),
        (torch.eye(4, dtype=torch.int32), "floating dtype, got torch.int32"),
        (_set(0, 3, NAN), "finite, got 1 NaN or infinite"),
        (_set(2, 2, float("inf")), "finite"),
        (_set(0, 0, 1.01), "rotations .* got an error of 0.0201"),
        (_set(1, 0, 0.01), "rotations"),
        (_set(0, 0, -1.0), "proper rotations .* determinant -1"),
        (_set(3, 0, 0.5), r"bottom row \(0, 0, 0, 1\), got \[0.5, 0.0, 0.0, 1.0\]"),
        (_set(3, 3, 2.0), "bottom row"),
        (torch.zeros(4, 4), "bottom row"),
        (-torch.eye(4), "bottom row"),
    ],
)
def test_refuses_what_is_no_pose(cam2world: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_pose("cam2world", cam2world)
    assert isinstance(caught.value, MirageError)
    assert isinstance(caught.value, ValueError)


def test_tolerates_rounding_only() -> None:
    tilted = Rotation.from_euler("xyz", [0.3, -0.2, 1.0]).as_matrix()
    cam2world = np.eye(4)
    cam2world[:3, :3] = tilted.round(4)
    check_pose("cam2world", cam2world)
    cam2world[:3, :3] = tilted.round(2)
    with pytest.raises(InputError, match="rotations"):
        check_pose("cam2world", cam2world)


@pytest.mark.parametrize(
    "call",
    [
        lambda: look_at([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
        lambda: look_at([1.0, NAN, 1.0], [1.0, 1.0, 1.0]),
        lambda: look_at([1.0, 1.0], [1.0, 1.0]),
        lambda: from_yaw_pitch([0.0, 0.0, 0.0], NAN),
        lambda: make_pose(torch.eye(4), torch.zeros(3)),
        lambda: make_pose(torch.eye(3), torch.zeros(4)),
        lambda: compose(torch.eye(3), torch.eye(4)),
        lambda: invert(torch.eye(3)),
    ],
)
def test_refuses_bad_arguments(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]


def test_refuses_other_types() -> None:
    with pytest.raises(InputTypeError, match="cam2world must be a tensor or an array, got list"):
        check_pose("cam2world", [[1.0]])  # type: ignore[arg-type]
