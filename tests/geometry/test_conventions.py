"""Quaternions and camera axes: every conversion against its inverse and against SciPy or written-out axes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mirage_sim.errors import InputError
from mirage_sim.geometry import (
    cam2world_to_pybullet_view,
    check_pose,
    from_yaw_pitch,
    intrinsics_to_pybullet_projection,
    make_intrinsics,
    matrix_to_quat_wxyz,
    opencv_to_opengl,
    opencv_to_ros,
    opengl_to_opencv,
    pybullet_depth_to_metres,
    quat_wxyz_to_matrix,
    ros_to_opencv,
    wxyz_to_xyzw,
    xyzw_to_wxyz,
)
from tests.conftest import Closeness
from tests.geometry.strategies import batches, dtypes, poses, quats_wxyz


@given(st.data(), batches, dtypes)
def test_quaternion_matrix_round_trip(
    assert_close: Closeness, data: st.DataObject, batch: tuple[int, ...], dtype: torch.dtype
) -> None:
    quats = data.draw(quats_wxyz(batch)).to(dtype)
    rotation = quat_wxyz_to_matrix(quats)
    assert rotation.shape == (*batch, 3, 3)
    oracle = Rotation.from_quat(quats.double().reshape(-1, 4).numpy(), scalar_first=True).as_matrix()
    assert_close(rotation, torch.from_numpy(oracle).reshape(*batch, 3, 3).to(dtype), scale=10)
    back = matrix_to_quat_wxyz(rotation)
    assert (back[..., 0] >= 0).all()
    assert_close(torch.linalg.vector_norm(back, dim=-1), torch.ones(batch, dtype=dtype))
    assert_close(
        (back * quats).sum(-1).abs(), torch.ones(batch, dtype=dtype), scale=10
    )  # q and -q turn alike
    assert_close(quat_wxyz_to_matrix(back), rotation, scale=10)


@given(quats_wxyz((3,)), st.floats(0.01, 100))
def test_quaternion_length_does_not_matter(
    assert_close: Closeness, quats: torch.Tensor, length: float
) -> None:
    assert_close(quat_wxyz_to_matrix(-length * quats), quat_wxyz_to_matrix(quats), scale=100)


@pytest.mark.parametrize("axis", [a for a in itertools.product((-1, 0, 1), repeat=3) if any(a)])
@pytest.mark.parametrize("angle", [math.pi, math.pi - 1e-4, 1e-4, 2.0])
def test_hard_turns_survive_the_round_trip(
    assert_close: Closeness, axis: tuple[int, int, int], angle: float
) -> None:
    unit = torch.tensor(axis) / math.sqrt(sum(a * a for a in axis))
    rotation = torch.from_numpy(Rotation.from_rotvec((unit * angle).numpy()).as_matrix()).float()
    assert_close(quat_wxyz_to_matrix(matrix_to_quat_wxyz(rotation)), rotation)


@given(st.data(), batches)
def test_quaternion_orders(data: st.DataObject, batch: tuple[int, ...]) -> None:
    quats = data.draw(quats_wxyz(batch))
    swapped = wxyz_to_xyzw(quats)
    assert torch.equal(swapped[..., 3], quats[..., 0])
    assert torch.equal(swapped[..., :3], quats[..., 1:])
    assert torch.equal(xyzw_to_wxyz(swapped), quats)
    assert torch.equal(wxyz_to_xyzw(xyzw_to_wxyz(quats)), quats)


@given(st.data(), batches, dtypes)
def test_axes_round_trip(data: st.DataObject, batch: tuple[int, ...], dtype: torch.dtype) -> None:
    cam2world = data.draw(poses(batch, dtype))
    for there, back in ((opencv_to_opengl, opengl_to_opencv), (opencv_to_ros, ros_to_opencv)):
        other = there(cam2world)
        check_pose("other", other)
        assert torch.equal(other[..., :3, 3], cam2world[..., :3, 3])
        assert torch.equal(back(other), cam2world)
        assert torch.equal(there(back(cam2world)), cam2world)


@given(st.data(), dtypes)
def test_axes_mean_what_they_say(data: st.DataObject, dtype: torch.dtype) -> None:
    cam2world = data.draw(poses((), dtype))
    right, down, forward = cam2world[:3, :3].unbind(-1)
    opengl, ros = opencv_to_opengl(cam2world)[:3, :3], opencv_to_ros(cam2world)[:3, :3]
    assert torch.equal(opengl, torch.stack((right, -down, -forward), dim=-1))
    assert torch.equal(ros, torch.stack((forward, -right, -down), dim=-1))


def test_heading_zero_is_the_ros_identity(assert_close: Closeness) -> None:
    assert_close(opencv_to_ros(from_yaw_pitch([0.0, 0.0, 0.0], 0.0)), torch.eye(4))


@pytest.mark.parametrize(
    "call",
    [
        lambda: quat_wxyz_to_matrix(torch.zeros(4)),
        lambda: quat_wxyz_to_matrix(torch.tensor([1.0, 0, float("nan"), 0])),
        lambda: quat_wxyz_to_matrix(torch.ones(3)),
        lambda: matrix_to_quat_wxyz(torch.eye(4)),
        lambda: wxyz_to_xyzw(torch.ones(3)),
        lambda: xyzw_to_wxyz(torch.ones(5)),
        lambda: opencv_to_opengl(torch.eye(3)),
        lambda: opengl_to_opencv(torch.eye(3)),
        lambda: opencv_to_ros(torch.eye(3)),
        lambda: ros_to_opencv(torch.eye(3)),
        lambda: cam2world_to_pybullet_view(torch.eye(4).repeat(2, 1, 1)),
        lambda: intrinsics_to_pybullet_projection(torch.eye(4), 4, 4, 0.1, 1.0),
        lambda: intrinsics_to_pybullet_projection(make_intrinsics(4, 4, 60), 4, 4, 0.0, 1.0),
        lambda: pybullet_depth_to_metres(torch.ones(2), 2.0, 1.0),
    ],
)
def test_refuses_bad_arguments(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]
