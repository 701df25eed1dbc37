"""PyBullet's own matrices and renderings against the geometry: the same pixel, the same metre."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mirage_sim.geometry import (
    cam2world_to_pybullet_view,
    from_yaw_pitch,
    intrinsics_to_pybullet_projection,
    look_at,
    make_intrinsics,
    project,
    pybullet_depth_to_metres,
    quat_wxyz_to_matrix,
    ray_directions,
    unproject,
    wxyz_to_xyzw,
)
from tests.conftest import Closeness
from tests.geometry.strategies import coordinates, quats_wxyz
from tests.oracles.bullet import import_pybullet

pybullet = import_pybullet()

H, W = 48, 64
NEAR, FAR = 0.05, 30.0
OFF_CENTRE = torch.tensor([[70.0, 0, 27.3], [0, 64, 30.6], [0, 0, 1]])
LENSES = [make_intrinsics(H, W, 75.0), OFF_CENTRE]


@pytest.fixture(scope="module")
def client() -> Iterator[int]:
    number = pybullet.connect(pybullet.DIRECT)
    yield number
    pybullet.disconnect(number)


def _box(client: int, half: list[float], position: list[float], quat_wxyz: Tensor | None = None) -> int:
    shape = pybullet.createVisualShape(pybullet.GEOM_BOX, halfExtents=half, physicsClientId=client)
    turn = [0.0, 0.0, 0.0, 1.0] if quat_wxyz is None else wxyz_to_xyzw(quat_wxyz).tolist()
    return int(
        pybullet.createMultiBody(
            baseVisualShapeIndex=shape, basePosition=position, baseOrientation=turn, physicsClientId=client
        )
    )


def _render(client: int, cam2world: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Render depth in metres and body numbers, each `[H, W]`."""
    _, _, _, buffer, bodies = pybullet.getCameraImage(
        W,
        H,
        cam2world_to_pybullet_view(cam2world),
        intrinsics_to_pybullet_projection(intrinsics, H, W, NEAR, FAR),
        renderer=pybullet.ER_TINY_RENDERER,
        physicsClientId=client,
    )
    depth = pybullet_depth_to_metres(torch.from_numpy(np.reshape(buffer, (H, W))), NEAR, FAR)
    return depth, torch.from_numpy(np.reshape(bodies, (H, W)))


@given(st.data())
def test_view_matrix_is_pybullets(assert_close: Closeness, data: st.DataObject) -> None:
    eye = [data.draw(coordinates) for _ in range(3)]
    target = [eye[0] + data.draw(st.floats(0.5, 3)), eye[1] + data.draw(st.floats(-3, 3)), eye[2] - 0.4]
    view = cam2world_to_pybullet_view(look_at(eye, target))
    assert_close(
        torch.tensor(view), torch.tensor(pybullet.computeViewMatrix(eye, target, [0, 0, 1])), scale=40
    )


@given(st.floats(30, 120), st.floats(0.01, 0.5), st.floats(5, 200))
def test_projection_matrix_is_pybullets(
    assert_close: Closeness, fov_x: float, near: float, far: float
) -> None:
    intrinsics = make_intrinsics(H, W, fov_x)
    fov_y = float(torch.rad2deg(2 * torch.atan(0.5 * H / intrinsics[1, 1])))
    ours = intrinsics_to_pybullet_projection(intrinsics, H, W, near, far, tiny_renderer=False)
    theirs = pybullet.computeProjectionMatrixFOV(fov_y, W / H, near, far)
    assert_close(torch.tensor(ours), torch.tensor(theirs), scale=10)


def test_off_centre_projection_matrix_is_pybullets(assert_close: Closeness) -> None:
    ours = intrinsics_to_pybullet_projection(OFF_CENTRE, H, W, NEAR, FAR, tiny_renderer=False)
    fx, fy, cx, cy = (float(OFF_CENTRE[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    left, right = -cx / fx * NEAR, (W - cx) / fx * NEAR
    bottom, top = -(H - cy) / fy * NEAR, cy / fy * NEAR
    theirs = pybullet.computeProjectionMatrix(left, right, bottom, top, NEAR, FAR)
    assert_close(torch.tensor(ours), torch.tensor(theirs), scale=10)


@pytest.mark.parametrize("intrinsics", LENSES, ids=["centred", "off-centre"])
@settings(max_examples=15)
@given(data=st.data())
def test_rendered_box_is_where_project_puts_it(
    client: int, assert_close: Closeness, intrinsics: Tensor, data: st.DataObject
) -> None:
    cam2world = from_yaw_pitch([1.0, -2.0, 1.4], data.draw(st.floats(-3, 3)), data.draw(st.floats(-0.9, 0.9)))
    pixel = [data.draw(st.floats(12, W - 12)), data.draw(st.floats(12, H - 12))]
    distance = data.draw(st.floats(2, 6))
    ray = torch.linalg.inv(intrinsics) @ torch.tensor([*pixel, 1.0])
    centre = cam2world[:3, :3] @ ray * distance + cam2world[:3, 3]
    half = 3.0 * distance / float(intrinsics[0, 0])  # about six pixels wide
    turn = data.draw(quats_wxyz())
    box = _box(client, [half] * 3, centre.tolist(), turn)
    depth, bodies = _render(client, cam2world, intrinsics)
    pybullet.removeBody(box, physicsClientId=client)

    seen = bodies == box
    corners = torch.cartesian_prod(*[torch.tensor([-half, half])] * 3)  # [8, 3]
    corners = corners @ quat_wxyz_to_matrix(turn).float().mT + centre
    uv, corner_depth = project(corners, cam2world, intrinsics)
    rows, columns = seen.nonzero().unbind(-1)
    for pixels, side in ((columns, uv[:, 0]), (rows, uv[:, 1])):
        assert abs(float(pixels.min() + 0.5 - side.min())) < 1.6  # a corner may miss every pixel centre
        assert abs(float(pixels.max() + 0.5 - side.max())) < 1.6
    assert float(depth[seen].min()) > float(corner_depth.min()) - 1e-3
    assert float(depth[seen].max()) < float(corner_depth.max()) + 1e-3
    surface = (unproject(depth, cam2world, intrinsics)[seen] - centre) @ quat_wxyz_to_matrix(turn).float()
    assert_close(surface.abs().amax(dim=-1), torch.full((len(rows),), half), scale=20)
    assert set(depth[~seen].tolist()) == {0.0}  # nothing there: unknown


@pytest.mark.parametrize("intrinsics", LENSES, ids=["centred", "off-centre"])
@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, -0.3), (2.1, 0.1), (-1.3, -0.8)])
def test_rendered_floor_covers_the_pixels_whose_centres_see_it(
    client: int, assert_close: Closeness, intrinsics: Tensor, yaw: float, pitch: float
) -> None:
    floor = _box(client, [4.0, 4.0, 0.5], [0.0, 0.0, -0.5])
    cam2world = from_yaw_pitch([0.3, -0.2, 1.5], yaw, pitch)
    depth, bodies = _render(client, cam2world, intrinsics)
    pybullet.removeBody(floor, physicsClientId=client)
    rays = ray_directions(cam2world, intrinsics, (H, W))
    wanted = -cam2world[2, 3] / rays[..., 2]  # z-depth at which a ray meets z = 0
    hits = cam2world[:3, 3] + wanted[..., None] * rays
    covered = (wanted > 0) & (hits[..., :2].abs() < 4).all(dim=-1)
    assert int((covered != (bodies == floor)).sum()) <= 2  # centres on the very edge
    both = covered & (bodies == floor)
    assert_close(depth[both], wanted[both], scale=10)
