"""Every filter on a case that goes wrong without it, and on what it must not touch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mirage_sim.errors import InputError
from mirage_sim.memory import SpatialMemory
from mirage_sim.memory.filters import free_space, in_range, on_surface
from mirage_sim.memory.surface import depth_slack, inside_surface
from tests.memory.rooms import HW, box_depth, camera, intrinsics, latents, memory


def write(kept: SpatialMemory, pose: Tensor, depth: Tensor, **options: Tensor) -> Tensor:
    """Write one frame of one world; which tokens were written `[h, w]`."""
    report = kept.write(latents(0, 1, 1), depth[None, None], pose[None, None], intrinsics(1, 1), **options)
    return report.written[0, 0]


def entries(kept: SpatialMemory) -> Tensor:
    """Positions of all entries `[N, 3]`."""
    return kept._entries.cloud()[0][0]


def panel(depth: float, behind: float, columns: int = 8) -> Tensor:
    """A near panel on the left half before a far wall `[h, w]`."""
    out = torch.full(HW, behind)
    out[:, :columns] = depth
    return out


def test_sky_and_unknown_depth_are_not_surfaces() -> None:
    depth = torch.full(HW, 3.0)
    depth[0], depth[1], depth[2], depth[3] = 0.0, math.nan, math.inf, 500.0
    off, on = memory(filter_range=False), memory()
    assert write(off, camera(), depth)[0].all()  # tokens where nothing was seen
    assert float(entries(off)[:, 0].min()) < 0.01
    assert float(entries(off)[:, 0].max()) > 400
    assert write(on, camera(), depth).sum() == 12 * 16
    assert float(entries(on)[:, 0].max()) < 4.0
    assert in_range(torch.tensor([0.05, 0.1, 100.0, 101.0]), 0.1, 100.0).tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_tokens_averaged_across_an_edge_do_not_hang_in_the_air() -> None:
    depth = panel(1.5, 4.0)
    depth[:, 8] = 2.5  # what bilinear resizing makes of an edge
    hanging = {}
    for switch in (False, True):
        kept = memory(filter_edges=switch)
        write(kept, camera(), depth)
        distance = entries(kept)[:, 0]
        hanging[switch] = int((((distance - 1.5).abs() > 0.1) & ((distance - 4.0).abs() > 0.1)).sum())
    assert hanging == {False: 16, True: 0}


def test_an_edge_keeps_both_its_surfaces_and_thin_things_in_front() -> None:
    assert on_surface(panel(1.5, 4.0)).all()
    post = torch.full(HW, 4.0)
    post[:, 5] = 1.5
    assert on_surface(post).all()
    depth = panel(1.5, 4.0)
    depth[:, 8] = 2.5
    kept = on_surface(depth)
    assert not kept[:, 8].any()
    assert kept.sum() == 256 - 16
    assert torch.equal(on_surface(depth.T), kept.T)


@given(
    st.floats(-1.5, 1.5),
    st.floats(-1.0, 1.0),
    st.sampled_from(((0.0, 0.0), (2.5, 0.0), (-3.0, 3.0))),
)
def test_rooms_seen_at_any_angle_lose_nothing(yaw: float, pitch: float, place: tuple[float, float]) -> None:
    depth = box_depth(camera(*place, yaw, pitch))
    assert float(on_surface(depth).float().mean()) > 0.99


@given(st.floats(-0.09, 0.09), st.floats(-0.09, 0.09), st.floats(1.5, 5.0), st.integers(0, 9))
def test_grazing_planes_survive(across: float, down: float, level: float, unknown: int) -> None:
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    inverse = 1 / level + across * (columns - 8) + down * (rows - 8)
    depth = torch.where(inverse > 0.02, 1 / inverse, 0.0)
    depth[unknown, unknown] = math.nan
    assert on_surface(depth).all()


def test_what_moved_into_known_free_space_is_not_remembered() -> None:
    room = box_depth(camera())
    moved = room.clone()
    moved[6:12, 6:12] = 1.5  # something stands where the first view looked through
    ghosts = {}
    for switch in (False, True):
        kept = memory(filter_free_space=switch)
        write(kept, camera(), room)
        written = write(kept, camera(), moved)
        assert int(written.sum()) == (0 if switch else 36)
        # from where the first view was taken nothing hides what it saw; from beside it, the ghost does
        beside = camera(0.0, 0.2)
        for pose, name in ((camera(), "there"), (beside, "beside")):
            read = kept.read(pose[None, None], intrinsics(1, 1), HW)
            ghosts[switch, name] = int((read.mask & (read.depth < 0.8 * box_depth(pose)))[0, 0].sum())
    assert ghosts[False, "there"] == ghosts[True, "there"] == ghosts[True, "beside"] == 0
    assert ghosts[False, "beside"] > 25


def test_free_space_leaves_surfaces_hidden_things_and_fine_detail_alone() -> None:
    kept = memory()
    write(kept, camera(), panel(1.5, 4.0))
    beside = camera(0.0, 0.4)
    hidden = torch.full(HW, 0.0)
    hidden[:, :4] = 3.5  # behind the panel as seen from the first camera
    assert write(kept, beside, hidden).sum() == 64
    close = camera(3.0)  # a thin thing that the first view, coarser here by far, may have missed
    assert write(kept, close, torch.full(HW, 0.5)).all()


def test_free_space_is_exact_about_its_margin_and_its_views() -> None:
    view = torch.full((1, 1, *HW), 4.0)
    pose, matrix = camera()[None, None], intrinsics(1, 1)
    position = torch.stack([camera()[:3, 3] + torch.tensor([x, 0.0, 0.0]) for x in (3.5, 3.6, 4.5, -1.0)])[
        None
    ]
    size, yes = torch.full((1, 4), 1.0), torch.ones(1, 1, dtype=torch.bool)
    assert free_space(position, size, view, pose, matrix, yes).tolist() == [[True, False, False, False]]
    assert not free_space(position, size, view, pose, matrix, ~yes).any()
    assert not free_space(position, size, 0 * view, pose, matrix, yes).any()
    assert not free_space(position, size[:, :1].expand(1, 4) * 0.1, view, pose, matrix, yes).any()
    none = (view[:, :0], pose[:, :0], matrix[:, :0], yes[:, :0])
    assert not free_space(position, size, *none).any()


def test_the_caller_masks_what_moves() -> None:
    mask = torch.zeros(1, 1, *HW, dtype=torch.bool)
    mask[..., :4] = True
    kept = memory()
    written = write(kept, camera(), box_depth(camera()), keep_mask=mask)
    assert torch.equal(written, mask[0, 0])
    assert float(kept.keyframes.views.depth[0, 0][~mask[0, 0]].max()) == 0
    assert write(memory(), camera(), box_depth(camera())).all()


def test_slack_follows_the_surface_and_stops_at_edges() -> None:
    wall = torch.full(HW, 3.0)
    torch.testing.assert_close(depth_slack(wall, 0.05), torch.full(HW, 0.15))
    assert torch.equal(depth_slack(panel(1.5, 4.0), 0.05), torch.where(panel(1.5, 4.0) < 2, 0.075, 0.2))
    floor = torch.linspace(8.0, 2.0, 16)[:, None].expand(HW)
    assert bool((depth_slack(floor, 0.05) >= 0.05 * floor + 0.19).all())
    unknown = wall.clone()
    unknown[3, 3] = 0.0
    assert float(depth_slack(unknown, 0.05)[3, 3]) == 0


def test_gaps_inside_a_surface_are_told_from_its_frontier() -> None:
    held = torch.ones(1, *HW, dtype=torch.bool)
    held[0, :, 8:] = False
    held[0, 4, 4] = False
    depth, slack = torch.full((1, *HW), 3.0), torch.full((1, *HW), 0.15)
    inside = inside_surface(held, depth, slack)
    assert inside[0, 4, 4]
    assert not inside[0, :, 8:].any()
    depth[0, 4, 4] = 1.0  # something new in front is no gap
    assert not inside_surface(held, depth, slack)[0, 4, 4]


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(InputError, match=r"depth must be \[..., h, w\]"):
        on_surface(torch.zeros(3))
    with pytest.raises(InputError, match=r"footprint must be \[1, 4\]"):
        free_space(
            torch.zeros(1, 4, 3),
            torch.zeros(1, 3),
            torch.zeros(1, 1, *HW),
            camera()[None, None],
            intrinsics(1, 1),
            torch.ones(1, 1, dtype=torch.bool),
        )
