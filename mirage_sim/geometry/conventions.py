"""Conversions at the border: quaternion orders, and the camera axes of OpenGL, ROS and PyBullet.

Inside, poses have OpenCV camera axes and quaternions are `wxyz`; whatever comes from or goes to another
library passes through here once. The world keeps its axes (z up, metres): only the camera's own are renamed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mirage_sim.arrays import check_tensor
from mirage_sim.errors import InputError

_NOTHING_DRAWN = 1 - 5e-7
"""Depth buffer value from which on a pixel is empty: PyBullet leaves up to two float steps less than 1."""


def quat_wxyz_to_matrix(
    quat_wxyz: Tensor,  # [..., 4]
) -> Tensor:
    """Turn quaternions into rotation matrices.

    Args:
        quat_wxyz: Quaternions `[..., 4]`, scalar first, of any length but zero.

    Returns:
        Rotation matrices `[..., 3, 3]`.

    Raises:
        InputError: If the shape is wrong or a quaternion is zero or not finite.

    Source: ours.
    """
    check_tensor("quat_wxyz", quat_wxyz, ["...", 4])
    length = torch.linalg.vector_norm(quat_wxyz, dim=-1, keepdim=True)  # [..., 1]
    if not bool(((length > 1e-6) & torch.isfinite(length)).all()):
        raise InputError(
            f"quat_wxyz must be finite and not zero, got lengths {length.flatten().tolist()[:8]}"
        )
    w, x, y, z = (quat_wxyz / length).unbind(-1)  # each [...]
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)  # [..., 3, 3]


def matrix_to_quat_wxyz(
    rotation: Tensor,  # [..., 3, 3]
) -> Tensor:
    """Turn rotation matrices into unit quaternions.

    The sums and differences of a rotation's entries are the products of its quaternion's components. Of those
    sixteen products the row with the largest square is the best conditioned, and normalised it is the answer.

    Args:
        rotation: Rotation matrices `[..., 3, 3]`.

    Returns:
        Unit quaternions `[..., 4]`, scalar first and not negative.

    Raises:
        InputError: If the shape is wrong.

    Source: ours.
    """
    check_tensor("rotation", rotation, ["...", 3, 3])
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = rotation.flatten(-2).unbind(-1)  # each [...]
    wx, wy, wz = m21 - m12, m02 - m20, m10 - m01
    xy, xz, yz = m10 + m01, m02 + m20, m21 + m12
    ww, xx = 1 + m00 + m11 + m22, 1 + m00 - m11 - m22
    yy, zz = 1 - m00 + m11 - m22, 1 - m00 - m11 + m22
    rows = ((ww, wx, wy, wz), (wx, xx, xy, xz), (wy, xy, yy, yz), (wz, xz, yz, zz))
    products = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)  # [..., 4, 4]
    best = torch.stack((ww, xx, yy, zz), dim=-1).argmax(dim=-1)  # [...]
    index = best[..., None, None].expand(*best.shape, 1, 4)
    quat_wxyz = torch.nn.functional.normalize(products.gather(-2, index).squeeze(-2), dim=-1)  # [..., 4]
    return torch.where(quat_wxyz[..., :1] < 0, -quat_wxyz, quat_wxyz)


def wxyz_to_xyzw(
    quat_wxyz: Tensor,  # [..., 4]
) -> Tensor:
    """Reorder quaternions for PyBullet, SciPy and ROS messages.

    Args:
        quat_wxyz: Quaternions `[..., 4]`, scalar first.

    Returns:
        The same quaternions `[..., 4]`, scalar last.

    Raises:
        InputError: If the shape is wrong.

    Source: ours.
    """
    check_tensor("quat_wxyz", quat_wxyz, ["...", 4])
    return quat_wxyz.roll(-1, dims=-1)


def xyzw_to_wxyz(
    quat_xyzw: Tensor,  # [..., 4]
) -> Tensor:
    """Reorder quaternions that come from PyBullet, SciPy or ROS messages.

    Args:
        quat_xyzw: Quaternions `[..., 4]`, scalar last.

    Returns:
        The same quaternions `[..., 4]`, scalar first.

    Raises:
        InputError: If the shape is wrong.

    Source: ours.
    """
    check_tensor("quat_xyzw", quat_xyzw, ["...", 4])
    return quat_xyzw.roll(1, dims=-1)


def opencv_to_opengl(
    cam2world: Tensor,  # [..., 4, 4]
) -> Tensor:
    """Give a pose OpenGL's camera axes: x right, y up, z backward (also Blender's and NeRF's).

    Args:
        cam2world: Poses `[..., 4, 4]` with OpenCV camera axes.

    Returns:
        The same cameras `[..., 4, 4]` with OpenGL camera axes.

    Raises:
        InputError: If the shape is wrong.

    Source: ours.
    """
    check_tensor("cam2world", cam2world, ["...", 4, 4])
    return cam2world * cam2world.new_tensor([1.0, -1.0, -1.0, 1.0])  # flips the columns of y and z


def opengl_to_opencv(
    cam2world_opengl: Tensor,  # [..., 4, 4]
) -> Tensor:
    """Give a pose with OpenGL camera axes OpenCV's.

    Args:
        cam2world_opengl: Poses `[..., 4, 4]` with camera axes x right, y up, z backward.

    Returns:
        `cam2world` `[..., 4, 4]` with OpenCV camera axes.

    Raises:
        InputError: If the shape is wrong.

    Source: ours.
    """
    check_tensor("cam2world_opengl", cam2world_opengl, ["...", 4, 4])
    return opencv_to_opengl(cam2world_opengl)  # its own inverse


def opencv_to_ros(
    cam2world: Tensor,  # [..., 4, 4]
) -> Tensor:
    """Give a pose the axes of a ROS body frame: x forward, y left, z up.

    A ROS optical frame has OpenCV's axes and needs no conversion.

    Args:
        cam2world: Poses `[..., 4, 4]` with OpenCV camera axes.

    Returns:
        The same cameras `[..., 4, 4]` as body frames.

    Raises:
        InputError: If the shape is wrong.

    Source: ours.
    """
    check_tensor("cam2world", cam2world, ["...", 4, 4])
    right, down, forward, position = cam2world.unbind(-1)  # each [..., 4]
    return torch.stack((forward, -right, -down, position), dim=-1)


def ros_to_opencv(
    cam2world_ros: Tensor,  # [..., 4, 4]
) -> Tensor:
    """Give a ROS body frame OpenCV's camera axes.

    Args:
        cam2world_ros: Poses `[..., 4, 4]` with axes x forward, y left, z up.

    Returns:
        `cam2world` `[..., 4, 4]` with OpenCV camera axes.

    Raises:
        InputError: If the shape is wrong.

    Source: ours.
    """
    check_tensor("cam2world_ros", cam2world_ros, ["...", 4, 4])
    forward, left, up, position = cam2world_ros.unbind(-1)  # each [..., 4]
    return torch.stack((-left, -up, forward, position), dim=-1)


def cam2world_to_pybullet_view(
    cam2world: Tensor,  # [4, 4]
) -> list[float]:
    """Build the view matrix that PyBullet renders this camera with.

    Args:
        cam2world: One pose `[4, 4]` with OpenCV camera axes.

    Returns:
        The 16 entries of the world-to-camera matrix in OpenGL axes, column by column.

    Raises:
        InputError: If the shape is wrong.

    Source: ours.
    """
    check_tensor("cam2world", cam2world, [4, 4])
    camera = opencv_to_opengl(cam2world.detach().cpu().double())  # [4, 4]
    view = torch.eye(4, dtype=torch.float64, device="cpu")
    view[:3, :3] = camera[:3, :3].mT
    view[:3, 3] = -camera[:3, :3].mT @ camera[:3, 3]
    return _column_major(view)


def intrinsics_to_pybullet_projection(
    intrinsics: Tensor,  # [3, 3]
    height: int,
    width: int,
    near: float,
    far: float,
    tiny_renderer: bool = True,
) -> list[float]:
    """Build the projection matrix that PyBullet renders these intrinsics with.

    PyBullet's software renderer samples a pixel at its lower left corner rather than at its centre. Without
    the half-pixel shift that makes up for it, every rendered image and depth map is off by that much.

    Args:
        intrinsics: Intrinsics `[3, 3]` in pixels; off-centre principal points and skew are kept.
        height: Image height in pixels.
        width: Image width in pixels.
        near: Z-depth in metres below which nothing is drawn.
        far: Z-depth in metres beyond which nothing is drawn.
        tiny_renderer: Whether the matrix is for `ER_TINY_RENDERER`, else for a renderer that samples centres.

    Returns:
        The 16 entries of the OpenGL clip matrix, column by column.

    Raises:
        InputError: If the shape is wrong or `0 < near < far` does not hold.

    Source: ours.
    """
    check_tensor("intrinsics", intrinsics, [3, 3])
    _check_range(near, far)
    shift = 0.5 if tiny_renderer else 0.0
    camera = intrinsics.detach().cpu().double()  # [3, 3]
    centre_x, centre_y = float(camera[0, 2]) - shift, float(camera[1, 2]) + shift
    clip = torch.zeros(4, 4, dtype=torch.float64, device="cpu")
    clip[0, 0] = 2 * camera[0, 0] / width
    clip[0, 1] = -2 * camera[0, 1] / width
    clip[0, 2] = 1 - 2 * centre_x / width
    clip[1, 1] = 2 * camera[1, 1] / height
    clip[1, 2] = 2 * centre_y / height - 1
    clip[2, 2] = -(far + near) / (far - near)
    clip[2, 3] = -2 * far * near / (far - near)
    clip[3, 2] = -1
    return _column_major(clip)


def pybullet_depth_to_metres(
    depth_buffer: Tensor,  # [...]
    near: float,
    far: float,
) -> Tensor:
    """Turn PyBullet's depth buffer into z-depth.

    Args:
        depth_buffer: Values `[...]` in [0, 1] as `getCameraImage` returns them.
        near: The projection's near plane in metres.
        far: The projection's far plane in metres.

    Returns:
        Z-depth `[...]` in metres, 0 (unknown) where nothing was drawn.

    Raises:
        InputError: If `0 < near < far` does not hold.

    Source: ours.
    """
    _check_range(near, far)
    buffer = depth_buffer.double()
    depth = far * near / (far - (far - near) * buffer)
    return torch.where(buffer < _NOTHING_DRAWN, depth, torch.zeros_like(depth)).to(depth_buffer.dtype)


def _check_range(near: float, far: float) -> None:
    """Raise unless the clipping planes are in order."""
    if not 0 < near < far:
        raise InputError(f"near and far must satisfy 0 < near < far, got {near} and {far}")


def _column_major(matrix: Tensor) -> list[float]:
    """List the 16 entries of a `[4, 4]` matrix column by column."""
    entries: list[float] = matrix.mT.flatten().tolist()
    return entries
