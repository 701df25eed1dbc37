"""Aligning depth: scale and shift come back, whatever a third of the cells say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_sim.perception import align_depth
from mirage_sim.perception.align import MIN_CELLS


def room(seed: int, hw: tuple[int, int] = (12, 16)) -> torch.Tensor:
    """Depths [1, h, w] between 1 and 6 m."""
    return 1.0 + 5.0 * torch.rand(1, *hw, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(
    scale=st.floats(0.05, 20.0),
    shift=st.floats(-0.1, 0.5),
    wrong=st.floats(0.0, 0.3),
    seed=st.integers(0, 1000),
)
def test_scale_and_shift_come_back_though_a_third_of_the_cells_is_wrong(scale, shift, wrong, seed):
    chance = torch.Generator().manual_seed(seed)
    depth = room(seed)
    said = (1.0 / depth - shift) / scale
    said = (said - said.min() + 0.01) if bool((said <= 0).any()) else said  # still affine
    moved = torch.rand(depth.shape, generator=chance) < wrong
    known = torch.where(moved, depth * (0.2 + 0.3 * torch.rand(depth.shape, generator=chance)), depth)
    aligned, told = align_depth(said, known, torch.ones_like(depth, dtype=torch.bool))
    assert told.all()
    torch.testing.assert_close(1.0 / aligned, depth, rtol=0.02, atol=0.0)


def test_without_enough_known_cells_nothing_changes():
    depth = room(0)
    known = torch.zeros_like(depth, dtype=torch.bool)
    known.view(-1)[: MIN_CELLS - 1] = True
    aligned, told = align_depth(2.0 / depth, depth, known)
    assert not told.any()
    assert torch.equal(aligned, 2.0 / depth)


def test_a_flat_view_tells_a_scale_only():
    flat = torch.full((1, 8, 8), 2.0)
    aligned, told = align_depth(3.0 / flat, flat, torch.ones_like(flat, dtype=torch.bool))
    assert told.all()
    torch.testing.assert_close(aligned, 1.0 / flat)


def test_far_never_becomes_near():
    """Said backwards, the fit keeps a positive scale: order stays as it was said."""
    depth = room(3)
    aligned, _ = align_depth(depth, depth, torch.ones_like(depth, dtype=torch.bool))
    order = depth.flatten().argsort()
    assert (aligned.flatten()[order].diff() >= 0).all()
    assert (aligned >= 0).all()


def test_views_do_not_depend_on_each_other():
    depths = torch.cat([room(1), room(2), room(3)])
    said = torch.stack([2.0 / depths[0], 0.5 / depths[1] + 0.1, 1.0 / depths[2]])
    known = torch.ones_like(depths, dtype=torch.bool)
    known[2] = False
    together, told = align_depth(said, depths, known)
    assert told.tolist() == [True, True, False]
    for view in range(3):
        alone, _ = align_depth(said[view : view + 1], depths[view : view + 1], known[view : view + 1])
        assert torch.equal(together[view], alone[0])


def test_cells_that_cannot_be_right_do_not_count():
    depth = room(5)
    said, known = 4.0 / depth, torch.ones_like(depth, dtype=torch.bool)
    said[0, 0, :4] = torch.tensor([0.0, float("inf"), 0.0, 0.0])
    stored = depth.clone()
    stored[0, 1, :4] = 0.0  # unknown
    aligned, _ = align_depth(said, stored, known)
    torch.testing.assert_close(1.0 / aligned[0, 2:], depth[0, 2:], rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_answer_is_float32(dtype):
    depth = room(0).to(dtype)
    assert align_depth(1 / depth, depth, depth > 0)[0].dtype == torch.float32
