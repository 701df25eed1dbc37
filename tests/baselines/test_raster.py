"""Points to pictures and back, against slow oracles and closed rooms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mirage_sim.baselines.colour_points import share_of_cells, to_pixels
from mirage_sim.baselines.raster import close_gaps, fill_holes, grow_depth, nearest_points, rasterise
from mirage_sim.geometry import make_intrinsics, project, rescale_intrinsics, unproject
from tests.memory.rooms import box_depth, camera

SIZE = (24, 24)
LENS = make_intrinsics(*SIZE, 75.0)


def slow_nearest(points: Tensor, pose: Tensor) -> list[list[int]]:
    """Point by point: the nearest, of equals the first."""
    best: dict[tuple[int, int], tuple[float, int]] = {}
    places, depth = project(points, pose, LENS)
    for number, ((u, v), z) in enumerate(zip(places.tolist(), depth.tolist(), strict=True)):
        if z > 0.02 and 0 <= u < SIZE[1] and 0 <= v < SIZE[0]:
            cell = (int(v), int(u))
            best[cell] = min(best.get(cell, (float("inf"), -1)), (z, number))
    return [[best.get((row, column), (0.0, -1))[1] for column in range(SIZE[1])] for row in range(SIZE[0])]


@given(st.integers(0, 1000), st.integers(0, 60))
def test_the_nearest_point_shows(seed: int, count: int) -> None:
    points = 2.0 * torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)) + torch.tensor(
        [2.0, 0, 1.5]
    )
    points = torch.cat([points, points])  # every point twice
    index, depth = nearest_points(points, camera(), LENS, SIZE)
    assert index.tolist() == slow_nearest(points, camera())
    assert bool(((depth > 0) == (index >= 0)).all())


def test_a_picture_comes_back_from_its_own_camera() -> None:
    pose = camera(0.5, -0.3, 0.7)
    depth = box_depth(pose, hw=SIZE, matrix=LENS)
    colours = torch.randint(0, 256, (*SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    points = unproject(depth, pose, LENS).flatten(0, 1)
    picture, seen = rasterise(points, colours.flatten(0, 1), pose, LENS, SIZE)
    assert torch.equal(((picture + 1) * 127.5).round().to(torch.uint8).movedim(0, -1), colours)
    assert torch.allclose(seen, depth, atol=1e-4)
    nothing, empty = rasterise(points[:0], colours.flatten(0, 1)[:0], pose, LENS, SIZE)
    assert not nothing.any()
    assert not empty.any()


def test_gaps_close_and_what_shows_through_them_goes() -> None:
    depth = torch.full(SIZE, 2.0)
    depth[5, 5] = 0.0  # a hole
    depth[9, 9] = 7.0  # something far, seen between the points of a near wall
    depth[:, 20:] = 0.0  # unknown, more than a gap
    picture = torch.where(depth == 2.0, 0.25, -1.0).expand(3, *SIZE)
    mended, metres = close_gaps(picture, depth)
    assert bool((metres[:, :20] == 2.0).all())
    assert bool((mended[:, :, :20] == 0.25).all())
    assert not metres[:, 21:].any()


def test_holes_fill_smoothly_and_what_is_known_stays() -> None:
    picture = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    known = torch.ones(2, *SIZE, dtype=torch.bool)
    known[0, 4:20, 4:20] = False
    known[1] = False
    filled = fill_holes(picture, known)
    assert torch.equal(filled[0].masked_select(known[0]), picture[0].masked_select(known[0]))
    inside = filled[0].masked_select(~known[0])
    assert 0.1 < float(inside.min())
    assert float(inside.max()) < 0.9
    assert not filled[1].any()


def test_grown_depths_lie_on_the_surface() -> None:
    """Linear in inverse depth is exact on planes: cells of a wall grow to pixels of the same wall."""
    pose, stride = camera(yaw=0.1), 4
    fine = make_intrinsics(64, 64, 60.0)
    cells = box_depth(pose, hw=(16, 16), matrix=rescale_intrinsics(fine, 1 / stride))
    grown = grow_depth(cells, stride)
    true = box_depth(pose, hw=(64, 64), matrix=fine)
    middle = (slice(24, 40), slice(24, 40))  # wall only
    assert torch.allclose(grown[middle], true[middle], rtol=1e-4)
    holed = cells.clone()
    holed[3, 3] = 0.0
    assert not grow_depth(holed, stride)[12:16, 12:16].any()
    assert torch.allclose(grow_depth(holed, stride)[middle], true[middle], rtol=1e-4)


def test_cells_and_their_pixels() -> None:
    cells = torch.tensor([[True, False], [False, True]])
    pixels = to_pixels(cells, 3)
    assert pixels.shape == (6, 6)
    assert torch.equal(share_of_cells(pixels, 3), cells.float())
    pixels[0, 0] = False
    assert float(share_of_cells(pixels, 3)[0, 0]) == pytest.approx(8 / 9)
