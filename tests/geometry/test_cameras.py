"""Projection and its inverse, resizing, block depth and the checks of intrinsics and depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mirage_sim.errors import InputError, InputTypeError
from mirage_sim.geometry import (
    check_depth,
    check_intrinsics,
    downsample_depth,
    make_intrinsics,
    pixel_centres,
    project,
    ray_directions,
    rescale_intrinsics,
    unproject,
)
from tests.conftest import Closeness
from tests.geometry.strategies import batches, cameras, depths, dtypes, poses

H, W = 6, 8


@given(st.data(), batches, dtypes)
def test_project_undoes_unproject(
    assert_close: Closeness, data: st.DataObject, batch: tuple[int, ...], dtype: torch.dtype
) -> None:
    cam2world = data.draw(poses(batch, dtype))
    intrinsics = data.draw(cameras(H, W, dtype))
    depth = data.draw(depths(H, W, dtype))
    points = unproject(depth, cam2world, intrinsics)
    assert points.shape == (*batch, H, W, 3)
    uv, seen = project(points.flatten(-3, -2), cam2world, intrinsics)
    near = 0.2  # the error of a pixel grows with position over depth
    assert_close(uv, pixel_centres(H, W, dtype=dtype).flatten(0, 1).expand_as(uv), scale=2 * 20 * W / near)
    assert_close(seen, depth.flatten().expand_as(seen), scale=20)


@given(st.data(), dtypes)
def test_projection_matches_the_matrix_product(
    assert_close: Closeness, data: st.DataObject, dtype: torch.dtype
) -> None:
    cam2world, intrinsics = data.draw(poses((), dtype)), data.draw(cameras(H, W, dtype))
    points = unproject(data.draw(depths(H, W, dtype)), cam2world, intrinsics).flatten(0, 1)
    camera = np.linalg.inv(cam2world.double().numpy()) @ np.c_[points.double().numpy(), np.ones(H * W)].T
    pixels = intrinsics.double().numpy() @ camera[:3]
    uv, depth = project(points, cam2world, intrinsics)
    assert_close(uv, torch.from_numpy((pixels[:2] / pixels[2]).T).to(dtype), scale=2 * 20 * W / 0.2)
    assert_close(depth, torch.from_numpy(pixels[2]).to(dtype), scale=20)


@given(st.data(), dtypes, st.floats(0.1, 8), st.floats(0.1, 8))
def test_resizing_commutes_with_projection(
    assert_close: Closeness, data: st.DataObject, dtype: torch.dtype, scale_x: float, scale_y: float
) -> None:
    cam2world, intrinsics = data.draw(poses((), dtype)), data.draw(cameras(H, W, dtype))
    points = unproject(data.draw(depths(H, W, dtype)), cam2world, intrinsics).flatten(0, 1)
    uv, _ = project(points, cam2world, intrinsics)
    resized, _ = project(points, cam2world, rescale_intrinsics(intrinsics, scale_x, scale_y))
    assert_close(resized, uv * torch.tensor([scale_x, scale_y], dtype=dtype), scale=W)


@given(st.data(), st.sampled_from((2, 4, 8)))
def test_resizing_back_is_the_identity(assert_close: Closeness, data: st.DataObject, stride: int) -> None:
    intrinsics = data.draw(cameras(H, W))
    assert_close(rescale_intrinsics(rescale_intrinsics(intrinsics, 1 / stride), stride), intrinsics)


def test_the_middle_of_a_block_is_the_centre_of_its_cell(assert_close: Closeness) -> None:
    cells = pixel_centres(2, 3) * 8
    blocks = pixel_centres(16, 24).reshape(2, 8, 3, 8, 2).mean(dim=(1, 3))
    assert_close(cells, blocks, scale=24)


def test_field_of_view_spans_the_image(assert_close: Closeness) -> None:
    intrinsics = make_intrinsics(96, 128, 75.0)
    half = np.tan(np.radians(37.5))
    edges = torch.tensor(
        [[-half, 0, 1], [half, 0, 1], [0, 0, 1], [0, half * 96 / 128, 1]], dtype=torch.float32
    )
    uv, _ = project(edges, torch.eye(4), intrinsics)
    assert_close(uv, torch.tensor([[0.0, 48], [128, 48], [64, 48], [64, 96]]), scale=128)


@given(st.data(), batches)
def test_rays_gain_one_metre_of_depth(
    assert_close: Closeness, data: st.DataObject, batch: tuple[int, ...]
) -> None:
    cam2world, intrinsics = data.draw(poses(batch, torch.float64)), data.draw(cameras(H, W, torch.float64))
    rays = ray_directions(cam2world, intrinsics, (H, W))
    forward = cam2world[..., None, None, :3, 2]
    assert rays.shape == (*batch, H, W, 3)
    assert_close((rays * forward).sum(-1), torch.ones(*batch, H, W, dtype=torch.float64), scale=10)


def test_result_does_not_depend_on_batch_mates() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(5, 400, 3, generator=generator)
    cam2world = torch.eye(4).repeat(5, 1, 1)
    cam2world[:, :3, 3] = torch.randn(5, 3, generator=generator)
    intrinsics = make_intrinsics(H, W, 60).expand(5, 3, 3)
    together = project(points, cam2world, intrinsics)
    for world in range(5):
        alone = project(points[world], cam2world[world], intrinsics[world])
        assert torch.equal(together[0][world], alone[0])
        assert torch.equal(together[1][world], alone[1])


def test_autocast_leaves_geometry_in_full_precision() -> None:
    depth, cam2world, intrinsics = torch.full((H, W), 3.3), torch.eye(4), make_intrinsics(H, W, 60)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        points = unproject(depth, cam2world, intrinsics)
    assert torch.equal(points, unproject(depth, cam2world, intrinsics))


def test_points_behind_the_camera_have_negative_depth_and_finite_pixels() -> None:
    points = torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0], [3.0, 1.0, -2.0]])
    uv, depth = project(points, torch.eye(4), make_intrinsics(H, W, 60))
    assert (depth <= 0).all()
    assert torch.isfinite(uv).all()


def _block_oracle(block: list[float]) -> float:
    known = sorted(value for value in block if np.isfinite(value) and value > 0)
    return known[(len(known) - 1) // 2] if 2 * len(known) >= len(block) else 0.0


@given(st.lists(st.sampled_from((0.0, 1.0, 2.0, 3.5, float("nan"), float("inf"))), min_size=24, max_size=24))
def test_block_depth_matches_a_plain_loop(values: list[float]) -> None:
    depth = torch.tensor(values).reshape(4, 6)
    blocks = downsample_depth(depth, 2)
    for row in range(2):
        for column in range(3):
            block: list[float] = depth[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten().tolist()
            assert float(blocks[row, column]) == _block_oracle(block)


def test_block_depth_never_lies_between_two_surfaces() -> None:
    depth = torch.full((2, 3, 8, 8), 5.0)
    depth[..., :4] = 1.0
    blocks = downsample_depth(depth, 8)
    assert blocks.shape == (2, 3, 1, 1)
    assert set(blocks.flatten().tolist()) == {1.0}


def test_accepts_good_intrinsics_and_depth() -> None:
    check_intrinsics("intrinsics", make_intrinsics(H, W, 75))
    check_intrinsics("intrinsics", np.tile(make_intrinsics(H, W, 75).numpy(), (2, 1, 1)))
    check_intrinsics("intrinsics", torch.tensor([[50.0, 1.5, 4], [0, 60, 3], [0, 0, 1]]))
    check_depth("depth", torch.tensor([[0.0, 1.0], [float("nan"), float("inf")]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k: k[:2], r"intrinsics must be \[..., 3, 3\], got \[2, 3\]"),
        (lambda k: k.long(), "intrinsics must have a floating dtype, got torch.int64"),
        (lambda k: k * float("nan"), "intrinsics must be finite"),
        (lambda k: k * torch.tensor([[-1.0], [1], [1]]), "positive focal lengths, got -"),
        (lambda k: k * torch.tensor([[1.0], [0], [1]]), "positive focal lengths, got 0"),
        (lambda k: k.T, r"upper triangular with the last row \(0, 0, 1\), got"),
        (lambda k: k * 2, "upper triangular"),
    ],
)
def test_refuses_bad_intrinsics(change: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_intrinsics("intrinsics", change(make_intrinsics(H, W, 75)))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (torch.ones(4), r"depth must be \[..., H, W\], got \[4\]"),
        (torch.ones(4, 4, dtype=torch.uint8), "floating dtype, got torch.uint8"),
        (-torch.ones(2, 2), "got 4 negative"),
        (torch.zeros(2, 2, 2), "got 2 maps of only 0 or non-finite"),
        (torch.full((2, 2), float("nan")), "got 1 maps of only 0 or non-finite"),
    ],
)
def test_refuses_bad_depth(depth: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_depth("depth", depth)


def test_refuses_other_types() -> None:
    with pytest.raises(InputTypeError, match="depth must be a tensor or an array, got list"):
        check_depth("depth", [[1.0]])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="floating dtype, got object"):
        check_intrinsics("intrinsics", np.array([[None]]))


@pytest.mark.parametrize(
    "call",
    [
        lambda: make_intrinsics(0, 4, 60),
        lambda: make_intrinsics(4, 4, 180),
        lambda: make_intrinsics(4, 4, float("nan")),
        lambda: rescale_intrinsics(torch.eye(3), 0.0),
        lambda: rescale_intrinsics(torch.eye(4), 1.0),
        lambda: downsample_depth(torch.ones(4, 6), 4),
        lambda: downsample_depth(torch.ones(4, 4), 0),
        lambda: unproject(torch.ones(4), torch.eye(4), torch.eye(3)),
        lambda: project(torch.ones(4, 2), torch.eye(4), torch.eye(3)),
        lambda: ray_directions(torch.eye(3), torch.eye(3), (2, 2)),
    ],
)
def test_refuses_bad_arguments(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]
