"""Gaps: the fast cover against one cell after the other, and floors and borders seen from nearer."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mirage_sim.memory import lift_tokens, splat
from mirage_sim.memory.gaps import SLACK, cover
from tests.memory.rooms import HW, box_depth, camera, intrinsics

STEPS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def slow_cover(
    mask: Tensor, offset: Tensor, log_scale: Tensor, depth: Tensor, index: Tensor, before: Tensor
) -> list[list[tuple[int, int]]]:
    """Cell after cell: the neighbour whose token each shows, itself where there is none."""
    height, width = mask.shape

    def known(y: int, x: int) -> bool:
        return 0 <= y < height and 0 <= x < width and bool(mask[y, x])

    def between(y: int, x: int, dy: int, dx: int) -> bool:
        near = (y + dy, x + dx)
        for steps in (1, 2):
            far = (y - steps * dy, x - steps * dx)
            if known(*far) and max(int(index[near]), int(index[far])) < int(before[y, x]):
                a, b = float(depth[near]), float(depth[far])
                if abs(a - b) <= 0.2 * (1 + steps) * min(a, b):
                    return True
        return False

    shown = []
    for y in range(height):
        row = []
        for x in range(width):
            best, source = math.inf, (y, x)
            for dy, dx in STEPS if not mask[y, x] else []:
                near = (y + dy, x + dx)
                if not known(*near):
                    continue
                u, v = float(offset[0][near]) + dx, float(offset[1][near]) + dy
                grown = min(1.0, max(-1.0, float(log_scale[near])))
                reach = 0.5 * (1.0 + grown + 0.5 * grown * grown) + SLACK
                covers = max(abs(u), abs(v)) <= reach or between(y, x, dy, dx)
                if covers and u * u + v * v < best - 1e-6:
                    best, source = u * u + v * v, near
            row.append(source)
        shown.append(row)
    return shown


@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
def test_cover_is_that_of_the_slow_way(seed: int, share: float) -> None:
    chance = torch.Generator().manual_seed(seed)
    size = (6, 7)
    mask = torch.rand(size, generator=chance) < share
    offset = torch.rand(2, *size, generator=chance) - 0.5
    log_scale = 0.7 * torch.randn(size, generator=chance)
    depth = torch.where(mask, 1.0 + 2.0 * torch.rand(size, generator=chance), 0.0)
    index = torch.where(mask, torch.randperm(42, generator=chance).reshape(size), -1)
    before = torch.randint(0, 60, size, generator=chance)
    source, taken = cover(mask, offset, log_scale, depth, index, before)
    slow = slow_cover(mask, offset, log_scale, depth, index, before)
    for y in range(size[0]):
        for x in range(size[1]):
            from_y, from_x = divmod(int(source[y, x]), size[1])
            assert (from_y, from_x) == slow[y][x]
            step = torch.tensor([from_x - x, from_y - y])
            torch.testing.assert_close(taken[:, y, x], offset[:, from_y, from_x] + step)


def seen_from_nearer(step: float) -> tuple[Tensor, Tensor, Tensor]:
    """A box written from one camera and read from one ahead: known cells, depth and truth."""
    tokens = lift_tokens(box_depth(camera())[None], camera()[None], intrinsics(1))
    cloud = (
        tokens.positions.flatten(1, 2),
        tokens.known.flatten(1),
        tokens.footprint.flatten(1),
        tokens.view_dir.flatten(1, 2),
    )
    nearer = camera(step)
    read = splat(*cloud, nearer[None, None], intrinsics(1, 1), HW)
    return read.mask[0, 0], read.depth[0, 0], box_depth(nearer)


def test_floors_and_borders_have_no_gaps_from_nearer() -> None:
    """All that is seen was seen before: tokens lie up to twice as far apart on the floor as on the wall."""
    for step in (0.2, 0.5, 0.8):
        mask, depth, truth = seen_from_nearer(step)
        assert bool(mask.all()), step
        torch.testing.assert_close(depth, truth, rtol=0.4, atol=0)


def test_what_fell_into_a_cell_later_does_not_change_how_it_looks() -> None:
    mask = torch.tensor([[True, False, True]])
    offset, log_scale = torch.zeros(2, 1, 3), torch.zeros(1, 3)
    depth, index = torch.tensor([[2.0, 0.0, 2.2]]), torch.tensor([[4, -1, 7]])
    for before, source in ((100, 0), (7, 1), (3, 1)):  # both are older; one of them; none
        found, _ = cover(mask, offset, log_scale, depth, index, torch.full((1, 3), before))
        assert found.tolist() == [[0, source, 2]]
    steep, _ = cover(mask, offset, log_scale, torch.tensor([[2.0, 0.0, 3.0]]), index, torch.full((1, 3), 100))
    assert steep.tolist() == [[0, 1, 2]]
