"""The sampler follows straight flows exactly, whatever the scheduler."""

import pytest
import torch

from mirage_sim.errors import InputError
from mirage_sim.memory import MemoryRead
from mirage_sim.model.config import SamplerConfig
from mirage_sim.model.sampler import flow_start, make_scheduler, sample, shift_sigma, start_fraction


@pytest.mark.parametrize("scheduler", ["euler", "unipc"])
@pytest.mark.parametrize("steps", [1, 2, 4, 9])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_perfect_network_reaches_the_target(scheduler, steps, shift):
    rng = torch.Generator().manual_seed(0)
    target = torch.randn(2, 1, 3, 4, 4, generator=rng)
    noise = torch.randn(2, 1, 3, 4, 4, generator=rng)
    read = target + 0.1 * torch.randn(2, 1, 3, 4, 4, generator=rng)
    fraction = 0.01 + 0.99 * torch.rand(2, 1, 4, 4, generator=rng)
    start = flow_start(read, noise, fraction)
    config = SamplerConfig(steps=steps, shift=shift, scheduler=scheduler)
    drawn = sample(lambda latents, level: start - target, start, fraction, (2, 2), config)
    torch.testing.assert_close(drawn, target, atol=2e-3, rtol=1e-3)


def test_levels_start_at_one_and_end_at_zero_without_a_wasted_step():
    for shift in (1.0, 5.0):
        levels = make_scheduler(SamplerConfig(steps=4, shift=shift), torch.device("cpu")).sigmas
        even = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
        torch.testing.assert_close(levels, shift_sigma(even, shift))


def test_the_network_is_told_the_share_of_noise_of_each_token():
    told = []
    fraction = torch.tensor([[[[0.0, 1.0, 0.25, 0.1], [0.0, 0.0, 0.25, 0.0]]]])
    start = torch.zeros(1, 1, 2, 2, 4)

    def velocity(latents, level):
        told.append(level)
        return torch.zeros_like(latents)

    sample(velocity, start, fraction, (2, 2), SamplerConfig(steps=2))
    assert [level.flatten().tolist() for level in told] == [[1.0, 0.25], [0.5, 0.125]]


def reading(**changes: torch.Tensor) -> MemoryRead:
    """A read of 4 x 4 cells, each just as it was written but for the changes."""
    cells = torch.zeros(1, 1, 4, 4)
    exact = {
        "latents": torch.ones(1, 1, 3, 4, 4),
        "mask": cells == 0,
        "depth": cells + 2,
        "offset": torch.zeros(1, 1, 2, 4, 4),
        "log_scale": cells.clone(),
        "view_cos": cells + 1,
    }
    return MemoryRead(**(exact | changes))


def test_unknown_cells_start_at_noise_and_known_ones_at_what_was_carried():
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, 3, 0] = False
    read = reading(mask=mask, offset=torch.full((1, 1, 2, 4, 4), 0.4))
    for known in (0.0, 0.25):
        fraction = start_fraction(read, known)
        assert fraction[mask].unique().tolist() == [known]
        assert fraction[~mask].tolist() == [1.0]
        noise, carried = torch.full((1, 1, 3, 4, 4), 8.0), torch.full((1, 1, 3, 4, 4), torch.nan)
        carried[..., mask[0, 0]] = 4.0
        start = flow_start(carried, noise, fraction)
        assert start[..., mask[0, 0]].unique().tolist() == [4.0 * (1 - known) + 8.0 * known]
        assert start[..., ~mask[0, 0]].unique().tolist() == [8.0]


@pytest.mark.parametrize(
    "change",
    [
        {"offset": torch.tensor([0.0, 0.3]).expand(4, 4, 2).permute(2, 0, 1)[None, None]},
        {"log_scale": torch.full((1, 1, 4, 4), -0.3)},
        {"view_cos": torch.full((1, 1, 4, 4), 0.9)},
    ],
)
def test_cells_read_exactly_start_without_noise(change):
    assert start_fraction(reading(), 0.25).unique().tolist() == [0.0]
    assert start_fraction(reading(**change), 0.25).unique().tolist() == [0.25]
    assert start_fraction(reading(), 1.0).unique().tolist() == [1.0]


def test_cells_without_noise_stay_whatever_the_network_says():
    start = torch.arange(16.0).reshape(1, 1, 1, 4, 4)
    fraction = torch.ones(1, 1, 4, 4)
    fraction[..., :2, :2] = 0.0
    config = SamplerConfig(steps=3)
    drawn = sample(lambda latents, level: torch.ones_like(latents), start, fraction, (2, 2), config)
    torch.testing.assert_close(drawn[..., :2, :2], start[..., :2, :2])
    torch.testing.assert_close(drawn[..., 2:, :2], start[..., 2:, :2] - 1)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"refine_steps": -1}, {"scheduler": "heun"}, {"known_fraction": 1.5}]
)
def test_bad_settings_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SamplerConfig(**wrong)
