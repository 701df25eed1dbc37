"""The resampler draws known cells from what was read alone, and leaves exact ones as they are."""

import pytest
import torch

from mirage_sim.errors import InputError
from mirage_sim.memory import MemoryRead
from mirage_sim.model.condition import build_condition
from mirage_sim.model.resampler import Resampler, ResamplerConfig, is_exact


def reading(seed: int = 0, batch: int = 1) -> MemoryRead:
    """A random read of 8 x 8 cells, two thirds of them known."""
    rng = torch.Generator().manual_seed(seed)
    shape = (batch, 1, 8, 8)
    return MemoryRead(
        torch.randn(batch, 1, 4, 8, 8, generator=rng),
        torch.rand(shape, generator=rng) < 0.67,
        1.0 + 3.0 * torch.rand(shape, generator=rng),
        torch.rand(batch, 1, 2, 8, 8, generator=rng) - 0.5,
        torch.randn(shape, generator=rng),
        torch.rand(shape, generator=rng),
    )


def resampler(trained: bool = True) -> Resampler:
    torch.manual_seed(0)
    made = Resampler(ResamplerConfig(4, 8, 1))
    if trained:
        torch.nn.init.normal_(made.last.weight)
    return made.requires_grad_(False)


def test_untrained_it_returns_what_was_read():
    read = reading()
    carried = resampler(trained=False).carry(read, build_condition(read))
    known = read.mask[:, :, None].expand_as(carried)
    assert torch.equal(carried[known], read.latents[known])


def test_exact_cells_stay_and_the_others_change():
    read = reading()
    read.mask[0, 0, 3, 3] = True
    read.offset[0, 0, :, 3, 3] = 0.01
    read.log_scale[0, 0, 3, 3] = -0.01
    read.view_cos[0, 0, 3, 3] = 0.999
    assert is_exact(read).sum() == 1
    carried = resampler().carry(read, build_condition(read))
    same = (carried == read.latents).all(dim=2)
    assert same[0, 0, 3, 3]
    assert not same[read.mask & ~is_exact(read)].any()


def test_an_unknown_cell_is_never_exact():
    read = reading()
    zero = torch.zeros_like(read.depth)
    exact = is_exact(MemoryRead(read.latents, read.mask, zero, 0 * read.offset, zero, zero + 1))
    assert torch.equal(exact, read.mask)


def test_what_lies_under_unknown_cells_changes_nothing():
    read, other = reading(), reading()
    other.latents[~other.mask[:, :, None].expand_as(other.latents)] = 7.0
    other.depth[~other.mask] = 9.0
    known = read.mask[:, :, None].expand_as(read.latents)
    assert torch.equal(
        resampler().carry(read, build_condition(read))[known],
        resampler().carry(other, build_condition(other))[known],
    )


def test_a_view_does_not_depend_on_others_of_its_batch():
    network, pair = resampler(), reading(batch=2)
    single = MemoryRead(*(value[:1] for value in vars(pair).values()))
    torch.testing.assert_close(
        network.carry(pair, build_condition(pair))[:1], network.carry(single, build_condition(single))
    )


def test_without_extras_the_geometry_is_not_told():
    read, moved = reading(), reading()
    moved.offset.neg_()
    moved.log_scale.mul_(0.5)
    network = resampler()
    assert torch.equal(network(build_condition(read, False)), network(build_condition(moved, False)))
    assert not torch.equal(network(build_condition(read)), network(build_condition(moved)))


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"width": 0}, {"blocks": -1}])
def test_bad_sizes_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        ResamplerConfig(**wrong)
