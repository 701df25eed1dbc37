"""The z-buffer against plain oracles: duplicates, ties, batches, devices' two code paths, gaps."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mirage_sim.errors import InputError
from mirage_sim.geometry.cameras import project, rescale_intrinsics
from mirage_sim.memory import SplatResult, gather_tokens, lift_tokens, match_surface, splat
from mirage_sim.memory.occlusion import find_leaks
from tests.memory.oracles import plain_splat, sort_and_scatter
from tests.memory.rooms import HW, box_depth, camera, circle, intrinsics, memory, two_rooms_depth

Cloud = tuple[Tensor, Tensor, Tensor, Tensor]


def random_cloud(seed: int, worlds: int, count: int) -> Cloud:
    generator = torch.Generator().manual_seed(seed)
    view_dir = torch.nn.functional.normalize(torch.randn(worlds, count, 3, generator=generator), dim=-1)
    reach = 1 + 4 * torch.rand(worlds, count, 1, generator=generator)
    positions = view_dir * reach + torch.tensor([0.0, 0.0, 1.5])
    footprint = 0.05 + 0.4 * torch.rand(worlds, count, generator=generator)
    return positions, torch.rand(worlds, count, generator=generator) < 0.9, footprint, view_dir


def assert_same(a: SplatResult, b: SplatResult) -> None:
    for field in dataclasses.fields(a):
        assert torch.equal(getattr(a, field.name), getattr(b, field.name)), field.name


@st.composite
def lattice_clouds(draw: st.DrawFn) -> Cloud:
    """Clouds on a coarse lattice, so that cells, depths and whole entries coincide."""
    worlds, count = draw(st.integers(1, 2)), draw(st.integers(0, 60))
    step = st.integers(-4, 4)
    size = st.sampled_from((0.1, 0.2, 0.4))
    rows = draw(
        st.lists(
            st.tuples(step, step, step, size, st.booleans()),
            min_size=worlds * count,
            max_size=worlds * count,
        )
    )
    table = torch.tensor([[*row[:4], float(row[4] or row[0] > 0)] for row in rows]).reshape(worlds, count, 5)
    positions = table[..., :3] * torch.tensor([0.5, 0.25, 0.25]) + torch.tensor([0.0, 0.0, 1.5])
    view_dir = torch.nn.functional.normalize(table[..., :3] + 0.1, dim=-1)
    return positions, table[..., 4] > 0, table[..., 3].contiguous(), view_dir


@settings(max_examples=60)
@given(lattice_clouds(), st.integers(0, 7), st.sampled_from((0.0, 0.05, 0.5)), st.booleans())
def test_agrees_bitwise_with_the_plain_oracle(
    cloud: Cloud, turn: int, tolerance: float, lasting: bool
) -> None:
    worlds = cloud[0].shape[0]
    poses = torch.stack([camera(-0.5, 0.125, math.pi * turn / 8), camera(-2.0, 0.0, 0.0, 0.1)])
    target = (poses.expand(worlds, 2, 4, 4), rescale_intrinsics(intrinsics(worlds, 2), 0.4), (6, 7))
    expected = plain_splat(*cloud, *target, tolerance, lasting)
    for compact in (True, False):
        actual = splat(*cloud, *target, tolerance, close_gaps=False, lasting=lasting, compact=compact)
        for name in ("index", "mask", "depth", "offset", "view_cos"):
            np.testing.assert_array_equal(getattr(actual, name).numpy(), expected[name], err_msg=name)
        np.testing.assert_allclose(actual.log_scale.numpy(), expected["log_scale"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("count", [1, 17, 400])
def test_agrees_with_sort_and_scatter(count: int) -> None:
    positions, _, footprint, view_dir = random_cloud(count, 1, count)
    features = torch.randn(1, count, 5, generator=torch.Generator().manual_seed(1))
    pose = camera(yaw=0.4)
    everything = torch.ones(1, count, dtype=torch.bool)
    actual = splat(
        positions,
        everything,
        footprint,
        -view_dir,  # seen from the other side, so that depth alone decides
        pose[None, None],
        intrinsics(1, 1),
        HW,
        0.0,
        close_gaps=False,
    )
    latents, mask, depth = sort_and_scatter(features[0], positions[0], pose, intrinsics(), HW)
    assert torch.equal(actual.mask[0, 0], mask)
    assert torch.equal(gather_tokens(features, actual.index)[0, 0], latents)
    torch.testing.assert_close(actual.depth[0, 0], depth)


def test_equal_entries_give_the_oldest_and_near_ones_the_best_centred() -> None:
    pose, matrix = camera(), intrinsics(1, 1)
    ahead = lift_tokens(torch.full(HW, 2.0), pose, intrinsics()).positions[8, 8]
    positions = torch.stack([ahead + torch.tensor([0.01, 0.02, 0.0]), ahead, ahead, ahead])[None]
    footprint, direction = torch.full((1, 4), 0.2), torch.tensor([1.0, 0, 0]).expand(1, 4, 3)
    valid = torch.tensor([[True, False, True, True]])
    target = (pose[None, None], matrix, HW)
    seen = splat(positions, valid, footprint, direction, *target, lasting=False)
    assert seen.index[0, 0, 8, 8] == 2
    assert seen.mask.sum() == 1
    # where the choice is to last, the oldest of near ones
    assert splat(positions, valid, footprint, direction, *target).index[0, 0, 8, 8] == 0
    hidden = positions.clone()
    hidden[0, 2, 2] += 0.5
    seen = splat(hidden, valid, footprint, direction, *target, lasting=False)
    assert seen.index[0, 0, 8, 8] == 3


def test_what_was_seen_from_nearer_since_shows_only_where_nothing_else_does() -> None:
    pose, lens = camera(), intrinsics()
    wall = lift_tokens(torch.full(HW, 4.0), pose, lens)
    nearer = lift_tokens(torch.full(HW, 3.0), camera(1.0), lens)
    half = wall.known & (torch.arange(HW[1]) < HW[1] // 2)  # the first view knew the left half
    valid = torch.cat([half.flatten(), nearer.known.flatten()])[None]
    cloud = [
        torch.cat([getattr(part, name).flatten(0, 1) for part in (wall, nearer)])[None]
        for name in ("positions", "footprint", "view_dir")
    ]
    count = half.numel()
    view = (camera(0.4, 0.07)[None, None], lens[None, None], HW)
    first = splat(*(part[:, :count] for part in (cloud[0], valid, *cloud[1:])), *view)
    again = splat(cloud[0], valid, *cloud[1:], *view)
    for name in ("index", "offset", "log_scale"):
        was, now = getattr(first, name), getattr(again, name)
        shown = first.mask if was.ndim == 4 else first.mask[:, :, None].expand_as(was)
        assert torch.equal(was[shown], now[shown])
    assert (again.mask & ~first.mask).sum() > 30
    assert (again.index[again.mask & ~first.mask] >= count).all()
    assert (again.log_scale[again.mask & ~first.mask] < 0).all()
    changing = splat(cloud[0], valid, *cloud[1:], *view, lasting=False)
    assert (changing.index != first.index)[first.mask].any()


def test_what_was_seen_from_farther_since_shows_only_where_nothing_else_does() -> None:
    pose, lens = camera(), intrinsics()
    nearer, wall = (
        lift_tokens(torch.full(HW, 3.0), camera(1.0), lens),
        lift_tokens(torch.full(HW, 4.0), pose, lens),
    )
    half = nearer.known & (torch.arange(HW[1]) < HW[1] // 2)
    valid = torch.cat([half.flatten(), wall.known.flatten()])[None]
    cloud = [
        torch.cat([getattr(part, name).flatten(0, 1) for part in (nearer, wall)])[None]
        for name in ("positions", "footprint", "view_dir")
    ]
    count = half.numel()
    view = (camera(0.4, 0.07)[None, None], lens[None, None], HW)
    known = (part[:, :count] for part in (cloud[0], valid, *cloud[1:]))
    first = splat(*known, *view, close_gaps=False)
    again = splat(cloud[0], valid, *cloud[1:], *view, close_gaps=False)
    assert (first.log_scale[first.mask] < 0).all()
    assert torch.equal(first.index[first.mask], again.index[first.mask])
    assert (again.index[again.mask & ~first.mask] >= count).all()
    assert (again.mask & ~first.mask).sum() > 30


def test_prefers_the_closest_scale_and_signs_it() -> None:
    pose, matrix = camera()[None, None], intrinsics(1, 1)
    geometry = lift_tokens(torch.full(HW, 2.0), camera(), intrinsics())
    position = geometry.positions[8, 8].expand(1, 3, 3)
    direction = geometry.view_dir[8, 8].expand(1, 3, 3)
    exact = float(geometry.footprint[8, 8])
    sizes = torch.tensor([[4 * exact, 1.2 * exact, 0.25 * exact]])
    everything = torch.ones(1, 3, dtype=torch.bool)
    seen = splat(position, everything, sizes, direction, pose, matrix, HW)
    assert seen.index[0, 0, 8, 8] == 1
    assert seen.log_scale[0, 0, 8, 8] == pytest.approx(math.log(1.2), abs=1e-5)
    coarse = splat(position[:, :1], everything[:, :1], sizes[:, :1], direction[:, :1], pose, matrix, HW)
    assert coarse.log_scale[0, 0, 8, 8] > 0
    fine = splat(position[:, 2:], everything[:, 2:], sizes[:, 2:], direction[:, 2:], pose, matrix, HW)
    assert fine.log_scale[0, 0, 8, 8] < 0


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 300))
def test_what_is_described_is_what_projects_there(seed: int, count: int) -> None:
    positions, valid, footprint, view_dir = random_cloud(seed, 2, count)
    poses = torch.stack([camera(yaw=0.3), camera(0.5, -0.5, 2.0)]).expand(2, 2, 4, 4)
    seen = splat(positions, valid, footprint, view_dir, poses, intrinsics(2, 2), HW)
    b, t, row, column = seen.mask.nonzero(as_tuple=True)
    index = seen.index[b, t, row, column]
    assert bool(valid[b, index].all())
    uv, depth = project(positions[b, index][:, None], poses[b, t], intrinsics(len(b)))
    offset = seen.offset.movedim(2, -1)[b, t, row, column]
    centre = torch.stack((column, row), dim=-1) + 0.5
    torch.testing.assert_close(uv[:, 0], centre + offset, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(seen.depth[b, t, row, column], depth[:, 0])
    assert bool((offset.abs() <= 1.5).all())  # from a neighbouring cell at most
    assert bool((seen.index[~seen.mask] == -1).all())
    assert float(seen.view_cos.abs().max()) <= 1.0001


@pytest.mark.parametrize("compact", [True, False])
def test_worlds_do_not_depend_on_their_batch_mates(compact: bool) -> None:
    cloud = random_cloud(5, 3, 1501)
    poses = circle(6, 0.3).reshape(3, 2, 4, 4)
    together = splat(*cloud, poses, intrinsics(3, 2), HW, compact=compact)
    for world in range(3):
        own = slice(world, world + 1)
        count = 1501 - 400 * world
        alone = tuple(part[own, :count] for part in cloud)
        cloud[1][own, count:] = False
        rest = splat(*cloud, poses, intrinsics(3, 2), HW, compact=compact)
        single = splat(*alone, poses[own], intrinsics(1, 2), HW)
        for field in dataclasses.fields(together):
            assert torch.equal(getattr(rest, field.name)[own], getattr(single, field.name)), field.name


def test_threads_and_repetition_do_not_change_a_bit() -> None:
    cloud = random_cloud(9, 1, 60_000)
    target = (camera()[None, None], intrinsics(1, 1), HW)
    first = splat(*cloud, *target)
    torch.set_num_threads(2)
    try:
        assert_same(splat(*cloud, *target), first)
        assert_same(splat(*cloud, *target, compact=False), first)
    finally:
        torch.set_num_threads(1)


def test_garbage_in_invalid_entries_does_no_harm() -> None:
    positions, valid, footprint, view_dir = random_cloud(3, 1, 200)
    target = (camera()[None, None], intrinsics(1, 1), HW)
    clean = splat(positions, valid, footprint, view_dir, *target)
    for garbage in (math.nan, math.inf, -1e30):
        dirty = [torch.where(valid[..., None], part, garbage) for part in (positions, view_dir)]
        sizes = torch.where(valid, footprint, garbage)
        for compact in (True, False):
            assert_same(splat(dirty[0], valid, sizes, dirty[1], *target, compact=compact), clean)


def test_nothing_stored_reads_as_unknown() -> None:
    empty = (
        torch.zeros(2, 0, 3),
        torch.zeros(2, 0, dtype=torch.bool),
        torch.zeros(2, 0),
        torch.zeros(2, 0, 3),
    )
    seen = splat(*empty, camera().expand(2, 1, 4, 4), intrinsics(2, 1), HW)
    assert not seen.mask.any()
    assert gather_tokens(torch.zeros(2, 0, 4), seen.index).shape == (2, 1, 4, *HW)


@pytest.mark.parametrize(
    ("moved", "chosen"),
    [
        ({}, 0),
        ({"yaw": 0.1}, 0),
        ({"x": 1.0}, 0),
        ({"x": -0.5}, 0),
        ({"x": -3.0}, 1),
        ({"y": 0.1, "yaw": -0.025}, 1),
    ],
    ids=["back", "turned", "nearer", "a little farther", "much farther", "aside"],
)
def test_what_was_seen_from_here_is_not_hidden(moved: dict[str, float], chosen: int) -> None:
    # the wall ahead was written by a camera at the origin; something nearer, by one that stood elsewhere
    positions = torch.tensor([[[4.0, 0.0, 1.5], [3.0, 0.0, 1.5]]])
    ahead, elsewhere = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.8, 0.6, 0.0])
    focal = float(intrinsics()[0, 0])
    footprint = torch.tensor([[4.0 / focal, 3.0 / focal]])
    everything = torch.ones(1, 2, dtype=torch.bool)
    # half a cell to the side, so that both fall well inside one cell
    pose = camera(**(moved | {"yaw": moved.get("yaw", 0.0) + 0.05}))[None, None]
    directions = torch.stack([ahead, elsewhere])[None]
    camera_and_size = (pose, intrinsics(1, 1), HW)
    seen = splat(positions, everything, footprint, directions, *camera_and_size, close_gaps=False)
    assert seen.index[seen.index >= 0].tolist() == [chosen]


def test_match_looks_past_nearer_entries() -> None:
    pose, matrix = camera()[None, None], intrinsics(1, 1)
    near, far = (lift_tokens(torch.full(HW, d), camera(), intrinsics()) for d in (1.0, 3.0))
    cloud = [
        torch.stack([getattr(part, name)[8, 8] for part in (near, far)])[None]
        for name in ("positions", "known", "footprint", "view_dir")
    ]
    surface, slack = torch.full((1, 1, *HW), 3.0), torch.full((1, 1, *HW), 0.2)
    assert splat(*cloud, pose, matrix, HW).index[0, 0, 8, 8] == 0
    found = match_surface(*cloud, pose, matrix, surface, slack)
    assert found.index[0, 0, 8, 8] == 1
    assert found.mask.sum() == 1
    assert_same(found, match_surface(*cloud, pose, matrix, surface, slack, compact=False))
    assert not match_surface(*cloud, pose, matrix, surface - 1, slack).mask.any()
    assert not match_surface(*cloud, pose, matrix, surface * 0, slack).mask.any()


def test_the_next_room_does_not_shine_through_a_wall() -> None:
    remembered = memory(filter_free_space=False)
    poses = [camera(2.0, 0.3, math.tau * i / 18) for i in range(18)]
    poses += [camera(-3.0, y, 0.0) for y in (-1.0, 0.0, 1.0)]
    for pose in poses:
        frame = torch.zeros(1, 1, 4, *HW)
        remembered.write(frame, two_rooms_depth(pose)[None, None], pose[None, None], intrinsics(1, 1))
    approach = [camera(-3.0 + 0.25 * i, -1.0, 0.0) for i in range(1, 7)]
    leaks = dict.fromkeys((True, False), 0)
    for pose in approach:
        truth = two_rooms_depth(pose)
        for close_gaps in leaks:
            cloud = remembered._entries.cloud()
            seen = splat(*cloud, pose[None, None], intrinsics(1, 1), HW, close_gaps=close_gaps)
            leaks[close_gaps] += int((seen.depth[0, 0] > 1.3 * truth).sum())
    assert leaks[False] > 60  # the defect
    assert leaks[True] < 0.3 * leaks[False]


def test_silhouettes_slits_and_corners_stay_open() -> None:
    silhouette = torch.full(HW, 5.0)
    silhouette[:, :8] = 1.0
    everything, coarse = torch.ones(HW, dtype=torch.bool), torch.full(HW, 0.3)
    assert not find_leaks(silhouette, everything, coarse).any()
    slit = torch.full(HW, 1.0)
    slit[:, 8] = 5.0
    assert not find_leaks(slit, everything, torch.zeros(HW)).any()
    assert bool(find_leaks(slit, everything, coarse)[:, 8].all())
    assert find_leaks(slit, everything, coarse).sum() == HW[0]
    corner = box_depth(camera(1.0, 1.0, math.pi / 4))
    assert not find_leaks(corner, everything, torch.full(HW, 1.0)).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": torch.zeros(1, 5, 2)}, r"positions must be \[B, N, 3\]"),
        ({"valid": torch.zeros(1, 5)}, "valid must be bool"),
        ({"footprint": torch.zeros(1, 4)}, r"footprint must be \[1, 5\]"),
        ({"positions": torch.zeros(1, 5, 3).half()}, "positions must be float32"),
        ({"cam2world": torch.eye(4)}, r"cam2world must be \[1, T, 4, 4\]"),
        ({"hw": (0, 4)}, "hw must be positive"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "positions": torch.zeros(1, 5, 3),
        "valid": torch.ones(1, 5, dtype=torch.bool),
        "footprint": torch.ones(1, 5),
        "view_dir": torch.zeros(1, 5, 3),
        "cam2world": camera()[None, None],
        "intrinsics": intrinsics(1, 1),
        "hw": HW,
    }
    with pytest.raises(InputError, match=message):
        splat(**{**arguments, **change})  # type: ignore[arg-type]


def test_a_coarse_token_covers_the_cells_of_its_footprint() -> None:
    tokens = lift_tokens(box_depth(camera())[None], camera()[None], intrinsics(1))
    cloud = (
        tokens.positions.flatten(1, 2),
        tokens.known.flatten(1),
        tokens.footprint.flatten(1),
        tokens.view_dir.flatten(1, 2),
    )
    nearer = camera(1.0)
    depth = box_depth(nearer)
    target = (nearer[None, None], intrinsics(1, 1), HW)
    points, whole = splat(*cloud, *target, close_gaps=False), splat(*cloud, *target)
    wall = (depth - 3.0).abs() < 1e-4  # the one ahead; floor and ceiling recede and keep some gaps
    assert points.mask[0, 0, wall].float().mean() < 0.75
    assert whole.mask[0, 0, wall].all()
    filled = whole.mask & ~points.mask
    assert (whole.log_scale[filled] > -0.1).all()
    torch.testing.assert_close(whole.depth[filled], depth[filled[0, 0]], rtol=0.35, atol=0)
    # where a token fell is told from the centre of the cell that shows it
    row, column = filled[0, 0].nonzero(as_tuple=True)
    index = whole.index[0, 0, row, column]
    uv, _ = project(cloud[0][0, index][None], nearer[None], intrinsics(1))
    centre = torch.stack((column, row), dim=-1) + 0.5
    torch.testing.assert_close(uv[0], centre + whole.offset[0, 0, :, row, column].T, rtol=1e-5, atol=1e-4)
