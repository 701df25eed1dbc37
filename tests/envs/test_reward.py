"""The account of surface, on walls whose area is known."""

import math

import pytest
import torch
from torch import Tensor

from mirage_sim.envs.reward import (
    LEVEL_BITS,
    RewardConfig,
    check_account,
    nothing_paid,
    pay,
    surface_samples,
)
from mirage_sim.errors import InputError
from mirage_sim.geometry import from_yaw_pitch
from tests.memory.rooms import HW, INTRINSICS, box_depth, camera

CONFIG = RewardConfig()
EMPTY = nothing_paid(torch.device("cpu"))


def see(account: Tensor, cam2world: Tensor, depth: Tensor | None = None) -> tuple[float, Tensor]:
    metres = box_depth(cam2world, (-2.0, -2.0, 0.0), (2.0, 2.0, 2.6)) if depth is None else depth
    view = (metres[None], torch.zeros(1, 2, *HW), cam2world[None], INTRINSICS)
    return pay(account, *view, CONFIG)


def turn(account: Tensor, count: int, x: float = 0.0) -> tuple[list[float], Tensor]:
    earned = []
    for step in range(count):
        area, account = see(account, camera(x=x, yaw=math.tau * step / 24))
        earned.append(area)
    return earned, account


def test_samples_lie_on_the_surface() -> None:
    pose = camera(0.3, -0.4, yaw=0.4, pitch=-0.3)
    points, normals = surface_samples(
        box_depth(pose, (-2.0, -2.0, 0.0), (2.0, 2.0, 2.6)), torch.zeros(2, *HW), pose, INTRINSICS, CONFIG
    )
    assert len(points) > 1000
    assert bool(((points - pose[:3, 3]).norm(dim=1) <= CONFIG.reach).all())
    walls = torch.stack((2.0 - points[:, :2].abs().amax(dim=1), points[:, 2], 2.6 - points[:, 2]), -1)
    gap = walls.abs().amin(dim=1)
    assert float((gap < 1e-4).float().mean()) > 0.85  # all but the patches that bridge an edge of the room
    flat = (points[:, 2] < 1e-4) & (normals[:, 2].abs() > 0.5)
    assert bool((normals[flat, 2].abs() > 0.99).all())


def test_a_wall_pays_by_how_near_it_is() -> None:
    worth = []
    for metres in (3.0, 2.0, 1.0):
        area, account = see(EMPTY, camera(), torch.full(HW, metres))
        worth.append(area / (len(account) * CONFIG.voxel**2))
    assert worth == sorted(worth)
    assert worth[0] < 0.2
    assert 0.55 < worth[2] < 0.75
    assert see(EMPTY, camera(), torch.full(HW, 4.0))[0] == 0.0
    assert see(EMPTY, camera(), torch.zeros(HW))[0] == 0.0


def test_nothing_is_paid_twice() -> None:
    first, account = turn(EMPTY, 24)
    second, account = turn(account, 24)
    assert sum(first) > 5
    assert sum(second) < 0.02 * sum(first)
    near, account = see(account, camera(x=1.0))
    assert near > 0, "coming nearer pays the difference"
    assert see(account, camera(x=1.0))[0] == 0.0
    there_at_once = see(EMPTY, camera(x=1.0))[0]
    assert near < there_at_once
    far_then_near = see(see(EMPTY, camera())[1], camera(x=1.0))[0]
    assert far_then_near < there_at_once


def test_depths_that_scatter_are_one_surface() -> None:
    rng = torch.Generator().manual_seed(0)
    account, earned = EMPTY, []
    for _ in range(6):
        depth = 2.0 + 0.05 * torch.randn(HW, generator=rng)
        area, account = see(account, camera(), depth)
        earned.append(area)
    assert sum(earned[1:]) < 0.5 * earned[0]


def test_offsets_say_where_in_its_cell_the_surface_lies() -> None:
    pose, depth = from_yaw_pitch((0.0, 0.0, 1.5), 0.0), torch.full(HW, 2.0)
    shifted, _ = surface_samples(depth, torch.full((2, *HW), 0.5), pose, INTRINSICS, CONFIG)
    plain, _ = surface_samples(depth, torch.zeros(2, *HW), pose, INTRINSICS, CONFIG)
    cell = 2.0 / float(INTRINSICS[0, 0])
    moved = shifted.mean(dim=0) - plain.mean(dim=0)
    torch.testing.assert_close(moved, torch.tensor([0.0, -0.5 * cell, -0.5 * cell]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "account",
    [
        [1, 2],
        torch.zeros(3),
        torch.zeros(2, 2, dtype=torch.int64),
        torch.tensor([8, 8]) << LEVEL_BITS,
        torch.tensor([9, 8]) << LEVEL_BITS,
    ],
)
def test_damaged_accounts_are_refused(account: object) -> None:
    with pytest.raises(InputError, match="paid must be"):
        check_account(account)
