"""Rigid camera poses and every change of pose convention: the step that says where a camera stands and looks.

Poses are `cam2world` matrices `[..., 4, 4]` with OpenCV camera axes (x right, y down, z forward) in a world
whose z axis points up, in metres. Quaternions inside are `wxyz`; other conventions exist only at the border,
through the functions of `conventions`, which this module offers too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from mirage_sim.arrays import check_tensor, is_tensor, own_array, own_floats
from mirage_sim.errors import InputError, check_finite, check_shape
from mirage_sim.geometry.conventions import (
    cam2world_to_pybullet_view,
    intrinsics_to_pybullet_projection,
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

__all__ = [
    "cam2world_to_pybullet_view",
    "check_pose",
    "compose",
    "from_yaw_pitch",
    "interpolate_poses",
    "intrinsics_to_pybullet_projection",
    "invert",
    "look_at",
    "make_pose",
    "matrix_to_quat_wxyz",
    "opencv_to_opengl",
    "opencv_to_ros",
    "opengl_to_opencv",
    "pybullet_depth_to_metres",
    "quat_wxyz_to_matrix",
    "relative",
    "ros_to_opencv",
    "rotate",
    "wxyz_to_xyzw",
    "xyzw_to_wxyz",
    "yaw_pitch",
]

_ROTATION_TOLERANCE = 1e-3
_VERTICAL = 1e-3
"""Level part of a unit viewing direction below which the camera counts as looking straight up or down."""


def check_pose(name: str, cam2world: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """Raise unless `cam2world` holds rigid transforms, and give a copy of them.

    Args:
        name: Argument name for the message.
        cam2world: Poses `[..., 4, 4]`.

    Returns:
        A tensor of their dtype that shares no memory with them (see `own_floats`).

    Raises:
        InputTypeError: If it is no tensor or array.
        InputError: If the shape or dtype is wrong, a value is not finite, a rotation is not orthonormal
            within 1e-3 or mirrors, or a bottom row is not `(0, 0, 0, 1)`.

    Source: ours.
    """
    poses = own_floats(name, cam2world)
    check_shape(name, poses, ["...", 4, 4])
    check_finite(name, poses)
    matrix = poses.reshape(-1, 4, 4).double()  # [M, 4, 4]
    if not matrix.shape[0]:
        return poses
    bottom = matrix[:, 3] - matrix.new_tensor([0.0, 0.0, 0.0, 1.0])  # [M, 4]
    if float(bottom.abs().max()) > 1e-6:
        worst = matrix[int(bottom.abs().amax(dim=-1).argmax()), 3].tolist()
        raise InputError(f"{name} must have the bottom row (0, 0, 0, 1), got {worst}")
    rotation = matrix[:, :3, :3]  # [M, 3, 3]
    identity = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    error = float((rotation.mT @ rotation - identity).abs().max())
    if error > _ROTATION_TOLERANCE:
        raise InputError(f"{name} must hold rotations (R^T R = I within 1e-3), got an error of {error:.3g}")
    determinant = float(torch.linalg.det(rotation).min())
    if determinant < 0:
        raise InputError(
            f"{name} must hold proper rotations (determinant 1), got determinant {determinant:.3g}"
        )
    return poses


def rotate(
    rotation: Tensor,  # [..., 3, 3]
    vectors: Tensor,  # [..., 3]
) -> Tensor:
    """Rotate vectors by elementwise arithmetic, untouched by autocast, TF32 and batch size.

    Args:
        rotation: Rotation matrices `[..., 3, 3]`.
        vectors: Vectors `[..., 3]`; leading dimensions broadcast with the rotations'.

    Returns:
        `rotation @ vectors`, `[..., 3]`.

    Source: ours.
    """
    x, y, z = vectors[..., 0:1], vectors[..., 1:2], vectors[..., 2:3]  # [..., 1]
    return rotation[..., :, 0] * x + rotation[..., :, 1] * y + rotation[..., :, 2] * z


def make_pose(
    rotation: Tensor,  # [..., 3, 3]
    position: Tensor,  # [..., 3]
) -> Tensor:
    """Join a rotation and a position.

    Args:
        rotation: Camera-to-world rotations `[..., 3, 3]`.
        position: Camera positions `[..., 3]` in metres; leading dimensions broadcast.

    Returns:
        `cam2world` `[..., 4, 4]`.

    Raises:
        InputError: If a shape is wrong.

    Source: ours.
    """
    check_tensor("rotation", rotation, ["...", 3, 3])
    check_tensor("position", position, ["...", 3])
    lead = np.broadcast_shapes(rotation.shape[:-2], position.shape[:-1])
    top = torch.cat(
        (rotation.expand(*lead, 3, 3), position.expand(*lead, 3)[..., None]), dim=-1
    )  # [..., 3, 4]
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*lead, 1, 4)
    return torch.cat((top, bottom), dim=-2)  # [..., 4, 4]


def compose(
    first: Tensor,  # [..., 4, 4]
    second: Tensor,  # [..., 4, 4]
) -> Tensor:
    """Chain two transforms.

    Args:
        first: Outer transforms `[..., 4, 4]`, for example `cam2world`.
        second: Inner transforms `[..., 4, 4]`, for example a motion in camera axes.

    Returns:
        `first @ second`, `[..., 4, 4]`.

    Raises:
        InputError: If a shape is wrong.

    Source: ours.
    """
    check_tensor("first", first, ["...", 4, 4])
    check_tensor("second", second, ["...", 4, 4])
    outer = first[..., None, :3, :3]  # [..., 1, 3, 3]
    columns = rotate(outer, second[..., :3, :].mT)  # [..., 4, 3]: the second's columns, rotated
    return make_pose(columns[..., :3, :].mT, columns[..., 3, :] + first[..., :3, 3])


def invert(
    transform: Tensor,  # [..., 4, 4]
) -> Tensor:
    """Invert rigid transforms.

    Args:
        transform: Rigid transforms `[..., 4, 4]`, for example `cam2world`.

    Returns:
        The inverses `[..., 4, 4]`, for example `world2cam`.

    Raises:
        InputError: If the shape is wrong.

    Source: ours.
    """
    check_tensor("transform", transform, ["...", 4, 4])
    rotation = transform[..., :3, :3].mT  # [..., 3, 3]
    return make_pose(rotation, -rotate(rotation, transform[..., :3, 3]))


def relative(
    a_cam2world: Tensor,  # [..., 4, 4]
    b_cam2world: Tensor,  # [..., 4, 4]
) -> Tensor:
    """Express camera b in the axes of camera a.

    Args:
        a_cam2world: Poses `[..., 4, 4]`.
        b_cam2world: Poses `[..., 4, 4]`.

    Returns:
        `inverse(a) @ b`, `[..., 4, 4]`, so that `compose(a, relative(a, b))` is b.

    Raises:
        InputError: If a shape is wrong.

    Source: ours.
    """
    return compose(invert(a_cam2world), b_cam2world)


def look_at(
    eye: Tensor | Sequence[float],  # [..., 3]
    target: Tensor | Sequence[float],  # [..., 3]
    up: Tensor | Sequence[float] = (0.0, 0.0, 1.0),  # [..., 3]
) -> Tensor:
    """Place a camera that looks from one point at another.

    Args:
        eye: Camera positions `[..., 3]` in metres.
        target: Points to look at `[..., 3]` in metres.
        up: World direction `[..., 3]` that should point up in the image. A view along it falls back to an
            image whose right edge lies towards the world's -y (yaw 0), or +x if the view runs along y.

    Returns:
        `cam2world` `[..., 4, 4]`.

    Raises:
        InputError: If a shape is wrong, a value is not finite or eye and target coincide.

    Source: ours.
    """
    position = _vectors("eye", eye)
    upward = _vectors("up", up).to(position)
    offset = _vectors("target", target).to(position) - position  # [..., 3]
    distance = torch.linalg.vector_norm(offset, dim=-1, keepdim=True)  # [..., 1]
    if not bool((distance > 1e-6).all()):
        raise InputError(f"target must differ from eye, got a distance of {float(distance.min()):g} m")
    forward = offset / distance
    side = torch.linalg.cross(forward, upward.expand_as(forward))  # [..., 3]
    along_y = forward[..., 1:2].abs() > 0.9
    spare = torch.where(along_y, forward.new_tensor([1.0, 0.0, 0.0]), forward.new_tensor([0.0, -1.0, 0.0]))
    spare = spare - (spare * forward).sum(-1, keepdim=True) * forward
    parallel = torch.linalg.vector_norm(side, dim=-1, keepdim=True) < 1e-4 * torch.linalg.vector_norm(
        upward, dim=-1, keepdim=True
    ).clamp(min=1e-6)
    right = torch.nn.functional.normalize(torch.where(parallel, spare, side), dim=-1)
    down = torch.linalg.cross(forward, right)
    return make_pose(torch.stack((right, down, forward), dim=-1), position)


def from_yaw_pitch(
    position: Tensor | Sequence[float],  # [..., 3]
    yaw: Tensor | float,  # [...]
    pitch: Tensor | float = 0.0,  # [...]
) -> Tensor:
    """Place an upright camera by its heading.

    Args:
        position: Camera positions `[..., 3]` in metres.
        yaw: Heading `[...]` in radians; 0 looks along the world's +x, positive turns left.
        pitch: Elevation `[...]` in radians; positive looks up.

    Returns:
        `cam2world` `[..., 4, 4]` without roll.

    Raises:
        InputError: If a shape is wrong or a value is not finite.

    Source: ours.
    """
    places = _vectors("position", position)
    yaw_, pitch_ = _numbers("yaw", yaw).to(places), _numbers("pitch", pitch).to(places)
    lead = np.broadcast_shapes(yaw_.shape, pitch_.shape)
    yaw_, pitch_ = yaw_.expand(lead), pitch_.expand(lead)
    check_finite("yaw", yaw_)
    check_finite("pitch", pitch_)
    sin_yaw, cos_yaw, sin_pitch, cos_pitch = yaw_.sin(), yaw_.cos(), pitch_.sin(), pitch_.cos()
    right = torch.stack((sin_yaw, -cos_yaw, torch.zeros_like(yaw_)), dim=-1)  # [..., 3]
    down = torch.stack((sin_pitch * cos_yaw, sin_pitch * sin_yaw, -cos_pitch), dim=-1)
    forward = torch.stack((cos_pitch * cos_yaw, cos_pitch * sin_yaw, sin_pitch), dim=-1)
    return make_pose(torch.stack((right, down, forward), dim=-1), places)


def yaw_pitch(
    cam2world: Tensor,  # [..., 4, 4]
) -> tuple[Tensor, Tensor]:
    """Read heading and elevation from a pose, the inverse of `from_yaw_pitch`.

    Args:
        cam2world: Poses `[..., 4, 4]`; roll is ignored.

    Returns:
        `(yaw, pitch)`, each `[...]` in radians; yaw in [-pi, pi], pitch in [-pi/2, pi/2]. A camera that looks
        straight up or down takes its yaw from its right axis.

    Raises:
        InputError: If the shape is wrong.

    Source: ours.
    """
    check_tensor("cam2world", cam2world, ["...", 4, 4])
    forward, right = cam2world[..., :3, 2], cam2world[..., :3, 0]  # [..., 3]
    horizontal = torch.hypot(forward[..., 0], forward[..., 1])
    yaw = torch.where(
        horizontal > _VERTICAL,
        torch.atan2(forward[..., 1], forward[..., 0]),
        torch.atan2(right[..., 0], -right[..., 1]),
    )
    return yaw, torch.atan2(forward[..., 2], horizontal)


def interpolate_poses(
    cam2world: Tensor,  # [N, 4, 4]
    times: Tensor | Sequence[float],  # [N]
    query: Tensor | Sequence[float],  # [M]
) -> Tensor:
    """Interpolate poses: positions linearly, rotations along the shortest arc at constant speed.

    Args:
        cam2world: Key poses `[N, 4, 4]`, at least two.
        times: Strictly increasing times `[N]` of the key poses, in any unit.
        query: Times `[M]` to evaluate, within the range of `times`.

    Returns:
        `cam2world` `[M, 4, 4]` with the device and dtype of the key poses.

    Raises:
        InputError: If a shape or a pose is wrong, times do not increase or a query lies outside.

    Source: ours (SciPy's Slerp).
    """
    check_tensor("cam2world", cam2world, ["N", 4, 4])
    check_pose("cam2world", cam2world)
    count = cam2world.shape[0]
    known = own_array("times", times).astype(np.float64)  # [N]
    wanted = own_array("query", query).astype(np.float64)  # [M]
    check_shape("times", known, [count])
    check_shape("query", wanted, ["M"])
    if count < 2 or not bool((np.diff(known) > 0).all()):
        raise InputError(f"times must be at least two and strictly increasing, got {known.tolist()}")
    if not bool(((wanted >= known[0]) & (wanted <= known[-1])).all()):
        raise InputError(f"query must lie between {known[0]:g} and {known[-1]:g}, got {wanted.tolist()}")
    keys = cam2world.detach().cpu().double().numpy()
    rotation = Slerp(known, Rotation.from_matrix(keys[:, :3, :3]))(wanted).as_matrix()  # [M, 3, 3]
    position = np.stack([np.interp(wanted, known, keys[:, axis, 3]) for axis in range(3)], axis=-1)  # [M, 3]
    return make_pose(torch.from_numpy(rotation).to(cam2world), torch.from_numpy(position).to(cam2world))


def _vectors(name: str, value: Tensor | Sequence[float]) -> Tensor:
    """Read finite vectors `[..., 3]`; anything but a floating tensor becomes float32."""
    tensor = _numbers(name, value)
    if not (is_tensor(value) and value.is_floating_point()):
        tensor = tensor.float()
    check_shape(name, tensor, ["...", 3])
    check_finite(name, tensor)
    return tensor


def _numbers(name: str, value: Tensor | Sequence[float] | float) -> Tensor:
    """Read numbers `[...]`; a tensor stays as it is, with its gradients."""
    return value if is_tensor(value) else torch.from_numpy(own_array(name, value))
